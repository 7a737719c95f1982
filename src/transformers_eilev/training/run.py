"""A training from its arguments to what it leaves: what the example scripts share."""

import copy
import logging
import os
from collections.abc import Sequence

from transformers import TrainerCallback, set_seed
from transformers.utils import logging as transformers_logging

from .arguments import DataArguments, EilevDataArguments, ModelArguments, VideoNarrationTrainingArguments
from .checkpoints import steps_of
from .data import make_datasets
from .freezing import count_parameters
from .loading import load_model_and_processor
from .resuming import check_same_run, checkpoint_to_resume
from .trainer import VideoNarrationTrainer, max_length_of


logger = logging.getLogger(__name__)


def run_training(
    model_args: ModelArguments,
    data_args: DataArguments,
    training_args: VideoNarrationTrainingArguments,
    *,
    callbacks: Sequence[TrainerCallback] = (),
) -> dict[str, float]:
    """
    Trains, evaluates and saves, as the arguments say.

    EILEV if `data_args` are [`EilevDataArguments`], VideoBLIP otherwise. What can be wrong with the arguments,
    the clips (but for pictures that can't be decoded) and the checkpoint is found before the first step.

    Args:
        model_args, data_args, training_args: what `parse_arguments` gives.
        callbacks (`Sequence[TrainerCallback]`, *optional*): for the `Trainer`, beside its own.

    Returns:
        `dict[str, float]`: the metrics of the training and of the last evaluation.

    Raises:
        ValueError: for what does not fit, by name and with counts; for an `output_dir` that holds a run which is not
            to be resumed, or one of other arguments.
    """
    _set_up_logging(training_args)
    set_seed(training_args.seed)
    _check(model_args, training_args)
    checkpoint = checkpoint_to_resume(training_args)
    model, processor = load_model_and_processor(
        model_args,
        prompt_layout="interleaved" if isinstance(data_args, EilevDataArguments) else "prepended",
        is_trained=training_args.do_train,
    )
    # One process fills the caches of the machine's disk, the others read them.
    with training_args.main_process_first(desc="opening the clips"):
        train_dataset, eval_dataset = make_datasets(
            data_args,
            processor=processor,
            num_frames=model_args.num_subsample_frames,
            seed=training_args.seed if training_args.data_seed is None else training_args.data_seed,
            with_train=training_args.do_train,
            with_val=training_args.do_eval,
        )
    if training_args.do_eval and eval_dataset is None:
        raise ValueError("There is nothing to evaluate on: set `val_frames_dir`, or `eval_strategy` to 'no'")
    _check_length(model, processor, train_dataset, eval_dataset)
    # By one process: it reads all weights of the vision model.
    if data_args.vision_features_dir is not None and training_args.process_index == 0:
        _check_features(model, processor, train_dataset, eval_dataset)
    trainer = VideoNarrationTrainer(
        model,
        training_args,
        processor=processor,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        callbacks=callbacks,
    )
    for name, dataset in (("train", train_dataset), ("evaluate", eval_dataset)):
        if dataset is not None:
            logger.info("%d samples to %s on", len(dataset), name)
    for part, (total, trained) in count_parameters(model).items():
        logger.info("%s: %d of %d parameters are trained", part, trained, total)

    metrics = {}
    if training_args.do_train:
        check_same_run(model_args, data_args, training_args, train_dataset, is_resumed=checkpoint is not None)
        begun_at = 0 if checkpoint is None else steps_of(checkpoint)
        result = trainer.train(resume_from_checkpoint=None if checkpoint is None else os.fspath(checkpoint))
        metrics.update(result.metrics)
        if trainer.state.global_step > begun_at:
            trainer.save_metrics("train", result.metrics)
        trainer.save_state()
    if training_args.do_eval:
        evaluation = trainer.evaluate()
        metrics.update(evaluation)
        trainer.save_metrics("eval", evaluation)
    if training_args.do_train:
        trainer.save_model()  # and pushes it, if asked to
    return metrics


def _set_up_logging(training_args):
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", datefmt="%Y-%m-%d %H:%M:%S")
    transformers_logging.set_verbosity(training_args.get_process_log_level())
    if training_args.log_level == "passive":
        level = logging.INFO if training_args.process_index == 0 else logging.WARNING
    else:
        level = training_args.get_process_log_level()
    logging.getLogger("transformers_eilev").setLevel(level)


def _check(model_args, training_args):
    needed = {"bfloat16": "bf16", "float16": "fp16"}.get(model_args.frozen_dtype)
    if needed is not None and not getattr(training_args, needed):
        raise ValueError(
            f"`frozen_dtype` is {model_args.frozen_dtype}, while what is trained is float32: set `{needed}`, by which "
            "the parts meet"
        )


def _check_length(model, processor, *datasets):
    """Whether the language model has room for some of the texts; the others are checked as they come."""
    max_length = max_length_of(model.config)
    for dataset in datasets if max_length is not None else ():
        if dataset is None:
            continue
        texts = copy.copy(dataset)
        texts.load_clip, texts.transform = (lambda row: None), None
        samples = [texts[index] for index in range(min(len(texts), 8))]
        longest = max(len(processor.encode(s["text"], s["text_target"])["input_ids"]) for s in samples)
        if longest > max_length:
            raise ValueError(
                f"A text with {dataset.sampler.num_examples} examples has {longest} tokens, but the language model "
                f"has {max_length} positions: give fewer examples"
            )


def _check_features(model, processor, *datasets):
    for dataset in datasets:
        if dataset is not None:
            store = dataset.load_clip.__self__
            names = {*dataset.actions["frame_path"][:], *dataset.context_actions["frame_path"][:]}
            store.check(model, processor, sorted(names))


__all__ = ["run_training"]

"""A training from its arguments to what it leaves: what the example scripts share."""

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from transformers import TrainerCallback, set_seed
from transformers.utils import logging as transformers_logging

from ..data.files import write_json
from .arguments import DataArguments, EilevDataArguments, ModelArguments, VideoNarrationTrainingArguments
from .checkpoints import find_last_checkpoint
from .data import make_datasets
from .freezing import count_parameters
from .loading import load_model_and_processor
from .trainer import VideoNarrationTrainer


logger = logging.getLogger(__name__)

# What a run was made of. A resumed one must be made of the same.
RUN_FILE = "training_run.json"
# Arguments by which a run may go on with others: where things are, and how fast.
_MAY_CHANGE = (
    "skip_missing_clips",
    "train_frames_dir",
    "val_frames_dir",
    "vision_features_dir",
    "attn_implementation",
)


def run_training(
    model_args: ModelArguments,
    data_args: DataArguments,
    training_args: VideoNarrationTrainingArguments,
    *,
    callbacks: Sequence[TrainerCallback] = (),
) -> dict[str, float]:
    """
    Trains, evaluates and saves, as the arguments say.

    EILEV if `data_args` are [`EilevDataArguments`], VideoBLIP otherwise. Everything that can be wrong with the
    arguments, the clips and the checkpoint is found before the first step.

    Args:
        model_args, data_args, training_args: what `parse_arguments` gives.
        callbacks (`Sequence[TrainerCallback]`, *optional*): for the `Trainer`, beside its own.

    Returns:
        `dict[str, float]`: the metrics of the training and of the last evaluation.

    Raises:
        ValueError: for what does not fit, by name; for an `output_dir` that holds a run which is not to be resumed, or
            one of other arguments.
    """
    _set_up_logging(training_args)
    set_seed(training_args.seed)
    _check(model_args, training_args)
    checkpoint = _checkpoint_to_resume(training_args)
    model, processor = load_model_and_processor(
        model_args, prompt_layout="interleaved" if isinstance(data_args, EilevDataArguments) else "prepended"
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
    for part, (total, trained) in count_parameters(model).items():
        logger.info("%s: %d of %d parameters are trained", part, trained, total)

    metrics = {}
    if training_args.do_train:
        _check_same_run(model_args, data_args, training_args, train_dataset, is_resumed=checkpoint is not None)
        result = trainer.train(resume_from_checkpoint=None if checkpoint is None else os.fspath(checkpoint))
        metrics.update(result.metrics)
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
    level = training_args.get_process_log_level()
    logging.getLogger("transformers_eilev").setLevel(level)
    transformers_logging.set_verbosity(level)


def _check(model_args, training_args):
    if model_args.frozen_dtype not in (None, "float32") and not (training_args.bf16 or training_args.fp16):
        raise ValueError(
            f"`frozen_dtype` is {model_args.frozen_dtype}, while what is trained is float32: set `bf16` or `fp16`, by "
            "which the parts meet"
        )


def _checkpoint_to_resume(training_args) -> Path | None:
    """Where to go on; an `output_dir` with a run in it that nobody asked to go on with is an error."""
    wanted = training_args.resume_from_checkpoint
    if wanted is not None and wanted.lower() not in ("last", "true"):
        if wanted.lower() == "false":
            return None
        folder = Path(wanted)
        if find_last_checkpoint(folder.parent) is None or not (folder / "trainer_state.json").is_file():
            raise ValueError(f"`resume_from_checkpoint` is {wanted!r}, where there is no whole checkpoint")
        return folder
    last = find_last_checkpoint(training_args.output_dir)
    if wanted is None and last is not None and training_args.do_train:
        raise ValueError(
            f"{training_args.output_dir} holds a run up to {last.name}: set `resume_from_checkpoint` to 'last' to go "
            "on with it, or choose another `output_dir`"
        )
    return last


def _check_features(model, processor, *datasets):
    for dataset in datasets:
        if dataset is not None:
            store = dataset.load_clip.__self__
            names = {*dataset.actions["frame_path"][:], *dataset.context_actions["frame_path"][:]}
            store.check(model, processor, sorted(names))


def _check_same_run(model_args, data_args, training_args, train_dataset, *, is_resumed: bool):
    """What decides over samples and steps, written by a run and compared by whoever resumes it."""
    run = {
        **{name: value for name, value in vars(model_args).items() if name not in _MAY_CHANGE},
        **{name: value for name, value in vars(data_args).items() if name not in _MAY_CHANGE and "val_" not in name},
        "seed": training_args.seed,
        "data_seed": training_args.data_seed,
        "total_train_batch_size": training_args.train_batch_size
        * training_args.gradient_accumulation_steps
        * training_args.world_size,
        "num_train_samples": len(train_dataset),
        "learning_rate": training_args.learning_rate,
    }
    path = Path(training_args.output_dir) / RUN_FILE
    if is_resumed and path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [name for name, value in run.items() if before.get(name) != value]
        if changed:
            differences = "; ".join(f"`{name}` was {before.get(name)!r} and is {run[name]!r}" for name in changed)
            raise ValueError(f"The run in {path.parent} can't be resumed as another: {differences}")
    elif training_args.process_index == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, run)


__all__ = ["run_training"]

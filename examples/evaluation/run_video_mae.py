"""
Trains VideoMAE to tell verbs, or nouns, of single clips: a baseline without language and without context.

    torchrun --nproc_per_node=8 examples/evaluation/run_video_mae.py --label verb --train_frames_dir clips \
        --val_frames_dir clips --output_dir video-mae-verb --per_device_train_batch_size 16 --num_train_epochs 10 \
        --eval_strategy epoch --save_strategy epoch --metric_for_best_model macro_f1 --bf16

Once for verbs and once for nouns; `VideoMaeNarrator.from_pretrained` narrates with both. The classes are the labels
of the training clips. Clips of an evaluation with another label are counted, and always wrong. Every argument may
stand in a YAML file instead; `--help` lists them. The same command with `--resume_from_checkpoint last` starts a run,
or goes on with one that was stopped.
"""

import os
from dataclasses import dataclass, field, replace
from functools import partial

from accelerate import PartialState
from transformers import AutoImageProcessor, Trainer, VideoMAEConfig, VideoMAEForVideoClassification, set_seed

from transformers_eilev.data import FrameLoader
from transformers_eilev.evaluation.video_mae import (
    LabelledClips,
    check_image_size,
    classes_of,
    classification_loss,
    classification_metrics,
)
from transformers_eilev.training import (
    ClipAugmentation,
    DataArguments,
    VideoNarrationTrainingArguments,
    make_datasets,
    parse_arguments,
)
from transformers_eilev.training.callbacks import ExactResume, Samples
from transformers_eilev.training.resuming import check_same_run, checkpoint_to_resume


@dataclass
class VideoMaeArguments:
    """Which model is trained, and to tell what."""

    label: str = field(metadata={"help": "What it shall tell.", "choices": ["verb", "noun"]})
    model_name_or_path: str = field(
        default="MCG-NJU/videomae-base", metadata={"help": "Model id or folder of a VideoMAE to start from."}
    )
    mean_pooling: bool = field(
        default=True,
        metadata={
            "help": "Classify the mean of all tokens, as VideoMAE's own fine-tuning does; else the first of them, as "
            "the config of a checkpoint that is not fine-tuned would have it."
        },
    )


def make_clips(model_args, data_args, training_args, config, image_processor):
    """The clips to train on and those to evaluate on, or `None`; and the former's samples."""
    if data_args.vision_features_dir is not None:
        raise ValueError("`vision_features_dir` holds features of another model: VideoMAE needs frames")
    # One process fills the caches of the machine's disk, the others read them.
    with training_args.main_process_first(desc="opening the clips"):
        train, val = make_datasets(
            replace(data_args, augment=False),
            processor=None,
            num_frames=config.num_frames,
            seed=training_args.seed,
            with_train=training_args.do_train,
            with_val=training_args.do_eval,
        )
    if training_args.do_eval and val is None:
        raise ValueError("There is nothing to evaluate on: set `val_frames_dir`, or `eval_strategy` to 'no'")
    classes = list(config.id2label.values()) if train is None else classes_of(train, model_args.label)
    clips = []
    for samples in (train, val):
        if samples is not None:
            samples.load_clip = FrameLoader()  # all that are stored: which are taken how often, `LabelledClips` says
            samples = LabelledClips(samples, model_args.label, classes, image_processor, config.num_frames)
        clips.append(samples)
    if train is not None and data_args.augment:
        train.transform = ClipAugmentation((config.image_size, config.image_size))
    return *clips, train


def main():
    model_args, data_args, training_args = parse_arguments(
        [VideoMaeArguments, DataArguments, VideoNarrationTrainingArguments]
    )
    set_seed(training_args.seed)
    checkpoint = checkpoint_to_resume(training_args)
    config = VideoMAEConfig.from_pretrained(model_args.model_name_or_path)
    image_processor = AutoImageProcessor.from_pretrained(model_args.model_name_or_path)
    check_image_size(config, image_processor)
    train, val, samples = make_clips(model_args, data_args, training_args, config, image_processor)
    if train is not None:
        config.use_mean_pooling = model_args.mean_pooling
        config.id2label = dict(enumerate(train.names))
        config.label2id = {name: number for number, name in config.id2label.items()}
    model = VideoMAEForVideoClassification.from_pretrained(
        model_args.model_name_or_path, config=config, ignore_mismatched_sizes=train is not None
    )
    # Checkpoints with the weights' names of today: `Trainer` reads them without the renaming of `from_pretrained`, and
    # would go on without the biases of queries and values, and likewise load the best one.
    model.save_pretrained = partial(model.save_pretrained, save_original_format=False)
    trainer = Trainer(
        model,
        training_args,
        train_dataset=None if train is None else Samples(train),
        eval_dataset=val,
        processing_class=image_processor,
        compute_loss_func=classification_loss,
        compute_metrics=None if val is None else partial(classification_metrics, names=val.names),
        # Augmentation and dropout of a resumed run are those of the run that was not stopped.
        callbacks=[ExactResume(training_args.seed, [] if train is None else [train])],
    )
    if train is not None:
        check_same_run(model_args, data_args, training_args, samples, is_resumed=checkpoint is not None)
        result = trainer.train(resume_from_checkpoint=None if checkpoint is None else os.fspath(checkpoint))
        trainer.save_metrics("train", result.metrics)
        trainer.save_state()
        trainer.save_model()
    if val is not None:
        trainer.save_metrics("eval", trainer.evaluate())
    PartialState().destroy_process_group()


if __name__ == "__main__":
    main()

"""
Trains a model to narrate a clip by itself, as VideoBLIP was.

    python examples/training/run_video_blip.py examples/training/configs/video-blip-opt-2.7b.yaml \
        --train_frames_dir clips --val_frames_dir clips --output_dir video-blip-opt-2.7b

Every argument may stand in the YAML (or JSON) file or on the command line, which goes before the file; `--help` lists
them. The same command with `--resume_from_checkpoint last` starts a run, or goes on with one that was stopped.
"""

from accelerate import PartialState

from transformers_eilev.training import (
    ModelArguments,
    VideoBlipDataArguments,
    VideoNarrationTrainingArguments,
    parse_arguments,
    run_training,
)


def main():
    run_training(*parse_arguments([ModelArguments, VideoBlipDataArguments, VideoNarrationTrainingArguments]))
    # Or a process may abort at its very end, when threads of the others still talk to it.
    PartialState().destroy_process_group()


if __name__ == "__main__":
    main()

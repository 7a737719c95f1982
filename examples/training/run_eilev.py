"""
Trains a model to learn from the narrated clips in its prompt, as EILEV was (https://arxiv.org/abs/2311.17041).

    torchrun --nproc_per_node=8 examples/training/run_eilev.py examples/training/configs/eilev-opt-2.7b.yaml \
        --train_frames_dir clips --val_frames_dir clips --output_dir eilev-blip2-opt-2.7b

Every argument may stand in the YAML (or JSON) file or on the command line, which goes before the file; `--help` lists
them. The same command with `--resume_from_checkpoint last` starts a run, or goes on with one that was stopped.
"""

from accelerate import PartialState

from transformers_eilev.training import (
    EilevDataArguments,
    ModelArguments,
    VideoNarrationTrainingArguments,
    parse_arguments,
    run_training,
)


def main():
    run_training(*parse_arguments([ModelArguments, EilevDataArguments, VideoNarrationTrainingArguments]))
    # Or a process may abort at its very end, when threads of the others still talk to it.
    PartialState().destroy_process_group()


if __name__ == "__main__":
    main()

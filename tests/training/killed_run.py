"""
`run_eilev.py` with a whole run killed, launcher and all, at one point of it: before (step end), after (evaluation) or
within (save) what a step does.

    torchrun killed_run.py POINT STEP [arguments of run_eilev.py]
"""

import os
import signal
import sys
from pathlib import Path

import torch
from transformers import Trainer, TrainerCallback

from transformers_eilev.training import (
    EilevDataArguments,
    ModelArguments,
    VideoNarrationTrainingArguments,
    parse_arguments,
    run_training,
)


class Killer(TrainerCallback):
    def __init__(self, point, step):
        self.point, self.step = point, step
        save_state = Trainer._save_rng_state

        def save_half(trainer, output_dir):
            """The weights and the optimizer are written, the trainer's state is not."""
            self.kill("save", trainer.state)
            save_state(trainer, output_dir)

        Trainer._save_rng_state = save_half

    def kill(self, point, state):
        if (point, state.global_step) == (self.point, self.step) and state.is_world_process_zero:
            launcher = os.getppid()
            workers = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
            for process in [launcher, *map(int, workers)]:
                os.kill(process, signal.SIGKILL)

    def on_step_end(self, args, state, control, **kwargs):
        self.kill("step", state)

    def on_evaluate(self, args, state, control, **kwargs):
        self.kill("evaluation", state)


def main():
    point, step, *argv = sys.argv[1:]
    torch.set_num_threads(1)
    arguments = parse_arguments([ModelArguments, EilevDataArguments, VideoNarrationTrainingArguments], argv)
    run_training(*arguments, callbacks=[Killer(point, int(step))])


if __name__ == "__main__":
    main()

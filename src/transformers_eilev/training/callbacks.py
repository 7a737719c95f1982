"""What makes a stopped and resumed run the run that never stopped, and what it costs."""

import time

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler
from transformers import TrainerCallback


# The last numbers of seeds: what the draws are for. Those of `data` are from 1 to 5.
_ORDER, _DROPOUT = 11, 12


class EpochSampler(Sampler):
    """
    The order of samples in an epoch, from (seed, epoch) alone.

    Where the last batches can't be filled, the first samples are repeated, as `accelerate` would do; but here a
    repeated sample `i` is given as `-1 - i`, by which [`Samples`] marks it as one that teaches nothing.

    Args:
        length (`int`): number of samples.
        seed (`int`): of the order.
        multiple (`int`): how many samples all processes take at a time.
    """

    def __init__(self, length: int, seed: int, multiple: int = 1):
        self.length = length
        self.seed = seed
        self.multiple = multiple
        self.epoch = 0

    def __len__(self) -> int:
        return self.length + -self.length % self.multiple

    def __iter__(self):
        rng = np.random.default_rng([self.seed, self.epoch, 0, _ORDER])
        order = rng.permutation(self.length)
        repeated = np.resize(order, len(self) - self.length)
        return iter(np.concatenate([order, -1 - repeated]).tolist())

    def set_epoch(self, epoch: int):
        """Another epoch, another order."""
        self.epoch = epoch


class Samples(Dataset):
    """
    A data set as a loader sees it: without the `set_epoch` by which `accelerate` would change its draws when it
    pleases, and with `is_repeated` in samples that only fill a batch.

    Args:
        dataset (`Sequence[dict]`): the samples.
    """

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        return self.dataset[index] if index >= 0 else {**self.dataset[-1 - index], "is_repeated": True}


class ExactResume(TrainerCallback):
    """
    Leaves nothing to what a process remembers: the epoch's draws, dropout and the mean of the loss.

    - `accelerate` does not tell a data set its epoch in a run of several processes, nor a sampler of which batches are
      skipped: here both are told.
    - Dropout is drawn from (seed, step, process).
    - The loss is logged with every checkpoint and evaluation, so that no mean runs across one.

    Args:
        seed (`int`): of dropout.
        learns_epoch (`Sequence`): what has a `set_epoch`.
    """

    def __init__(self, seed: int, learns_epoch=()):
        self.seed = seed
        self.learns_epoch = list(learns_epoch)

    def on_epoch_begin(self, args, state, control, **kwargs):
        # A resumed run begins within an epoch; the next one begins at a whole number, but for rounding.
        for learner in self.learns_epoch:
            learner.set_epoch(int((state.epoch or 0) + 1e-6))

    def on_step_begin(self, args, state, control, **kwargs):
        sequence = np.random.SeedSequence([self.seed, state.global_step, args.process_index, _DROPOUT])
        torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))

    def on_step_end(self, args, state, control, **kwargs):
        control.should_log |= control.should_save or control.should_evaluate

    on_epoch_end = on_step_end


class Throughput(TrainerCallback):
    """
    Clips, tokens and samples a second, the share of the time that was spent waiting for data, and memory.

    Counted from one log to the next, without the time of evaluations and checkpoints.
    """

    def __init__(self):
        self._reset()

    def _reset(self):
        self.counts = {"samples": 0, "clips": 0, "tokens": 0}
        self.wait_sec = 0.0
        self._start = time.perf_counter()

    def on_train_begin(self, args, state, control, **kwargs):
        self._reset()

    # Both come after a log, see `ExactResume`: nothing that was counted is lost.
    def on_evaluate(self, args, state, control, **kwargs):
        self._reset()

    def on_save(self, args, state, control, **kwargs):
        self._reset()

    def count(self, batches: list[dict], wait_sec: float):
        """Adds the batches of a step, and how long they were waited for."""
        self.wait_sec += wait_sec
        for batch in batches:
            clips = batch.get("pixel_values", batch.get("vision_hidden_states"))
            self.counts["samples"] += len(batch["input_ids"])
            self.counts["clips"] += 0 if clips is None else len(clips)
            self.counts["tokens"] += batch["attention_mask"].sum()

    def measure(self, accelerator) -> dict[str, float]:
        """The figures since the last call, of all processes together; all of them must call it."""
        seconds = time.perf_counter() - self._start
        values = [float(self.counts[name]) for name in self.counts] + [self.wait_sec, seconds]
        sums = accelerator.reduce(torch.tensor(values, device=accelerator.device), "sum").tolist()
        peaks = accelerator.gather(torch.tensor([_peak_memory_gib()], device=accelerator.device))
        wait_sec, seconds = sums[-2], sums[-1]
        rates = {
            f"{name}_per_second": round(total / seconds * accelerator.num_processes, 3)
            for name, total in zip(self.counts, sums)
        }
        self._reset()
        return {
            **rates,
            "data_wait_share": round(wait_sec / seconds, 4),
            "peak_memory_gib": round(max(peaks.tolist()), 3),
        }


def _peak_memory_gib() -> float:
    """Of the GPU, since the process began; of the process itself where there is none."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


__all__ = ["EpochSampler", "ExactResume", "Samples", "Throughput"]

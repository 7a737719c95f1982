"""The processes of an evaluation, started by `torchrun` or `accelerate launch`, or one alone."""

from datetime import timedelta

import torch
from accelerate import PartialState


# Others wait while one still narrates its share, or measures.
_PATIENCE = timedelta(days=7)


def join_processes() -> PartialState:
    """
    This process's place among those that work on an evaluation. To be called before anything else of accelerate.

    Without an accelerator they meet on the CPU, which accelerate by itself takes for as many evaluations.
    """
    return PartialState(cpu=not torch.accelerator.is_available(), timeout=_PATIENCE)


__all__ = ["join_processes"]

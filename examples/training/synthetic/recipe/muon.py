"""Muon: gradient descent whose steps turn every direction of a matrix alike."""

from collections.abc import Iterable

import torch
from torch import nn


# Of the odd polynomial that, applied time and again to a matrix, brings its singular values near 1: the quintic of
# https://kellerjordan.github.io/posts/muon, five times.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """
    The optimizer of https://kellerjordan.github.io/posts/muon for the matrices of hidden layers, in float32 and for
    all matrices of a shape at once.

    `torch.optim.Muon` computes in bfloat16 and one matrix after another, which takes 13 times as long on a CPU.

    A step is as large as one of AdamW's at the same learning rate: 0.2 root mean square of what is changed
    (https://arxiv.org/abs/2502.16982).

    Args:
        weights (`Iterable[nn.Parameter]`): matrices.
        lr (`float`): learning rate.
        momentum (`float`): Nesterov's.
        weight_decay (`float`): apart from the gradient, as in AdamW.

    Raises:
        ValueError: for a weight that is no matrix.
    """

    def __init__(
        self, weights: Iterable[nn.Parameter], lr: float = 4e-3, *, momentum: float = 0.95, weight_decay: float = 0.0
    ):
        super().__init__(weights, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.ndim != 2:
                    raise ValueError(f"Muon is for matrices, here is a weight of shape {tuple(weight.shape)}")

    @torch.no_grad()
    def step(self, closure=None):
        """One step. Weights without a gradient are left as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[nn.Parameter]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    by_shape.setdefault(tuple(weight.shape), []).append(weight)
            for shape, weights in by_shape.items():
                changes = orthogonalize(torch.stack([self._average(weight, group["momentum"]) for weight in weights]))
                size = group["lr"] * 0.2 * max(shape) ** 0.5
                for weight, change in zip(weights, changes, strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(change, alpha=-size)
        return loss

    def _average(self, weight: nn.Parameter, momentum: float) -> torch.Tensor:
        state = self.state[weight]
        if "average" not in state:
            state["average"] = torch.zeros_like(weight)
        average = state["average"].lerp_(weight.grad, 1 - momentum)
        return weight.grad.lerp(average, momentum)


def orthogonalize(matrices: torch.Tensor) -> torch.Tensor:
    """
    The nearest matrices whose singular values are all about 1: from 0.65 to 1.25, but for those of next to nothing.

    Args:
        matrices (`torch.Tensor`): of shape (number, rows, columns).
    """
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    first, third, fifth = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        squared = x @ x.mT
        x = first * x + (third * squared + fifth * squared @ squared) @ x
    return x.mT if is_tall else x

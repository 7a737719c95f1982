"""Which parts learn: the Q-Former, its query tokens and the projection; the vision and the language model stay."""

import torch
from torch import nn


FROZEN_PARTS = ("vision_model", "language_model")


def freeze(model, *, frozen_dtype: torch.dtype | None = None, frozen_dropout: bool = True):
    """
    Freezes the vision model and the language model, as EILEV and VideoBLIP were trained.

    No gradient is computed for their weights. Of the vision model, whose input needs none either, autograd keeps no
    activation; of the language model it keeps those that lead back to the features of the clips.

    Args:
        model ([`VideoBlip2ForConditionalGeneration`]): changed in place.
        frozen_dtype (`torch.dtype`, *optional*): of the frozen weights, such as `torch.bfloat16` to halve their
            memory. What is trained stays in, or gets, float32. Needs autocast (`bf16=True`).
        frozen_dropout (`bool`, *optional*, defaults to `True`): Whether the frozen parts drop out activations in
            training. The original's did, with the probabilities of their configs (OPT and T5: 0.1).

    Returns:
        `dict[str, tuple[int, int]]`: of each part, how many parameters it has and how many of them are trained.
    """
    for name in FROZEN_PARTS:
        part = getattr(model, name)
        part.requires_grad_(False)
        if frozen_dtype is not None:
            part.to(frozen_dtype)
        if not frozen_dropout:
            _turn_off_dropout(part)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return count_parameters(model)


def count_parameters(model) -> dict[str, tuple[int, int]]:
    """Of each part of a model, how many parameters it has and how many of them are trained."""
    counts = {}
    for name, parameter in model.named_parameters():
        if ".original_module." in name:  # what PEFT keeps of a module that is trained whole
            continue
        part = name.removeprefix("base_model.model.").split(".")[0]  # PEFT's prefix
        # Two weights of 4 bits stand in one number.
        state = vars(parameter).get("quant_state")
        number = parameter.numel() if state is None else state.shape.numel()
        total, trained = counts.get(part, (0, 0))
        counts[part] = (total + number, trained + number * parameter.requires_grad)
    return counts


def _turn_off_dropout(part: nn.Module):
    for module in part.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        # OPT's and T5's layers hand a number to the functional form.
        for name in ("dropout", "attention_dropout"):
            if isinstance(vars(module).get(name), float):
                setattr(module, name, 0.0)


__all__ = ["FROZEN_PARTS", "count_parameters", "freeze"]

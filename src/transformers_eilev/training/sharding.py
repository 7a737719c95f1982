"""What a model needs before FSDP may cut it into shards."""

import dataclasses

import torch
from torch import nn
from transformers import PreTrainedModel


# They lie within layers that are units themselves: as units of their own they would only double the messages.
_WITHIN_LAYERS = {"Blip2Attention", "Blip2QFormerMultiHeadAttention"}


def prepare_for_fsdp(model, plugin):
    r"""
    Makes a model one that accelerate can shard by FSDP2.

    - Units are the layers that the model has: accelerate refuses names of others (transformers' BLIP-2 names its text
      embeddings, which no clip passes through).
    - T5's embedding is one parameter under three names, which FSDP wants in one unit; accelerate makes two.
      Where it is frozen, copies are as good; `from_pretrained` ties them again.
    - Gradients are summed in float32, and the loss is not rounded to half precision.

    Args:
        model ([`VideoBlip2ForConditionalGeneration`] or an adapter of it): changed in place, before it is sharded.
        plugin (`accelerate.FullyShardedDataParallelPlugin`): of the run; changed in place.

    Raises:
        ValueError: if a tied embedding of an encoder-decoder is to be trained.
    """
    base = model if isinstance(model, PreTrainedModel) else model.get_base_model()
    there = {type(module).__name__ for module in base.modules()}
    units = sorted((set(base._no_split_modules) & there) - _WITHIN_LAYERS)
    base._no_split_modules = units
    model._no_split_modules = units
    if base.config.is_encoder_decoder:
        _untie(base)
    if plugin.mixed_precision_policy is not None and plugin.fsdp_version == 2:
        plugin.mixed_precision_policy = dataclasses.replace(
            plugin.mixed_precision_policy, reduce_dtype=torch.float32, output_dtype=None
        )


def _untie(model):
    """Gives each name of a tied and frozen parameter a parameter of its own."""
    for target, source in model.all_tied_weights_keys.items():
        weight = model.get_parameter(source)
        if weight.requires_grad:
            raise ValueError(f"{target} is tied to {source}, which is trained: FSDP can't shard it. Freeze it")
        owner, _, name = target.rpartition(".")
        setattr(model.get_submodule(owner), name, nn.Parameter(weight.detach().clone(), requires_grad=False))
    for part in (model, model.language_model):
        part.all_tied_weights_keys = {}
    model.language_model._tied_weights_keys = {}


__all__ = ["prepare_for_fsdp"]

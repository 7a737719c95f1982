"""
LoRA: small trained matrices beside a frozen model, by PEFT.

What is saved is PEFT's own kind of folder, which loads by PEFT's and transformers' own classes over the model that it
was trained on, and can be merged into it.
"""

import contextlib
import os
import warnings
from collections.abc import Sequence
from functools import partial

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils import ModulesToSaveWrapper, get_peft_model_state_dict, load_peft_weights
from torch import nn
from transformers import BitsAndBytesConfig, GenerationConfig

from ..legacy_checkpoints import read_legacy_checkpoint
from ..modeling_video_blip_2 import VideoBlip2ForConditionalGeneration


# The attention's queries and values, which is where LoRA's authors found it best (https://arxiv.org/abs/2106.09685,
# table 5): of OPT (`q_proj`, `v_proj`), of T5 (`q`, `v`), and of the Q-Former (`query`, `value`).
TARGET_MODULES = r"language_model\..*\.(q_proj|v_proj|q|v)|qformer\..*\.(query|value)"
# Small, and random where a training starts without a BLIP-2: trained whole, and saved with the adapter.
MODULES_TO_SAVE = ("language_projection",)

# Beside the parts that the model keeps whole by itself: what is trained whole can't be 8-bit, and 8-bit heads cost
# more than they save. The list replaces transformers' own, so the head has to be in it.
_NOT_QUANTIZED = ["language_projection", "lm_head", "qformer", "query_tokens"]


def add_lora(
    model: VideoBlip2ForConditionalGeneration,
    *,
    r: int = 16,
    lora_alpha: int = 32,
    lora_dropout: float = 0.05,
    target_modules: str | Sequence[str] | None = None,
    modules_to_save: Sequence[str] = MODULES_TO_SAVE,
    **kwargs,
) -> PeftModel:
    r"""
    Freezes a model and puts LoRA matrices beside some of its layers; they and `modules_to_save` are what is trained.

    Works for a model in 8 or 4 bit too (see `quantization_config`), for activation checkpointing of both kinds, and
    for a model in half precision: whatever is trained is in fp32. `transformers.Trainer` takes the result as it takes
    the model.

    The learned queries (`query_tokens`) stay as they are. They are a parameter of the model itself, and PEFT can
    neither adapt nor save one that belongs to no module inside it; the Q-Former's matrices adapt what is done with
    them.

    Args:
        model ([`VideoBlip2ForConditionalGeneration`]): What to adapt, in place. Its `name_or_path` is saved with the
            adapter, to find it again.
        r (`int`): Rank of the matrices.
        lora_alpha (`int`): Their product is scaled by `lora_alpha / r`.
        lora_dropout (`float`): Share of the inputs of the matrices that are dropped in training.
        target_modules (`str` or `Sequence[str]`, *optional*): Layers to adapt, of those not trained whole: a regular
            expression for their whole names, or a list of what the names end with. By default the queries and values
            of all attention in the language model and the Q-Former.
        modules_to_save (`Sequence[str]`): Modules to train whole and save, by what their names end with.
        kwargs: Other fields of [`peft.LoraConfig`], such as `use_rslora`, or `revision` of the model on the Hub.

    Returns:
        `PeftModel`: in training mode if the model was.

    Raises:
        ValueError: if a pattern matches no module, or one of the frozen vision model; if a module to be trained whole
            is quantized; if it is `query_tokens` that shall be trained; if the model has an adapter.
        TypeError: if the model is of another class.

    Warns:
        UserWarning: if the model was loaded from a plain BLIP-2 (`Salesforce/blip2-*`). Transformers' auto classes and
            `pipeline` would put the adapter over their own BLIP-2; `load_lora` and `merge_lora` don't.
    """
    if isinstance(model, PeftModel) or getattr(model, "peft_config", None):
        raise ValueError("The model has an adapter already; load the model without it, or merge it by `merge_lora`")
    if not isinstance(model, VideoBlip2ForConditionalGeneration):
        raise TypeError(f"`model` must be a VideoBlip2ForConditionalGeneration, but is a {type(model).__name__}")
    config = LoraConfig(
        r=r,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
        target_modules=_as_pattern(target_modules),
        modules_to_save=list(modules_to_save) or None,
        **kwargs,
    )
    _check_targets(model, config)
    _warn_of_plain_blip_2(model)
    if getattr(model, "is_quantized", False):
        # The Trainer turns checkpointing on where it is asked for; here it would be on for all.
        prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    return _prepare_for_training(get_peft_model(model, config))


def load_lora(
    adapter: str | os.PathLike,
    *,
    base_model: str | os.PathLike | VideoBlip2ForConditionalGeneration | None = None,
    is_trainable: bool = False,
    **kwargs,
) -> PeftModel:
    r"""
    A saved adapter over its model, which must fit: PEFT's and transformers' own classes warn where layers lack their
    matrices, or say nothing where matrices lack their layers.

    A `generation_config.json` beside the adapter goes before the model's own.

    Args:
        adapter (`str` or `os.PathLike`): Folder or id on the Hub.
        base_model (*optional*): The model, or its folder or id; by default the one that the adapter names.
        is_trainable (`bool`): To go on training it.
        kwargs: For the model's `from_pretrained`: `dtype`, `quantization_config`, `device_map`, ...

    Raises:
        ValueError: if the adapter's matrices and the model's layers don't belong together, or the adapter doesn't say
            which its model is and `base_model` isn't given.
    """
    config = PeftConfig.from_pretrained(adapter)
    model = base_model
    if not isinstance(model, nn.Module):
        name_or_path = base_model or config.base_model_name_or_path
        if not name_or_path:
            raise ValueError(f"The adapter in {adapter} does not name its model: give it as `base_model`")
        if base_model is None and config.revision:
            kwargs.setdefault("revision", config.revision)
        model = VideoBlip2ForConditionalGeneration.from_pretrained(name_or_path, **kwargs)
    if is_trainable and getattr(model, "is_quantized", False):
        prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    base_name = model.name_or_path or "the model given"
    try:
        loaded = PeftModel.from_pretrained(model, adapter, is_trainable=is_trainable)
    except (RuntimeError, ValueError) as error:
        # Of torch's list of all that doesn't fit, the first.
        first = next((line.strip() for line in str(error).splitlines() if "mismatch" in line), error)
        raise ValueError(f"The adapter in {adapter} does not fit {base_name}: {first}") from error
    saved, expected = load_peft_weights(str(adapter), device="cpu").keys(), get_peft_model_state_dict(loaded).keys()
    if saved != expected:
        raise ValueError(
            f"The adapter in {adapter} does not fit {base_name}: it has {_some(saved - expected)} that the model has "
            f"no place for, and lacks {_some(expected - saved)}"
        )
    # PEFT's and transformers' own classes don't look for it; a training that sets it saves it here.
    with contextlib.suppress(OSError):
        model.generation_config = GenerationConfig.from_pretrained(adapter)
    return _prepare_for_training(loaded) if is_trainable else loaded


def merge_lora(
    adapter: str | os.PathLike | PeftModel,
    *,
    base_model: str | os.PathLike | None = None,
    dtype: str | torch.dtype = "auto",
) -> VideoBlip2ForConditionalGeneration:
    r"""
    The whole model, with what the adapter learned in its weights: it needs no PEFT any more.

    An adapter that was trained on an 8- or 4-bit model is merged into the full one.

    Args:
        adapter (`str`, `os.PathLike` or `PeftModel`): A saved adapter, or a model with one, which is used up.
        base_model (*optional*): Folder or id of the model to merge a saved adapter into, instead of the one it names.
        dtype (`str` or `torch.dtype`): Precision to load that model in and to merge in; "auto": as it was saved.

    Raises:
        ValueError: if the model to merge into is quantized; for whatever `load_lora` says.
    """
    if not isinstance(adapter, PeftModel):
        adapter = load_lora(adapter, base_model=base_model, dtype=dtype)
    elif base_model is not None or dtype != "auto":
        raise ValueError("`base_model` and `dtype` are for a saved adapter, but this one has its model")
    model = adapter.get_base_model()
    if getattr(model, "is_quantized", False):
        raise ValueError(
            "The model is quantized, and merging into it would round what was learned away: save the adapter, and "
            "merge its folder, with the full model as `base_model` if it names another"
        )
    for hook in model.__dict__.pop("_lora_hooks", ()):
        hook.remove()
    for original, trained in _modules_trained_whole(model):
        for before, after in zip(original.parameters(), trained.parameters()):
            after.data = after.data.to(before.dtype)
    return adapter.merge_and_unload(safe_merge=True).requires_grad_(True)


def quantization_config(
    *, load_in_8bit: bool = False, load_in_4bit: bool = False, compute_dtype: str | torch.dtype = torch.bfloat16
) -> BitsAndBytesConfig | None:
    r"""
    How to load the model that LoRA adapts, to save memory: `from_pretrained(..., quantization_config=...)`.

    In 4 bit, as QLoRA does it (https://arxiv.org/abs/2305.14314): NF4, with the scales quantized too. What is trained
    or small or touchy stays whole: the Q-Former and its queries, the projection, the language model's head.

    Args:
        load_in_8bit, load_in_4bit (`bool`): At most one of them; `None` is returned for neither.
        compute_dtype (`str` or `torch.dtype`): What 4-bit weights are multiplied in.

    Raises:
        ValueError: for both.
    """
    if load_in_8bit and load_in_4bit:
        raise ValueError("`load_in_8bit` and `load_in_4bit` are both true, but a model is loaded in one of them")
    if load_in_8bit:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=list(_NOT_QUANTIZED))
    if load_in_4bit:
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute_dtype,
            llm_int8_skip_modules=list(_NOT_QUANTIZED),
        )
    return None


def _as_pattern(target_modules: str | Sequence[str] | None) -> str | list[str]:
    if target_modules is None:
        return TARGET_MODULES
    return target_modules if isinstance(target_modules, str) else list(target_modules)


def _check_targets(model: nn.Module, config: LoraConfig):
    """Whether every pattern says something, and nothing that must stay as it is."""
    modules = dict(model.named_modules())
    patterns = [config.target_modules] if isinstance(config.target_modules, str) else sorted(config.target_modules)
    asked = [*patterns, *(config.modules_to_save or ()), *(config.target_parameters or ())]
    if any("query_tokens" in pattern for pattern in asked):
        raise ValueError(
            "`query_tokens` can't be trained with LoRA: PEFT neither adapts nor saves a parameter of the model itself"
        )
    whole = {name: _modules_that_end_with(name, modules) for name in config.modules_to_save or ()}
    adapted = {
        pattern: [name for name in modules if name and check_target_module_exists(_only(config, pattern), name)]
        for pattern in patterns
    }
    for field, found in (("target_modules", adapted), ("modules_to_save", whole)):
        for pattern, names in found.items():
            if not names:
                raise ValueError(f"`{field}` has {pattern!r}, which matches no module of the model")
            if seen := [name for name in names if name.split(".")[0] == "vision_model"]:
                raise ValueError(
                    f"`{field}` has {pattern!r}, which matches {_some(seen)} of the vision model, which stays frozen; "
                    r"begin it with `language_model\.` or `qformer\.`"
                )
    for name in (name for names in whole.values() for name in names):
        if not all(parameter.is_floating_point() for parameter in modules[name].parameters()):
            raise ValueError(
                f"`modules_to_save` has {name!r}, which is quantized and can't be trained whole: load the model with "
                "`quantization_config(...)` of this module, which leaves it whole"
            )


def _warn_of_plain_blip_2(model: VideoBlip2ForConditionalGeneration):
    try:
        legacy = read_legacy_checkpoint(model.name_or_path) if model.name_or_path else None
    except OSError:  # a name of something that is not there any more, or not reached
        legacy = None
    if legacy is not None and not legacy.is_video_blip:
        warnings.warn(
            f"The model comes from {model.name_or_path}, a plain BLIP-2: transformers' auto classes and `pipeline` "
            "will put the adapter over their own BLIP-2. Load it by `load_lora`, merge it by `merge_lora`, or begin "
            "with a copy of the model that `save_pretrained` wrote",
            stacklevel=3,
        )


def _only(config: LoraConfig, pattern: str) -> LoraConfig:
    if isinstance(config.target_modules, str):
        return config
    return LoraConfig(
        target_modules=[pattern],
        modules_to_save=config.modules_to_save,
        layers_to_transform=config.layers_to_transform,
        layers_pattern=config.layers_pattern,
        exclude_modules=config.exclude_modules,
    )


def _modules_that_end_with(end: str, modules: dict[str, nn.Module]) -> list[str]:
    return [name for name in modules if name == end or name.endswith(f".{end}")]


def _prepare_for_training(model: PeftModel) -> PeftModel:
    """What is trained in fp32, and what it is given and gives in the types around it."""
    base = model.get_base_model()
    hooks = []
    for original, trained in _modules_trained_whole(base):
        trained.float()
        if isinstance(trained, (nn.Linear, nn.LayerNorm)):  # the Q-Former, if it is that, sees to its inputs itself
            hooks.append(trained.register_forward_pre_hook(_to_weight_dtype))
            hooks.append(trained.register_forward_hook(partial(_to_dtype, dtype=original.weight.dtype)))
    base._lora_hooks = hooks
    return model


def _modules_trained_whole(model: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    """Each as it was, and as it is trained."""
    wrappers = [module for module in model.modules() if isinstance(module, ModulesToSaveWrapper)]
    return [(wrapper.original_module, trained) for wrapper in wrappers for trained in wrapper.modules_to_save.values()]


def _to_weight_dtype(module, args):
    return tuple(arg.to(module.weight.dtype) for arg in args)


def _to_dtype(module, args, output, dtype):
    return output.to(dtype)


def _some(names) -> str:
    """The first of some names, and how many more."""
    names = sorted(names)
    return (", ".join(names[:3]) or "nothing") + (f" and {len(names) - 3} more" if len(names) > 3 else "")


__all__ = [
    "MODULES_TO_SAVE",
    "TARGET_MODULES",
    "add_lora",
    "load_lora",
    "merge_lora",
    "quantization_config",
]

"""Copies of checkpoints in today's format, that of a legacy one included, with the code that they need if wanted."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedConfig
from transformers.utils import cached_file

from ..adapters import base_of_adapter
from ..configuration_video_blip_2 import VideoBlip2Config
from ..embedded_checkpoints import find_checkpoint
from ..legacy_checkpoints import is_video_blip_config
from ..modeling_video_blip_2 import VideoBlip2ForConditionalGeneration
from ..processing_video_blip_2 import VideoBlip2Processor
from .remote_code import (
    MODEL_CLASSES,
    PROCESSOR_CLASSES,
    VIDEO_PROCESSOR_CLASSES,
    auto_map_of,
    custom_pipelines,
    remote_code_files,
)
from .weight_files import (
    WEIGHT_PATTERNS,
    cast_weights,
    find_weight_files,
    read_weights,
    select_weights,
    write_weights,
)


# What people, not programs, read of a checkpoint.
_DOCUMENTS = ("README.md", "LICENSE")
_IF_THERE = {"_raise_exceptions_for_missing_entries": False}


@dataclass(frozen=True)
class ExportedCheckpoint:
    """
    What `export_checkpoint` wrote.

    Attributes:
        folder (`Path`): where it is.
        files (`list[str]`): their names there.
        num_weights (`int`): tensors.
        num_bytes (`int`): of the tensors.
        left_out (`list[str]`): tensors of the source that today's format has no use for, such as copies of tied ones.
    """

    folder: Path
    files: list[str]
    num_weights: int
    num_bytes: int
    left_out: list[str]


def export_checkpoint(
    source: str | os.PathLike,
    target: str | os.PathLike,
    *,
    with_code: bool = False,
    dtype: str | torch.dtype | None = None,
    prompt_layout: str | None = None,
    max_shard_size: str = "5GB",
    overwrite: bool = False,
    **hub_kwargs,
) -> ExportedCheckpoint:
    """
    Writes a checkpoint of this package's, or one published before it, to another folder, in today's format.

    The weights go from file to file: their bytes stay as they are, and they are never all in memory (unless their type
    changes, or their `.bin` was written by torch before 1.6). The target appears when all of it is written.

    Args:
        source (`str` or `os.PathLike`): a folder, a model id on the Hub, or the name of a checkpoint that comes with
            the package.
        target (`str` or `os.PathLike`): a folder, which is made.
        with_code (`bool`, *optional*, defaults to `False`): Whether to put this package's code beside the weights, so
            that transformers loads the checkpoint, and its pipeline, without this package, if
            `trust_remote_code=True` is given.
        dtype (`str` or `torch.dtype`, *optional*): What to store, and to compute with: "bfloat16", say. The parts of
            the model that overflow in half precision (the Q-Former, some of Flan-T5) stay as they are. By default, all
            stays.
        prompt_layout (`str`, *optional*): For a legacy checkpoint whose name doesn't tell, "interleaved" (EILEV) or
            "prepended" (VideoBLIP).
        max_shard_size (`str`, *optional*, defaults to "5GB"): of a file of weights.
        overwrite (`bool`, *optional*, defaults to `False`): Whether `target` may have files already. Those of a
            checkpoint are replaced, others stay.
        hub_kwargs: `revision` and `token`, if the source lies on the Hub.

    Returns:
        [`ExportedCheckpoint`]

    Raises:
        ValueError: if `source` is no checkpoint of EILEV or VideoBLIP, is an adapter alone, or quantized; if its files
            don't fit each other; if one of `source` and `target` lies in the other; for another `dtype`.
        FileExistsError: if `target` has files already and `overwrite` isn't given.
        OSError: if files of `source` are missing.
    """
    source, target = find_checkpoint(os.fspath(source)), Path(target)
    dtype = _dtype_of(dtype)
    _check_target(source, target, overwrite)
    _check_source(source, hub_kwargs)
    layout = {} if prompt_layout is None else {"prompt_layout": prompt_layout}
    model = _build_without_weights(source, {**layout, **hub_kwargs})
    processor = VideoBlip2Processor.from_pretrained(source, **layout, **hub_kwargs)
    processor.check_config(model.config)
    weights = select_weights(read_weights(find_weight_files(source, **hub_kwargs)), model, where=source)
    tensors = weights.tensors
    if dtype is not None:
        tensors = cast_weights(tensors, dtype, kept=set(model._keep_in_fp32_modules))
        model.config.dtype = dtype

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as temporary:
        folder = Path(temporary)
        write_weights(tensors, folder, max_shard_size)
        _write_configs(model, processor, folder)
        _say_where_code_is(folder, with_code)
        documents = (cached_file(source, name, **_IF_THERE, **hub_kwargs) for name in _DOCUMENTS)
        code = remote_code_files() if with_code else []
        for path in filter(None, [*documents, *code]):
            shutil.copyfile(path, folder / Path(path).name)
        files = sorted(path.name for path in folder.iterdir())
        _replace(target, folder, files)
    num_bytes = sum(tensor.nbytes for tensor in tensors.values())
    return ExportedCheckpoint(target, files, len(tensors), num_bytes, weights.left_out)


def is_legacy_checkpoint(source: str | os.PathLike, **hub_kwargs) -> bool:
    """
    Whether a checkpoint was published before this package.

    Raises:
        ValueError, OSError: as `export_checkpoint`, if there is none or it is none of EILEV's or VideoBLIP's.
    """
    return is_video_blip_config(_check_source(find_checkpoint(os.fspath(source)), hub_kwargs))


# ------------------------------------------------------------------------------------------------------------ details


def _dtype_of(dtype: str | torch.dtype | None) -> torch.dtype | None:
    named = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if named is None and dtype is None:
        return None
    if named not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"`dtype` must be float32, bfloat16 or float16, but is {dtype!r}")
    return named


def _check_target(source: str, target: Path, overwrite: bool) -> None:
    if Path(source).is_dir():
        inner, outer = target.resolve(), Path(source).resolve()
        if inner.is_relative_to(outer):
            raise ValueError(f"The target {target} lies in the source {source}: name a folder outside of it")
        if outer.is_relative_to(inner):
            raise ValueError(f"The source {source} lies in the target {target}: name a folder of its own")
    if target.exists() and not target.is_dir():
        raise FileExistsError(f"The target {target} is a file, not a folder")
    if not overwrite and target.is_dir() and any(target.iterdir()):
        raise FileExistsError(
            f"The target {target} is not empty: name another folder, or allow to overwrite it "
            "(`overwrite=True`, --overwrite)"
        )


def _check_source(source: str, hub_kwargs: dict) -> dict:
    """Its `config.json`, if it is one of EILEV's or VideoBLIP's."""
    if Path(source).is_dir() and not (Path(source) / "config.json").is_file():
        raise FileNotFoundError(f"{source} is no checkpoint: it has no config.json")
    if base := base_of_adapter(source):
        raise ValueError(
            f"{source} holds an adapter of {base} alone. Merge it into that model first, by "
            "examples/training/run_merge_lora.py"
        )
    try:
        config, _ = PreTrainedConfig.get_config_dict(source, **hub_kwargs)
    except OSError as error:
        raise OSError(f"There is no checkpoint {source!r}: {error}") from error
    if config.get("model_type") != VideoBlip2Config.model_type and not is_video_blip_config(config):
        raise ValueError(
            f"{source} is no checkpoint of EILEV or VideoBLIP: its config.json is of type "
            f"{config.get('model_type')!r}, architectures {config.get('architectures')}"
        )
    if "quantization_config" in config:
        raise ValueError(f"{source} is quantized: export the checkpoint that it was made from")
    if cached_file(source, "tokenizer.json", **_IF_THERE, **hub_kwargs) is None:
        raise FileNotFoundError(f"{source} is no whole checkpoint: it has no tokenizer.json")
    return config


def _build_without_weights(source: str, kwargs: dict) -> VideoBlip2ForConditionalGeneration:
    """The model that `from_pretrained` gives, its weights on "meta": names, shapes, settings, and no memory."""
    hub_kwargs = {name: value for name, value in kwargs.items() if name != "prompt_layout"}
    config = VideoBlip2Config.from_pretrained(source, **hub_kwargs)
    with torch.device("meta"):
        model = VideoBlip2ForConditionalGeneration(config)
    # All that this method of transformers asks for.
    defaults = {"cache_dir": None, "force_download": False, "proxies": None, "local_files_only": False}
    defaults |= {"token": None, "revision": None, "subfolder": "", "trust_remote_code": False}
    model.adjust_generation_fn(None, False, None, source, **{**defaults, **kwargs})
    return model


def _write_configs(model, processor, folder: Path) -> None:
    config = model.config
    config.architectures = [type(model).__name__]
    for part in (config.vision_config, config.qformer_config, config.text_config):
        part.dtype = config.dtype
    config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    processor.save_pretrained(folder)


def _say_where_code_is(folder: Path, with_code: bool) -> None:
    def edit_processor(content):
        _set_code(content, with_code, PROCESSOR_CLASSES)
        _set_code(content["video_processor"], with_code, VIDEO_PROCESSOR_CLASSES)

    _edit(folder / "config.json", lambda content: _set_code(content, with_code, MODEL_CLASSES, custom_pipelines()))
    _edit(folder / "processor_config.json", edit_processor)
    _edit(folder / "tokenizer_config.json", lambda content: _set_code(content, with_code, PROCESSOR_CLASSES))


def _set_code(content: dict, with_code: bool, classes: dict[str, type], pipelines: dict | None = None) -> None:
    """What a configuration says of code beside it: that which is there now, not that of the source."""
    for name in ("auto_map", "custom_pipelines"):
        content.pop(name, None)
    if with_code:
        content["auto_map"] = auto_map_of(classes)
        if pipelines:
            content["custom_pipelines"] = pipelines


def _edit(path: Path, edit: Callable[[dict], None]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(content)
    path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _replace(target: Path, folder: Path, files: list[str]) -> None:
    """Puts files into `target`; the weights of a checkpoint that was there go, since they might be loaded instead."""
    target.mkdir(exist_ok=True)
    replaced = {path for pattern in WEIGHT_PATTERNS for path in target.glob(pattern)}
    for name in files:
        os.replace(folder / name, target / name)
    # Last, so that some weights are there whenever this is stopped.
    for path in replaced - {target / name for name in files}:
        path.unlink()


__all__ = ["ExportedCheckpoint", "export_checkpoint", "is_legacy_checkpoint"]

"""Checkpoints as commands load them."""

import typer


def load_processor(name: str):
    """
    A processor.

    Args:
        name (`str`): folder, model id, or name of a checkpoint in the package.
    """
    from transformers import AutoProcessor

    from ..embedded_checkpoints import find_checkpoint

    return AutoProcessor.from_pretrained(find_checkpoint(name))


def load_model(name: str, *, device: str | None = None, dtype: str = "auto"):
    """
    A model, on a GPU if there is one. What it says about itself is shown.

    Args:
        name (`str`): folder, model id, or name of a checkpoint in the package.
        device (`str`, *optional*): "cpu", "cuda:1", ...
        dtype (`str`, *optional*, defaults to "auto"): "float32", "bfloat16", "float16", or what the checkpoint says.
    """
    import torch
    from transformers import AutoModelForImageTextToText

    from ..embedded_checkpoints import find_checkpoint
    from ..notices import notice_of

    if dtype != "auto" and not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise ValueError(f"--dtype must be float32, bfloat16, float16 or auto, but is {dtype!r}")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = AutoModelForImageTextToText.from_pretrained(find_checkpoint(name), dtype=dtype).to(device)
    if notice := notice_of(model.config):
        typer.secho(notice, fg="yellow", err=True)
    return model


def given(**settings) -> dict:
    """Those settings that the user gave."""
    return {name: value for name, value in settings.items() if value is not None}

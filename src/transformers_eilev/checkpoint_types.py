"""Whether a checkpoint is one that the classes of this package are for."""

from transformers import PreTrainedConfig


# The published checkpoints say the latter, as do BLIP-2's own.
MODEL_TYPES = ("video_blip_2", "blip-2")


def check_architecture(name_or_path: str, *, hint: str = "", **hub_kwargs) -> None:
    """
    Refuses checkpoints of other architectures, before their weights are read.

    Args:
        name_or_path (`str`): model id or folder.
        hint (`str`, *optional*): what the user may do, to end the error with.
        hub_kwargs: such as `revision`.

    Raises:
        ValueError: if it is one, with what it says it is.
        OSError: if there is no such checkpoint.
    """
    config, _ = PreTrainedConfig.get_config_dict(name_or_path, **hub_kwargs)
    if config.get("model_type") not in MODEL_TYPES:
        raise ValueError(
            f"{name_or_path} is a checkpoint of type {config.get('model_type')!r} (architectures "
            f"{config.get('architectures')}), but must be of type {' or '.join(map(repr, MODEL_TYPES))}{hint}"
        )


__all__ = ["MODEL_TYPES", "check_architecture"]

"""What a checkpoint says about itself to whoever narrates with it."""


def notice_of(config) -> str | None:
    """
    The notice that a checkpoint's `config.json` carries as `notice`, to be shown before anything that it narrates.

    Any checkpoint may carry one: `model.config.notice = "..."` before `save_pretrained`.

    Args:
        config ([`~transformers.PreTrainedConfig`]): the model's.

    Returns:
        `str`, *optional*: in one line and without what could steer a terminal; `None` if there is none.
    """
    notice = getattr(config, "notice", None)
    if not isinstance(notice, str):
        return None
    words = "".join(letter if letter.isprintable() else " " for letter in notice).split()
    return " ".join(words) or None

"""Checkpoints that come with the package, so small that they lie in it; trained on rendered video."""

from pathlib import Path


DEFAULT_NAME = "eilev-synthetic-opt"


def embedded_checkpoint(name: str = DEFAULT_NAME) -> str:
    """
    The folder of a checkpoint that comes with the package, for `from_pretrained` and `pipeline`.

    They see and name the actions of the synthetic set (`transformers-eilev data synthetic`), and learn new words for
    them from narrated clips in the prompt. What they say of real footage means nothing. Each folder's README.md has
    the rest.

    Args:
        name (`str`, defaults to "eilev-synthetic-opt"): of those in `embedded_checkpoint_names()`.

    Raises:
        ValueError: if there is none of this name.

    Example:

    ```python
    >>> from transformers import pipeline
    >>> from transformers_eilev import embedded_checkpoint

    >>> narrate = pipeline("video-narration", model=embedded_checkpoint())
    ```
    """
    names = embedded_checkpoint_names()
    if name not in names:
        raise ValueError(f"No checkpoint {name!r} comes with the package; there are {names}")
    return str(_root() / name)


def embedded_checkpoint_names() -> list[str]:
    """The names of the checkpoints that come with the package."""
    return sorted(path.parent.name for path in _root().glob("*/config.json"))


def find_checkpoint(name_or_path: str) -> str:
    """
    What `from_pretrained` shall load when a user names a model in a command.

    Args:
        name_or_path (`str`): a folder, a model id on the Hub, or the name of a checkpoint that comes with the package.

    Returns:
        `str`: the folder in the package for a name of one there, unless a folder of that name lies in the working
        directory; else `name_or_path` as it is.
    """
    if name_or_path in embedded_checkpoint_names() and not Path(name_or_path).is_dir():
        return embedded_checkpoint(name_or_path)
    return name_or_path


def _root() -> Path:
    return Path(__file__).parent / "embedded"


__all__ = ["embedded_checkpoint", "embedded_checkpoint_names", "find_checkpoint"]

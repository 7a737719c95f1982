"""Clips and texts from the words of a command line."""

from pathlib import Path

from ..processing_video_blip_2 import DEFAULT_PROMPT, VIDEO_TOKEN


# fmt: off
VIDEO_SUFFIXES = {
    ".264", ".265", ".3g2", ".3gp", ".asf", ".avi", ".dv", ".f4v", ".flv", ".gif", ".h264", ".h265", ".hevc", ".insv",
    ".ivf", ".lrv", ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".nut",
    ".ogv", ".qt", ".ts", ".vob", ".webm", ".wmv", ".y4m",
}
# fmt: on


def arrange_videos_and_texts(arguments: list[str]) -> tuple[list[str], list[str]]:
    """
    Puts clips and texts in the order of a prompt.

    Args:
        arguments (`list[str]`): in any order, paths (or http(s) addresses) of clips, and texts. A text belongs to the
            clips right before it; texts that follow each other are joined by a space.

    Returns:
        The blocks of the prompt, each with its `<video>`s and its text, and the clips. If the last clip has no text
        after it, it gets the question "What is the camera wearer doing?".

    Raises:
        FileNotFoundError: for an argument that looks like a video file and isn't there.
        IsADirectoryError: for one that is the path of a folder.
        ValueError: if there is no clip at all.
    """
    blocks, clips = [""], []
    for argument in filter(None, (argument.strip() for argument in arguments)):
        if _is_clip(argument):
            if blocks[-1].removeprefix(VIDEO_TOKEN * blocks[-1].count(VIDEO_TOKEN)):
                blocks.append("")
            blocks[-1] += VIDEO_TOKEN
            clips.append(argument)
        elif VIDEO_TOKEN in argument:
            raise ValueError(f"{VIDEO_TOKEN!r} stands where a clip is given, not in a text: {argument!r}")
        else:
            separator = " " if blocks[-1] and not blocks[-1].endswith(VIDEO_TOKEN) else ""
            blocks[-1] += separator + argument
    if not clips:
        raise ValueError(f"No clip among {arguments}: none of them is a file")
    if blocks[-1].endswith(VIDEO_TOKEN):
        blocks[-1] += DEFAULT_PROMPT
    return blocks, clips


def _is_clip(argument: str) -> bool:
    path = Path(argument)
    try:
        if path.is_dir() and (len(path.parts) > 1 or path.suffix.lower() in VIDEO_SUFFIXES):
            raise IsADirectoryError(f"{argument!r} is a folder, not a video")
        if path.is_file() or argument.startswith(("http://", "https://")):
            return True
    except OSError as error:
        if isinstance(error, IsADirectoryError):
            raise
        return False  # too long for a file's name
    if path.suffix.lower() in VIDEO_SUFFIXES:
        raise FileNotFoundError(f"There is no video {argument!r}")
    return False

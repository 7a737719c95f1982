"""Video files out of frames."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np


# One thread each: what x264 and libvpx write must not depend on how many cores there are.
_ENCODERS = {
    "h264": (
        "libx264",
        {
            "preset": "veryfast",
            "crf": "22",
            "threads": "1",
            "g": "250",
            "x264-params": "threads=1:lookahead-threads=1",
        },
    ),
    "vp9": (
        "libvpx-vp9",
        {"crf": "34", "b": "0", "deadline": "realtime", "cpu-used": "7", "threads": "1", "row-mt": "0", "g": "128"},
    ),
}


def to_yuv420(pixels: np.ndarray) -> np.ndarray:
    """RGB to BT.601 in whole numbers, which are the same on every machine (those of swscale are not).

    Args:
        pixels: uint8, of shape (height, width, 3), both even.

    Returns:
        `np.ndarray`: uint8, of shape (1.5 * height, width), the planes Y, U and V one after the other.
    """
    height, width, _ = pixels.shape
    planes = np.empty(height * width * 3 // 2, np.uint8)
    luma, blue, red = np.split(planes, (height * width, height * width * 5 // 4))
    r, g, b = np.ascontiguousarray(pixels.transpose(2, 0, 1)).astype(np.uint16)
    np.copyto(luma, (((66 * r + 129 * g + 25 * b + 128) >> 8) + 16).ravel(), casting="unsafe")
    # Sums over blocks of two by two pixels.
    r, g, b = ((c[::2, ::2] + c[1::2, ::2] + c[::2, 1::2] + c[1::2, 1::2]).astype(np.int32).ravel() for c in (r, g, b))
    np.copyto(blue, ((112 * b - 38 * r - 74 * g + 512) >> 10) + 128, casting="unsafe")
    np.copyto(red, ((112 * r - 94 * g - 18 * b + 512) >> 10) + 128, casting="unsafe")
    return planes.reshape(height * 3 // 2, width)


def encode_video(path: Path, frames: Iterable[np.ndarray], *, codec: str, fps: int, image_size: int) -> None:
    """Writes an MP4.

    Args:
        path: of the file.
        frames: uint8, each of shape (image_size, image_size, 3), RGB.
        codec: "h264" or "vp9".
    """
    import av
    import torch

    name, options = _ENCODERS[codec]
    if codec == "h264" and torch.backends.cpu.get_cpu_capability() == "AVX512":
        # What x264 writes with AVX-512 is another thing each time.
        options = {**options, "x264-params": options["x264-params"] + ":asm=AVX2"}
    container_options = {"fflags": "+bitexact", "movflags": "+faststart"}
    with av.open(str(path), "w", format="mp4", options=container_options) as container:
        stream = container.add_stream(name, rate=Fraction(fps), options=options)
        stream.width = stream.height = image_size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = Fraction(1, fps)
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(to_yuv420(pixels), format="yuv420p")
            frame.pts = number
            frame.time_base = Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))

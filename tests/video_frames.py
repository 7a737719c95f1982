"""What the tests of video reading share. The test videos carry the number of each frame in 16 blocks of 8x8 pixels
along the top edge, white for a set bit, lowest bit first; so pixels prove which frames were read."""

import functools
import json
import os
import subprocess
import sys
import textwrap
from fractions import Fraction
from pathlib import Path

import av
import torch


VIDEOS = Path(__file__).parent / "fixtures" / "videos"
GOLDEN = json.loads((VIDEOS / "golden.json").read_text())


def frame_number(image):
    """The counter in the pixels of an image of shape (3, height, width)."""
    blocks = image[:, 2:6, :128].reshape(3, 4, 16, 8)[..., 2:6].float().mean((0, 1, 3))
    return sum(bit << k for k, bit in enumerate((blocks > 127).tolist()))


def frame_numbers(clip):
    return [frame_number(image) for image in clip.frames]


def to_image(frame):
    return torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)


@functools.lru_cache(maxsize=2)
def decode_everything(name):
    """[(seconds from the first frame, frame)] in order of display; the plain way, one frame after the other."""
    frames = []
    with av.open(str(VIDEOS / name)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for frame in container.decode(stream):
            time = Fraction(len(frames), 25) if frame.pts is None else frame.pts * stream.time_base
            frames.append((time, frame))
    frames.sort(key=lambda item: item[0])
    return [(time - frames[0][0], frame) for time, frame in frames]


def expected_frames(name, window):
    frames = decode_everything(name)
    end = float("inf") if window.end is None else window.end
    inside = [frame for frame in frames if window.start <= frame[0] < end]
    if window.fps is not None:
        shown_for = frames[-1][0] - frames[-2][0] if len(frames) > 1 else Fraction(1, 30)
        chosen, now = [], Fraction(window.start)
        while now < end and now < frames[-1][0] + shown_for:
            chosen.append([frame for frame in frames if frame[0] <= now][-1])
            now += 1 / Fraction(window.fps)
        return chosen
    if window.num_frames is None or not inside:
        return inside
    indices = torch.linspace(0, len(inside) - 1, window.num_frames).long()
    return [inside[i] for i in indices]


def run_python(code, *args):
    """Runs `code` in a process of its own, so that a crash of the interpreter is a failure and not the end."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(code), *map(str, args)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, f"exit {result.returncode}\n{result.stdout[-500:]}\n{result.stderr[-2000:]}"
    return result.stdout

"""
The pixel operations of RandAugment over the frames of a clip.

All are on uint8 and give, to the bit where nothing else is said, what torchvision's functions for tensors give in the
way that pytorchvideo 0.1.5 calls them. Only what is asked for is computed: the result of several operations within a
box is that of the operations on whole frames, cut afterwards.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F


class Box(NamedTuple):
    """A part of a frame, in pixels: its upper left corner and its size."""

    top: int
    left: int
    height: int
    width: int


class PixelOperation(NamedTuple):
    """One operation, by its name in `OPERATIONS`, and how strong it is, in the unit of the operation's function."""

    name: str
    value: float | None = None


def apply_operations(frames: torch.Tensor, operations: Sequence[PixelOperation], box: Box) -> torch.Tensor:
    """Applies operations, one after the other, to the whole frames, and cuts the box out of the result.

    Args:
        frames (`torch.Tensor`): uint8 of shape (num_frames, 3, height, width), contiguous, on a CPU.
        operations (`Sequence[PixelOperation]`): in their order; may be empty.
        box (`Box`): within the frames.

    Returns:
        `torch.Tensor`: uint8 of shape (num_frames, 3, box.height, box.width), of its own memory.
    """
    size = frames.shape[-2:]
    boxes = [box]
    for operation in reversed(operations):
        boxes.insert(0, _read_by(operation.name, boxes[0], *size))
    frames = _cut(frames, boxes[0])
    for operation, read, written in zip(operations, boxes, boxes[1:]):
        within = Box(written.top - read.top, written.left - read.left, written.height, written.width)
        frames = OPERATIONS[operation.name](frames, operation.value, within)
    return frames


def _read_by(name: str, box: Box, height: int, width: int) -> Box:
    """What an operation has to see of its input for its result in a box."""
    if name in _OF_WHOLE_FRAMES:
        return Box(0, 0, height, width)
    if name == "sharpness":
        # One pixel around, and one more: of a part as small as 2 pixels it could not be said whether the frame is.
        top, left = max(box.top - 2, 0), max(box.left - 2, 0)
        bottom, right = min(box.top + box.height + 2, height), min(box.left + box.width + 2, width)
        return Box(top, left, bottom - top, right - left)
    return box


def _view(frames, box: Box):
    return frames[..., box.top : box.top + box.height, box.left : box.left + box.width]


def _cut(frames: torch.Tensor, box: Box) -> torch.Tensor:
    return _view(frames, box).clone(memory_format=torch.contiguous_format)


# ------------------------------------------------------------------------------------------------ by tables of values


def brightness(frames: torch.Tensor, factor: float, box: Box) -> torch.Tensor:
    """Every value times `factor`: 0 is black, 1 changes nothing."""
    return _look_up(frames, _values().mul_(factor).clamp_(0, 255), box)


def contrast(frames: torch.Tensor, factor: float, box: Box) -> torch.Tensor:
    """Away from (`factor` > 1) or towards (< 1) the mean grey of a frame, each frame for itself."""
    scratch = np.empty((2, *frames.shape[-2:]), np.float32)
    # Summed exactly, so that no order of summing decides.
    means = torch.tensor([_grey(frame, *scratch).mean(dtype=np.float64) for frame in frames.numpy()]).float()
    tables = _values() * factor + (1 - factor) * means.view(-1, 1, 1)
    return _look_up(frames, tables.clamp_(0, 255), box)


def autocontrast(frames: torch.Tensor, value: None, box: Box) -> torch.Tensor:
    """Stretches a channel from its darkest value to its lightest over 0 to 255, each channel of each frame for
    itself; one of a single value is left as it is."""
    low, high = (extreme(frames, (-2, -1)).float().unsqueeze(-1) for extreme in (torch.amin, torch.amax))
    flat = low == high
    scale = torch.where(flat, 1.0, 255 / (high - low))
    return _look_up(frames, ((_values() - low.masked_fill(flat, 0)) * scale).clamp_(0, 255), box)


def equalize(frames: torch.Tensor, value: None, box: Box) -> torch.Tensor:
    """Spreads a channel so that its values are about equally frequent, each channel of each frame for itself, by PIL's
    rule: the pixels but those of the lightest value are divided into 255 steps."""
    counts = torch.stack([torch.bincount(plane.flatten(), minlength=256) for plane in frames.flatten(0, 1)])
    lightest = counts.gather(1, _values().mul(counts > 0).argmax(1, keepdim=True))
    step = (counts.sum(1, keepdim=True) - lightest) // 255
    below = counts.cumsum(1) - counts
    tables = ((below + step // 2) // step.clamp(min=1)).clamp_(max=255)
    tables = torch.where(step == 0, torch.arange(256), tables)  # hardly more than one value: as it is
    return _look_up(frames, tables.view(-1, 3, 256), box)


def solarize(frames: torch.Tensor, threshold: float, box: Box) -> torch.Tensor:
    """Inverts the values of at least `threshold`, which is from 0 to 255."""
    values = _values()
    return _look_up(frames, torch.where(values >= threshold, 255 - values, values), box)


def invert(frames: torch.Tensor, value: None, box: Box) -> torch.Tensor:
    """Light for dark."""
    return (255 - _view(frames, box)).contiguous()


def posterize(frames: torch.Tensor, bits: float, box: Box) -> torch.Tensor:
    """Keeps the highest `bits`, from 0 to 8, of a value."""
    return (_view(frames, box) & (256 - 2 ** (8 - int(bits)))).contiguous()


def _values() -> torch.Tensor:
    """What a pixel can be, as float32: a table to begin with."""
    return torch.arange(256, dtype=torch.float32)


def _look_up(frames: torch.Tensor, tables: torch.Tensor, box: Box) -> torch.Tensor:
    """New values for old, those after the point dropped; tables of shape (..., 256), broadcast to (frames, 3, 256)."""
    window = _view(frames, box).numpy()
    tables = tables.to(torch.uint8).expand(*window.shape[:2], 256).numpy()
    result = np.empty(window.shape, np.uint8)
    for index in np.ndindex(*window.shape[:2]):
        # The fastest table over bytes that there is without a dependency: NumPy's and PyTorch's want wide indices.
        looked_up = window[index].tobytes().translate(tables[index].tobytes())
        result[index] = np.frombuffer(looked_up, np.uint8).reshape(window.shape[2:])
    return torch.from_numpy(result)


def _grey(frame: np.ndarray, grey: np.ndarray, scratch: np.ndarray) -> np.ndarray:
    """A frame's luminance, rounded down, into `grey`; both are float32, of shape (height, width)."""
    np.multiply(frame[0], 0.2989, out=grey, dtype=np.float32)
    for channel, weight in zip(frame[1:], (0.587, 0.114)):
        grey += np.multiply(channel, weight, out=scratch, dtype=np.float32)
    return np.trunc(grey, out=grey)


# -------------------------------------------------------------------------------------------------- by blending frames


def saturation(frames: torch.Tensor, factor: float, box: Box) -> torch.Tensor:
    """Away from (`factor` > 1) or towards (< 1) a pixel's grey."""
    result = _cut(frames, box)
    grey, scratch = np.empty((2, box.height, box.width), np.float32)
    for frame in result.numpy():
        _grey(frame, grey, scratch)
        grey *= 1 - factor
        for channel in frame:
            _blend(channel, factor, grey, scratch)
    return result


def sharpness(frames: torch.Tensor, factor: float, box: Box) -> torch.Tensor:
    """Away from (`factor` > 1) or towards (< 1) the frame blurred by 1 1 1, 1 5 1, 1 1 1 (of 13). The outermost pixels
    of a frame are not blurred, and a frame of a height or width up to 2 is left as it is."""
    height, width = frames.shape[-2:]
    if min(height, width) <= 2:
        return _cut(frames, box)
    result = frames.clone()
    blurred, scratch = np.empty((2, height, width), np.float32)
    whole, rows = np.empty((2, height, width), np.int16)
    for plane in result.numpy().reshape(-1, height, width):
        _blur(plane, blurred, whole, rows)
        blurred *= 1 - factor
        _blend(plane, factor, blurred, scratch)
    return _cut(result, box)


def _blur(plane: np.ndarray, blurred: np.ndarray, whole: np.ndarray, rows: np.ndarray):
    """Into `blurred`, rounded: thirteenths are never halves, so that there is one way to."""
    whole[...] = blurred[...] = plane
    rows, centre = rows[1:-1], whole[1:-1, 1:-1]
    np.add(whole[:-2], whole[1:-1], out=rows)
    rows += whole[2:]
    centre *= 4
    for begin, end in ((0, -2), (1, -1), (2, None)):
        centre += rows[:, begin:end]
    inner = blurred[1:-1, 1:-1]
    np.rint(np.divide(centre, 13, out=inner, dtype=np.float32), out=inner)


def _blend(plane: np.ndarray, factor: float, rest: np.ndarray, scratch: np.ndarray):
    """`factor` times the plane and the rest, into the plane, digits after the point dropped. So 1.45 and -0.45 times
    the same value may come out one less, as in the original."""
    np.multiply(plane, factor, out=scratch, dtype=np.float32)
    scratch += rest
    np.copyto(plane, np.clip(scratch, 0, 255, out=scratch), casting="unsafe")


# ---------------------------------------------------------------------------------------------------- by moving pixels


# Bilinear, and within 1 of the original, whose coordinates are float32. What comes from outside of the frame is black.
# Where a pixel lies partly outside, so that a share m of it is from the frame, it is m * m times that value, and
# 0.5 * (1 - m) more: torchvision weighs once when it samples and once when it fills, and pytorchvideo's fill of 0.5,
# grey for floats, is on the scale of 255.
_FILL = 0.5


def rotate(frames: torch.Tensor, degrees: float, box: Box) -> torch.Tensor:
    """Rotates frames counter-clockwise about their centre; they keep their size."""
    height, width = frames.shape[-2:]
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    y = np.arange(box.top, box.top + box.height)[:, None] + 0.5 - height / 2
    x = np.arange(box.left, box.left + box.width) + 0.5 - width / 2
    # Where each pixel of the result is from, in pixels from the centre.
    x, y = torch.from_numpy(cos * x - sin * y), torch.from_numpy(sin * x + cos * y)
    grid = torch.stack([x / (width / 2), y / (height / 2)], -1).float().unsqueeze(0)
    inside = (_inside(x + width / 2 - 0.5, width) * _inside(y + height / 2 - 0.5, height)).float()
    fill = _FILL * (1 - inside)
    result = frames.new_empty(*frames.shape[:2], box.height, box.width)
    for some, target in zip(frames.split(2), result.split(2)):
        # As channels of one image, so that the weights are made once; more than 6 are slower.
        planes = some.float().view(1, -1, height, width)
        sampled = F.grid_sample(planes, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        sampled = sampled.mul_(inside).add_(fill).round_().view_as(target)
        np.copyto(target.numpy(), sampled.numpy(), casting="unsafe")
    return result


def shear_x(frames: torch.Tensor, factor: float, box: Box) -> torch.Tensor:
    """Moves rows to the left by `factor` pixels a row, the upper edge by none: pytorchvideo means to keep the centre,
    but adds an offset for that which torchvision's coordinates, from the centre, don't need."""
    return _move_rows(frames, factor * (np.arange(box.top, box.top + box.height) + 0.5), box)


def shear_y(frames: torch.Tensor, factor: float, box: Box) -> torch.Tensor:
    """Moves columns up by `factor` pixels a column, the left edge by none; see `shear_x`."""
    return _transposed(shear_x, frames, factor, box)


def translate_x(frames: torch.Tensor, share: float, box: Box) -> torch.Tensor:
    """Moves frames to the left by a share of their width."""
    return _move_rows(frames, np.full(box.height, share * frames.shape[-1]), box)


def translate_y(frames: torch.Tensor, share: float, box: Box) -> torch.Tensor:
    """Moves frames up by a share of their height."""
    return _transposed(translate_x, frames, share, box)


def _transposed(function, frames: torch.Tensor, value: float, box: Box) -> torch.Tensor:
    """To go along short pieces of columns takes longer than to exchange rows and columns, twice."""
    frames = frames.transpose(-1, -2).contiguous()
    return function(frames, value, Box(box.left, box.top, box.width, box.height)).transpose(-1, -2).contiguous()


def _move_rows(frames: torch.Tensor, offsets: np.ndarray, box: Box) -> torch.Tensor:
    """Reads every row of the box so many pixels further to the right."""
    width = frames.shape[-1]
    pixels = frames[:, :, box.top : box.top + box.height].numpy()
    whole = np.floor(offsets).astype(int)
    # Each pixel is between two, of which the second is the next one's first: one more than there are columns.
    pairs = np.zeros((*frames.shape[:2], box.height, box.width + 1), np.uint8)
    bounds = [0, *(np.flatnonzero(np.diff(whole)) + 1), len(whole)]
    for begin, end in zip(bounds, bounds[1:]):
        start = box.left + int(whole[begin])
        low, high = max(start, 0), min(start + box.width + 1, width)
        if low < high:
            pairs[..., begin:end, low - start : high - start] = pixels[..., begin:end, low:high]

    columns = np.arange(box.left, box.left + box.width)
    inside = _inside(torch.from_numpy(columns + offsets[:, None]), width).numpy()
    share = (offsets - whole)[:, None]
    weight, next_weight, fill = (
        values.astype(np.float32) for values in ((1 - share) * inside, share * inside, _FILL * (1 - inside))
    )
    result = frames.new_empty(*frames.shape[:2], box.height, box.width)
    value, scratch = np.empty((2, box.height, box.width), np.float32)
    for index in np.ndindex(*frames.shape[:2]):
        np.multiply(pairs[index][:, :-1], weight, out=value, dtype=np.float32)
        value += np.multiply(pairs[index][:, 1:], next_weight, out=scratch, dtype=np.float32)
        value += fill
        np.copyto(result[index].numpy(), np.rint(value, out=value), casting="unsafe")
    return result


def _inside(coordinates: torch.Tensor, length: int) -> torch.Tensor:
    """The share of a pixel at such coordinates that is of pixels 0 to length - 1, and not beyond."""
    return torch.minimum(coordinates + 1, length - coordinates).clamp_(0, 1)


OPERATIONS = {
    function.__name__: function
    for function in (
        brightness,
        contrast,
        saturation,
        sharpness,
        autocontrast,
        equalize,
        invert,
        rotate,
        posterize,
        solarize,
        shear_x,
        shear_y,
        translate_x,
        translate_y,
    )
}

_OF_WHOLE_FRAMES = {
    "contrast",
    "autocontrast",
    "equalize",
    "rotate",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
}

__all__ = ["OPERATIONS", "Box", "PixelOperation", "apply_operations"]

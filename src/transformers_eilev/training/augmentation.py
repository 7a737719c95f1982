"""The augmentation of clips that EILEV was trained with: RandAugment, a random resized crop and a horizontal flip."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch

from ..frame_resizing import resize_frames
from ..video_reading import frames_to_tensor
from .clip_transforms import OPERATIONS, Box, PixelOperation, apply_operations


MAX_LEVEL = 10
LEVEL_STD = 0.5
CROP_TRIES = 10

# Of pytorchvideo 0.1.5: the value of an operation at level 0, and how much more, or less, it is at level 10.
_SIGNED_RANGES = {
    "brightness": (1.0, 0.9),
    "contrast": (1.0, 0.9),
    "saturation": (1.0, 0.9),
    "sharpness": (1.0, 0.9),
    "rotate": (0.0, 30.0),  # degrees
    "shear_x": (0.0, 0.3),
    "shear_y": (0.0, 0.3),
    "translate_x": (0.0, 0.45),  # of the width
    "translate_y": (0.0, 0.45),  # of the height
}
_NAMES = tuple(OPERATIONS)


@dataclass(frozen=True)
class AugmentationPlan:
    """
    What is done to all frames of a clip, in this order.

    Args:
        operations (`tuple[PixelOperation, ...]`): on the whole frames; only those that are carried out. Their values
            are, by name: `brightness`, `contrast`, `saturation`, `sharpness`: a factor; `rotate`: degrees,
            counter-clockwise; `shear_x`, `shear_y`: pixels a row or column; `translate_x`, `translate_y`: a share of
            the width or height, to the left or up; `posterize`: bits that are kept; `solarize`: the threshold, of 255;
            `autocontrast`, `equalize`, `invert`: `None`.
        crop (`Box`): top, left, height and width in pixels.
        flip (`bool`): whether left and right are exchanged.
    """

    operations: tuple[PixelOperation, ...]
    crop: Box
    flip: bool

    def __str__(self):
        steps = [name if value is None else f"{name}({value:.4g})" for name, value in self.operations]
        steps.append("crop({2}x{3} at {0}, {1})".format(*self.crop))
        return ", ".join(steps + ["flip"] * self.flip)


class ClipAugmentation:
    r"""
    Augments clips as EILEV's training did: equal in distribution to what its transforms gave, `RandAugment` and
    `RandomResizedCrop` of pytorchvideo 0.1.5 and `RandomHorizontalFlip` of torchvision, without either of them.

    1. RandAugment (arXiv 1909.13719): `num_layers` different operations, of 14 that are equally likely, in random
       order; each is carried out with `probability`. Its level is drawn around `magnitude` with a standard deviation
       of 0.5, and kept from 0 to 10. At level 10 it is: a factor of 1.9 or 0.1 for brightness, contrast, saturation
       and sharpness; 30 degrees; a shear of 0.3; a translation by 0.45 of the size, all of either sign; 0 bits kept by
       posterizing (4 at level 0, whole numbers, rounded up); a threshold of 0 for solarizing (255 at level 0). All
       between in proportion. Autocontrast, equalize and invert know no level.
    2. The crop's share of the area is uniform in `scale`, the logarithm of its width through its height uniform in
       that of `ratio`, its place uniform. What doesn't fit into the frame is drawn again; after 10 times it is the
       whole frame, its longer side cut at the middle as far as `ratio` demands.
    3. The flip, with `flip_probability`.

    All frames of a clip are treated alike, by one [`AugmentationPlan`]; autocontrast, equalize and contrast measure
    each frame for itself, as the original does. Some of its oddities are part of the distribution, and kept: what
    rotations, shears and translations move in is black, though grey was meant, and its border is darkened; shears
    keep the upper or left edge in place, though the centre was meant. See `clip_transforms.py`.

    Other than the original, this resizes the crop as inference resizes frames: on uint8, with an antialias, by PIL's
    bicubic kernel. The original's training resized floats, after normalization, without an antialias and with a kernel
    whose overshoots were not cut at black and white.

    Randomness comes from the generator of the caller alone, in this order: which operations; for each layer whether it
    is carried out; for each its level; for each its sign; the flip; 10 pairs of a share and a ratio for the crop; its
    top; its left. All but the last two are drawn whether they are needed or not, so that operations and flip depend on
    the generator alone, and not on the size of the frames.

    Args:
        size (`tuple[int, int]`): height and width of the result.
        magnitude (`float`, *optional*, defaults to 5): the mean level of operations, from 0 to 10.
        num_layers (`int`, *optional*, defaults to 2): how many operations, from 0 to 14.
        probability (`float`, *optional*, defaults to 0.5): of each to be carried out.
        scale (`tuple[float, float]`, *optional*, defaults to (0.5, 1.0)): least and greatest share of the area.
        ratio (`tuple[float, float]`, *optional*, defaults to (3/4, 4/3)): least and greatest width through height.
        flip_probability (`float`, *optional*, defaults to 0.5): of a flip.

    Raises:
        ValueError: a value that can't be, by name.

    ```python
    augment = ClipAugmentation((224, 224))
    frames = augment(frames, np.random.default_rng([seed, epoch, index]))
    ```
    """

    def __init__(
        self,
        size: tuple[int, int],
        *,
        magnitude: float = 5,
        num_layers: int = 2,
        probability: float = 0.5,
        scale: tuple[float, float] = (0.5, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip_probability: float = 0.5,
    ):
        self.size = _checked_size(size)
        self.magnitude = _checked_number("magnitude", magnitude, 0, MAX_LEVEL)
        if not _is_whole(num_layers) or not 0 <= num_layers <= len(_NAMES):
            raise ValueError(f"`num_layers` must be a whole number from 0 to {len(_NAMES)}, but is {num_layers!r}")
        self.num_layers = int(num_layers)
        self.probability = _checked_number("probability", probability, 0, 1)
        self.scale = _checked_range("scale", scale, 1)
        self.ratio = _checked_range("ratio", ratio, math.inf)
        self.flip_probability = _checked_number("flip_probability", flip_probability, 0, 1)

    def __repr__(self):
        return f"ClipAugmentation({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

    def __call__(self, frames: Any, rng: np.random.Generator) -> torch.Tensor:
        """
        Augments a clip.

        Args:
            frames: of one clip, at least one, in any form that [`frames_to_tensor`] takes: a uint8 tensor of shape
                `(num_frames, 3, height, width)`, an array, a list of PIL images. They are left as they are.
            rng (`np.random.Generator`): to draw from, made of (seed, epoch, index, clip), say.

        Returns:
            `torch.Tensor`: uint8 of shape `(num_frames, 3, *size)`.
        """
        frames = frames_to_tensor(frames)
        return self.apply(frames, self.plan(*frames.shape[-2:], rng))

    def plan(self, height: int, width: int, rng: np.random.Generator) -> AugmentationPlan:
        """
        Draws what to do to a clip, without its pixels.

        Args:
            height (`int`): of its frames.
            width (`int`): of its frames.
            rng (`np.random.Generator`): to draw from.
        """
        if not isinstance(rng, np.random.Generator):
            raise TypeError(f"`rng` must be a `np.random.Generator`, but is {rng!r}")
        chosen = rng.choice(len(_NAMES), self.num_layers, replace=False)
        carried_out = rng.random(self.num_layers) < self.probability
        levels = np.clip(rng.normal(self.magnitude, LEVEL_STD, self.num_layers), 0, MAX_LEVEL)
        negative = rng.random(self.num_layers) < 0.5
        operations = [
            _operation(_NAMES[index], float(level), sign)
            for index, level, sign in zip(chosen[carried_out], levels[carried_out], negative[carried_out])
        ]
        flip = bool(rng.random() < self.flip_probability)
        return AugmentationPlan(tuple(operations), self._draw_crop(height, width, rng), flip)

    def _draw_crop(self, height: int, width: int, rng: np.random.Generator) -> Box:
        low, high = self.scale
        narrow, wide = self.ratio
        for share, slope in rng.random((CROP_TRIES, 2)).tolist():
            area = height * width * (low + share * (high - low))
            ratio = math.exp(math.log(narrow) + slope * (math.log(wide) - math.log(narrow)))
            crop_width, crop_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < crop_width <= width and 0 < crop_height <= height:
                top, left = rng.integers(height - crop_height + 1), rng.integers(width - crop_width + 1)
                return Box(int(top), int(left), crop_height, crop_width)
        # What fits at the middle, as near to a ratio that is allowed as pixels go.
        crop_height, crop_width = height, width
        if width / height < narrow:
            crop_height = max(round(width / narrow), 1)
        elif width / height > wide:
            crop_width = max(round(height * wide), 1)
        return Box((height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width)

    def apply(self, frames: Any, plan: AugmentationPlan) -> torch.Tensor:
        """
        Carries a plan out; nothing is left to chance.

        Args:
            frames: of one clip, see `__call__`.
            plan ([`AugmentationPlan`]): of [`~ClipAugmentation.plan`], or one's own.

        Returns:
            `torch.Tensor`: uint8 of shape `(num_frames, 3, *size)`.
        """
        frames = frames_to_tensor(frames)
        _check_plan(plan, *frames.shape[-2:])
        resized = resize_frames(apply_operations(frames, plan.operations, plan.crop), self.size)
        return resized.flip(-1) if plan.flip else resized.contiguous()


def _operation(name: str, level: float, negative: bool) -> PixelOperation:
    share = level / MAX_LEVEL
    if name in _SIGNED_RANGES:
        base, most = _SIGNED_RANGES[name]
        return PixelOperation(name, base + (-most if negative else most) * share)
    if name == "posterize":
        return PixelOperation(name, 4 - int(4 * share))
    if name == "solarize":
        return PixelOperation(name, int((1 - share) * 255))
    return PixelOperation(name)


def _check_plan(plan: AugmentationPlan, height: int, width: int):
    top, left, crop_height, crop_width = plan.crop
    fits = 0 <= top <= height - crop_height and 0 <= left <= width - crop_width and min(crop_height, crop_width) > 0
    if not fits:
        raise ValueError(f"`plan.crop` is {plan.crop}, which is no part of frames of {height} times {width} pixels")
    for name, value in plan.operations:
        if name not in OPERATIONS:
            raise ValueError(f"`plan.operations` has {name!r}, but must be of {', '.join(OPERATIONS)}")
        if (value is None) != (name in ("autocontrast", "equalize", "invert")):
            raise ValueError(f"`plan.operations` has {name!r} with the value {value!r}")


def _is_whole(value) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_pair(value) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2


def _checked_size(size) -> tuple[int, int]:
    if not _is_pair(size) or not all(_is_whole(side) and side > 0 for side in size):
        raise ValueError(f"`size` must be a height and a width in pixels, but is {size!r}")
    return int(size[0]), int(size[1])


def _checked_number(name: str, value, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not low <= value <= high:
        raise ValueError(f"`{name}` must be a number from {low} to {high}, but is {value!r}")
    return float(value)


def _checked_range(name: str, value, most: float) -> tuple[float, float]:
    numbers = _is_pair(value) and all(isinstance(end, Real) and not isinstance(end, bool) for end in value)
    if not numbers or not 0 < value[0] <= value[1] <= most or math.isinf(value[1]):
        above = "" if math.isinf(most) else f" and at most {most}"
        raise ValueError(f"`{name}` must be two numbers in rising order, above 0{above}, but is {value!r}")
    return float(value[0]), float(value[1])


__all__ = ["AugmentationPlan", "ClipAugmentation"]

"""
CPU milliseconds to augment a clip of 8 frames of 448x448 pixels to 224, on one core, as `ClipAugmentation` draws it,
and with each operation alone. "resize" is the resizing of the whole clip and nothing else. "plain" is the plain way to
the same result: each operation on whole frames, frame by frame, through tensors of floats; then the crop and its
resizing.

    OMP_NUM_THREADS=1 python benchmarks/bench_augmentation.py
"""

import argparse
import json
import math
import time

import numpy as np
import torch
import torch.nn.functional as F

from transformers_eilev.frame_resizing import resize_frames
from transformers_eilev.training.augmentation import AugmentationPlan, ClipAugmentation
from transformers_eilev.training.clip_transforms import OPERATIONS, Box, PixelOperation


def make_clip(num_frames: int, size: int) -> torch.Tensor:
    """Smooth shapes with a little noise, as pictures are."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.integers(0, 256, (num_frames, 3, 14, 14), dtype=np.uint8))
    noise = torch.from_numpy(rng.integers(-6, 7, (num_frames, 3, size, size)))
    return (F.interpolate(coarse, size=(size, size), mode="bicubic") + noise).clamp(0, 255).to(torch.uint8)


# ------------------------------------------------------------------------------------------------------- the plain way


def grey(frame):
    return (0.2989 * frame[0] + 0.587 * frame[1] + 0.114 * frame[2]).floor()


def blend(frame, other, factor):
    return (factor * frame + (1 - factor) * other).clamp(0, 255).floor()


def blurred(frame):
    kernel = torch.ones(3, 1, 3, 3)
    kernel[..., 1, 1] = 5
    result = frame.clone()
    result[:, 1:-1, 1:-1] = F.conv2d(frame[None], kernel / 13, groups=3)[0].round()
    return result


def autocontrast(frame):
    low, high = frame.amin((1, 2), keepdim=True), frame.amax((1, 2), keepdim=True)
    return ((frame - low) * (255 / (high - low))).clamp(0, 255).floor()


def equalize(frame):
    planes = []
    for plane in frame.long():
        counts = torch.bincount(plane.flatten(), minlength=256)
        step = int(counts[: plane.max()].sum()) // 255
        planes.append((((counts.cumsum(0) - counts + step // 2) // step).clamp(max=255))[plane])
    return torch.stack(planes).float()


def move(frame, name, value):
    height, width = frame.shape[1:]
    cos, sin = math.cos(math.radians(value)), math.sin(math.radians(value))
    theta = {  # from the centre, in halves of the size
        "rotate": [[cos, -sin * height / width, 0], [sin * width / height, cos, 0]],
        "shear_x": [[1, value * height / width, value * height / width], [0, 1, 0]],
        "shear_y": [[1, 0, 0], [value * width / height, 1, value * width / height]],
        "translate_x": [[1, 0, 2 * value], [0, 1, 0]],
        "translate_y": [[1, 0, 0], [0, 1, 2 * value]],
    }[name]
    with_mask = torch.cat([frame, torch.ones(1, height, width)])[None]
    grid = F.affine_grid(torch.tensor([theta]), list(with_mask.shape), align_corners=False)
    sampled = F.grid_sample(with_mask, grid, align_corners=False)[0]
    return (sampled[:3] * sampled[3:] + (1 - sampled[3:]) * 0.5).round()


def plain_operation(frame, name, value):
    if name in ("brightness", "contrast", "saturation", "sharpness"):
        others = {"contrast": lambda: grey(frame).mean(), "saturation": lambda: grey(frame)}
        others |= {"brightness": lambda: torch.zeros_like(frame), "sharpness": lambda: blurred(frame)}
        return blend(frame, others[name](), value)
    if name == "posterize":
        return (frame / 2 ** (8 - value)).floor() * 2 ** (8 - value)
    if name == "solarize":
        return torch.where(frame >= value, 255 - frame, frame)
    if name == "invert":
        return 255 - frame
    return (
        {"autocontrast": autocontrast, "equalize": equalize}[name](frame)
        if value is None
        else move(frame, name, value)
    )


def apply_plainly(frames, plan, size):
    results = []
    for frame in frames:
        frame = frame.float()
        for name, value in plan.operations:
            frame = plain_operation(frame, name, value)
        results.append(frame.to(torch.uint8))
    top, left, height, width = plan.crop
    cropped = torch.stack(results)[..., top : top + height, left : left + width]
    resized = resize_frames(cropped, size)
    return resized.flip(-1) if plan.flip else resized


# -------------------------------------------------------------------------------------------------------- measurement


def measure(clip, plans, augmentation) -> dict[str, float]:
    """Mean milliseconds a clip, the three ways by turns."""
    ways = {
        "resize_ms": lambda plan: resize_frames(clip, augmentation.size),
        "augment_ms": lambda plan: augmentation.apply(clip, plan),
        "plain_ms": lambda plan: apply_plainly(clip, plan, augmentation.size),
    }
    seconds = dict.fromkeys(ways, 0.0)
    for number, plan in enumerate([plans[0], *plans]):
        for name, way in ways.items():
            start = time.process_time()
            way(plan)
            seconds[name] += (time.process_time() - start) * (number > 0)  # the first warms up
    result = {name: total / len(plans) * 1e3 for name, total in seconds.items()}
    result["over_resize"] = result["augment_ms"] / result["resize_ms"]
    result["plain_over"] = result["plain_ms"] / result["augment_ms"]
    return result


def check(clip, plans, augmentation):
    """That both ways come to the same, but for the rounding of coordinates."""
    for plan in plans:
        one, other = augmentation.apply(clip, plan), apply_plainly(clip, plan, augmentation.size)
        difference = (one.int() - other.int()).abs().float().mean().item()
        assert difference < 0.5, f"{difference} for {plan}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=150)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--size", type=int, default=448)
    parser.add_argument("--result_size", type=int, default=224)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    clip = make_clip(arguments.frames, arguments.size)
    augmentation = ClipAugmentation((arguments.result_size, arguments.result_size))
    rng = np.random.default_rng(0)
    drawn = [augmentation.plan(*clip.shape[-2:], rng) for _ in range(arguments.draws)]
    values = dict.fromkeys(("brightness", "contrast", "saturation", "sharpness"), 1.45)
    values |= {"rotate": 15.0, "posterize": 2, "solarize": 127, "shear_x": 0.15, "shear_y": 0.15}
    values |= {"translate_x": 0.225, "translate_y": 0.225}
    crop = Box(*[int(part * arguments.size) for part in (0.06, 0.07, 0.86, 0.86)])
    cases = {"as drawn": drawn, "crop alone": [AugmentationPlan((), crop, False)] * 8}
    cases |= {
        name: [AugmentationPlan((PixelOperation(name, values.get(name)),), crop, False)] * 8 for name in OPERATIONS
    }

    names = ("resize_ms", "augment_ms", "plain_ms", "over_resize", "plain_over")
    print(f"{'':>14}" + "".join(f"{name:>13}" for name in names))
    results = {}
    for case, plans in cases.items():
        check(clip, plans[:10], augmentation)
        results[case] = measure(clip, plans, augmentation)
        print(f"{case:>14}" + "".join(f"{results[case][name]:13.1f}" for name in names))
    results = {case: {name: round(value, 2) for name, value in result.items()} for case, result in results.items()}
    print(json.dumps({"benchmark": "augmentation", **vars(arguments), "results": results}))


if __name__ == "__main__":
    main()

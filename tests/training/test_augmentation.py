"""Augmentation: the pixels and the distribution of the original's transforms, from the caller's generator alone."""

import itertools
import json
import math
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from transformers_eilev.frame_resizing import resize_frames
from transformers_eilev.training.augmentation import AugmentationPlan, ClipAugmentation
from transformers_eilev.training.clip_transforms import OPERATIONS, Box, PixelOperation, apply_operations


FIXTURES = Path(__file__).parents[1] / "fixtures" / "training"

VALUES = {
    "brightness": 1.43,
    "contrast": 0.56,
    "saturation": 1.45,
    "sharpness": 1.44,
    "autocontrast": None,
    "equalize": None,
    "invert": None,
    "rotate": 14.2,
    "posterize": 3,
    "solarize": 96,
    "shear_x": -0.1431,
    "shear_y": 0.1571,
    "translate_x": 0.2113,
    "translate_y": -0.2297,
}
MOVING = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")


def make_clip(num_frames, height, width, seed=0, noise=10):
    """Smooth frames with some noise, each of another range of values."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.normal(size=(num_frames, 3, height // 8 + 2, width // 8 + 2)))
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    clip = smooth * 50 + 120 + torch.from_numpy(rng.normal(0, noise, size=tuple(smooth.shape)))
    return clip.clamp(5, 245).to(torch.uint8)


def operate(frames, name, value, box=None):
    return apply_operations(frames, [PixelOperation(name, value)], box or Box(0, 0, *frames.shape[-2:]))


def images_of(frames):
    return [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in frames]


def tensor_of(images):
    return torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images])


def differences(one, other):
    return (one.int() - other.int()).abs()


# -------------------------------------------------------------------------------------------------------------- pixels


def test_operations_are_the_originals():
    golden = np.load(FIXTURES / "augmented.npz")
    frames = torch.from_numpy(golden["clip"])
    checked = set()
    for key in golden.files:
        if key == "clip":
            continue
        name, _, value = key.partition(" ")
        difference = differences(operate(frames, name, float(value) if value else None), torch.from_numpy(golden[key]))
        if name in MOVING:  # the original's coordinates are rounded
            assert difference.max() <= 1 and (difference > 0).float().mean() < 0.01, key
        else:
            assert not difference.any(), key
        checked.add(name)
    assert checked == set(OPERATIONS)


@pytest.mark.parametrize(
    ("name", "of_image", "tolerance"),
    [
        ("posterize", lambda image: ImageOps.posterize(image, 3), 0),
        ("solarize", lambda image: ImageOps.solarize(image, 96), 0),
        ("invert", ImageOps.invert, 0),
        ("equalize", ImageOps.equalize, 0),
        ("autocontrast", ImageOps.autocontrast, 1),
        ("brightness", lambda image: ImageEnhance.Brightness(image).enhance(1.43), 1),
        ("sharpness", lambda image: ImageEnhance.Sharpness(image).enhance(1.44), 1),
        # PIL rounds the grey that these are blended with, the original drops what is after the point.
        ("contrast", lambda image: ImageEnhance.Contrast(image).enhance(0.56), 2),
        ("saturation", lambda image: ImageEnhance.Color(image).enhance(1.45), 2),
    ],
)
def test_operations_on_values_are_pils(name, of_image, tolerance):
    frames = make_clip(3, 61, 47)
    expected = tensor_of([of_image(image) for image in images_of(frames)])
    assert not torch.equal(expected, frames)
    assert differences(operate(frames, name, VALUES[name]), expected).max() <= tolerance


@pytest.mark.parametrize("name", MOVING)
@pytest.mark.parametrize("sign", [1, -1])
def test_moving_is_bilinear_sampling(name, sign):
    """Pixel by pixel from the definition, the border included."""
    height, width = 11, 15
    frames = make_clip(2, height, width, noise=60)
    value = sign * VALUES[name]
    angle = math.radians(value)
    cx, cy = width / 2 - 0.5, height / 2 - 0.5
    source = {
        "rotate": lambda x, y: (
            cx + math.cos(angle) * (x - cx) - math.sin(angle) * (y - cy),
            cy + math.sin(angle) * (x - cx) + math.cos(angle) * (y - cy),
        ),
        "shear_x": lambda x, y: (x + value * (y + 0.5), y),
        "shear_y": lambda x, y: (x, y + value * (x + 0.5)),
        "translate_x": lambda x, y: (x + value * width, y),
        "translate_y": lambda x, y: (x, y + value * height),
    }[name]
    expected = torch.zeros_like(frames)
    for y, x in itertools.product(range(height), range(width)):
        from_x, from_y = source(x, y)
        pixel, inside = np.zeros((2, 3)), 0.0
        for near_x, near_y in itertools.product(*((math.floor(at), math.floor(at) + 1) for at in (from_x, from_y))):
            weight = (1 - abs(from_x - near_x)) * (1 - abs(from_y - near_y))
            if 0 <= near_x < width and 0 <= near_y < height:
                pixel += weight * frames[:, :, near_y, near_x].numpy()
                inside += weight
        expected[:, :, y, x] = torch.from_numpy(np.rint(pixel * inside + 0.5 * (1 - inside)))
    difference = differences(operate(frames, name, value), expected)
    assert difference.max() <= 1 and (difference > 0).float().mean() < 0.01


@pytest.mark.parametrize("name", MOVING)
def test_moving_is_pils_but_for_the_border(name):
    frames = make_clip(2, 60, 80, noise=0)
    value, height, width = VALUES[name], 60, 80
    matrix = {
        "shear_x": (1, value, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, value, 1, 0),
        "translate_x": (1, 0, value * width, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, value * height),
    }.get(name)

    def move(image):
        if name == "rotate":
            return image.rotate(value, Image.Resampling.BILINEAR)
        return image.transform((width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)

    expected = tensor_of([move(image) for image in images_of(frames)])
    # PIL knows no half-covered pixels: only those are compared that are surrounded by the frame.
    covered = tensor_of([move(Image.new("RGB", (width, height), "white"))])[0, :1].float()
    covered = -torch.nn.functional.max_pool2d(-covered, 5, stride=1, padding=2) > 0
    covered[:, [0, 1, -2, -1]] = covered[:, :, [0, 1, -2, -1]] = False
    assert covered.float().mean() > 0.4
    assert (differences(operate(frames, name, value), expected) * covered).max() <= 2


@pytest.mark.parametrize("first", OPERATIONS)
def test_only_what_is_needed_is_computed_and_it_is_the_same(first):
    """Two operations within a box: the bits of the same on whole frames."""
    for height, width, box in ((13, 11, Box(3, 2, 7, 6)), (9, 3, Box(4, 0, 5, 1)), (2, 12, Box(0, 3, 2, 8))):
        frames = make_clip(2, height, width)
        before = frames.clone()
        for second in OPERATIONS:
            operations = [PixelOperation(name, VALUES[name]) for name in (first, second)]
            whole = operate(operate(frames, *operations[0]), *operations[1])
            expected = whole[:, :, box.top : box.top + box.height, box.left : box.left + box.width]
            assert torch.equal(apply_operations(frames, operations, box), expected), (second, height, width)
        assert torch.equal(frames, before)


def test_what_has_one_value_stays():
    frames = torch.full((2, 3, 9, 10), 77, dtype=torch.uint8)
    for name in ("autocontrast", "equalize"):
        assert torch.equal(operate(frames, name, None), frames)


def test_the_crop_is_pils():
    frames = make_clip(2, 90, 120)
    augmented = ClipAugmentation((56, 48)).apply(frames, AugmentationPlan((), Box(7, 12, 70, 80), False))
    expected = tensor_of(
        [image.crop((12, 7, 92, 77)).resize((48, 56), Image.Resampling.BICUBIC) for image in images_of(frames)]
    )
    assert differences(augmented, expected).max() <= 1


# -------------------------------------------------------------------------------------------------------- distribution


@pytest.fixture(scope="module")
def plans():
    augmentation, rng = ClipAugmentation((224, 224)), np.random.default_rng(5)
    return [augmentation.plan(448, 448, rng) for _ in range(10_000)]


def share_up_to(values, bound):
    return float((np.asarray(values) <= bound).mean())


def test_operations_are_drawn_as_the_original_draws_them(plans):
    golden = json.loads((FIXTURES / "drawn.json").read_text())
    counts = Counter(len(plan.operations) for plan in plans)
    for number, share in enumerate(golden["number_of_operations"]):
        assert counts[number] / len(plans) == pytest.approx(share, abs=0.02)
        assert counts[number] / len(plans) == pytest.approx((0.25, 0.5, 0.25)[number], abs=0.02)

    drawn = {name: [] for name in OPERATIONS}
    for plan in plans:
        for operation in plan.operations:
            drawn[operation.name].append(operation.value)
    assert golden["operations"].keys() == drawn.keys()
    for name, values in drawn.items():
        assert len(values) / len(plans) == pytest.approx(golden["operations"][name]["share"], abs=0.01), name
        for value, share in golden["operations"][name].get("at_most", ()):
            assert share_up_to(values, value) == pytest.approx(share, abs=0.06), (name, value)
        assert (None in values) == ("at_most" not in golden["operations"][name])


def test_levels_and_signs(plans):
    """All operations together, for a narrower look: 5 of 10, with a standard deviation of 0.5, either way."""
    ranges = {"rotate": (0, 30), "shear_x": (0, 0.3), "shear_y": (0, 0.3), "translate_x": (0, 0.45)}
    ranges |= {"translate_y": (0, 0.45)} | dict.fromkeys(
        ("brightness", "contrast", "saturation", "sharpness"), (1, 0.9)
    )
    levels = [
        (operation.value - ranges[operation.name][0]) / ranges[operation.name][1] * 10
        for plan in plans
        for operation in plan.operations
        if operation.name in ranges
    ]
    assert np.mean(np.abs(levels)) == pytest.approx(5, abs=0.03)
    assert np.std(np.abs(levels)) == pytest.approx(0.5, abs=0.02)
    assert np.mean(np.sign(levels)) == pytest.approx(0, abs=0.05)


def test_no_operation_comes_twice_and_any_can_be_first(plans):
    pairs = [tuple(operation.name for operation in plan.operations) for plan in plans if len(plan.operations) == 2]
    assert all(first != second for first, second in pairs)
    firsts = Counter(first for first, _ in pairs)
    assert all(firsts[name] / len(pairs) == pytest.approx(1 / 14, abs=0.02) for name in OPERATIONS)
    assert len(set(pairs)) == 14 * 13


@pytest.mark.parametrize("magnitude", [0, 10])
def test_levels_stay_in_range(magnitude):
    augmentation = ClipAugmentation((8, 8), magnitude=magnitude, num_layers=14, probability=1)
    rng = np.random.default_rng(0)
    drawn = {name: set() for name in OPERATIONS}
    for _ in range(50):
        for operation in augmentation.plan(20, 20, rng).operations:
            drawn[operation.name].add(operation.value)
    # Half of the levels lie beyond the end of the range, and become that end.
    assert drawn["posterize"] >= {0: {4}, 10: {0, 1}}[magnitude]
    assert {0: 255, 10: 0}[magnitude] in drawn["solarize"]
    if magnitude == 0:
        assert 0 in drawn["rotate"] and 1 in drawn["brightness"]
    else:
        assert {min(drawn["rotate"]), max(drawn["rotate"])} == {-30, 30}
        assert [min(drawn["brightness"]), max(drawn["brightness"])] == pytest.approx([0.1, 1.9])


def test_crops_are_drawn_as_the_original_draws_them():
    augmentation, rng = ClipAugmentation((224, 224), num_layers=0), np.random.default_rng(1)
    for golden in json.loads((FIXTURES / "drawn.json").read_text())["crops"]:
        crops = [augmentation.plan(*golden["frame"], rng).crop for _ in range(5_000)]
        for index, name in enumerate(("top", "left", "crop_height", "crop_width")):
            for value, share in golden[name]:
                found = share_up_to([crop[index] for crop in crops], value)
                assert found == pytest.approx(share, abs=0.03), (golden["frame"], name, value)


def test_crops_are_as_stated():
    """Where every crop fits, its area and the logarithm of its ratio are uniform."""
    augmentation = ClipAugmentation((224, 224), num_layers=0, scale=(0.2, 0.6), ratio=(2 / 3, 3 / 2))
    rng = np.random.default_rng(2)
    crops = np.array([augmentation.plan(1000, 1000, rng).crop for _ in range(5_000)])
    areas = crops[:, 2] * crops[:, 3] / 1000**2
    log_ratios = np.log(crops[:, 3] / crops[:, 2])
    for values, low, high in ((areas, 0.2, 0.6), (log_ratios, -math.log(1.5), math.log(1.5))):
        assert low - 0.002 < values.min() and values.max() < high + 0.002
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.02 * (high - low))
        assert values.std() == pytest.approx((high - low) / math.sqrt(12), abs=0.01 * (high - low))
    places = crops[:, :2] / (1000 - crops[:, 2:])
    assert places.mean(0) == pytest.approx([0.5, 0.5], abs=0.02)
    assert (places.min(0) == 0).all() and (places.max(0) == 1).all()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((64, 512), Box(0, 213, 64, 85)),
        ((512, 64), Box(213, 0, 85, 64)),
        ((1, 300), Box(0, 149, 1, 1)),
        ((1, 1), Box(0, 0, 1, 1)),
    ],
)
def test_where_no_crop_fits_it_is_the_middle(size, expected):
    rng = np.random.default_rng(0)
    assert {ClipAugmentation((8, 8)).plan(*size, rng).crop for _ in range(20)} == {expected}


def test_half_of_the_clips_are_flipped(plans):
    assert np.mean([plan.flip for plan in plans]) == pytest.approx(0.5, abs=0.02)
    frames, plan = make_clip(2, 30, 40), AugmentationPlan((), Box(2, 3, 20, 25), False)
    augmentation = ClipAugmentation((16, 16))
    flipped = augmentation.apply(frames, AugmentationPlan((), plan.crop, True))
    assert torch.equal(flipped, augmentation.apply(frames, plan).flip(-1))


# ------------------------------------------------------------------------------------------------------------ the clip


def test_frames_are_treated_alike_and_for_themselves():
    """A clip of one frame repeated stays one, and a frame's result does not depend on the others."""
    clip, rng = make_clip(3, 40, 52), np.random.default_rng(3)
    augmentation = ClipAugmentation((24, 24), num_layers=3, probability=1)
    for _ in range(20):
        plan = augmentation.plan(40, 52, rng)
        together = augmentation.apply(clip, plan)
        for index in range(3):
            alone = augmentation.apply(clip[index : index + 1], plan)
            assert torch.equal(together[index : index + 1], alone), str(plan)
            assert torch.equal(
                augmentation.apply(clip[index : index + 1].repeat(4, 1, 1, 1), plan), alone.expand(4, -1, -1, -1)
            )


def test_randomness_is_the_callers_alone():
    clip, augmentation = make_clip(3, 60, 80), ClipAugmentation((32, 32), num_layers=4, probability=1)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    threads = torch.get_num_threads()
    try:
        for seed in range(8):
            torch.set_num_threads(1)
            first = augmentation(clip, np.random.default_rng([seed, 5]))
            assert torch.equal(torch.get_rng_state(), torch_state)
            torch.manual_seed(seed + 1)
            torch.set_num_threads(2)
            assert torch.equal(augmentation(clip, np.random.default_rng([seed, 5])), first)
            assert not torch.equal(augmentation(clip, np.random.default_rng([seed, 6])), first)
            torch.set_rng_state(torch_state)
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()


def test_operations_and_flip_do_not_depend_on_the_frames_size():
    augmentation = ClipAugmentation((8, 8))
    for seed in range(30):
        plans = [augmentation.plan(*size, np.random.default_rng(seed)) for size in ((448, 448), (7, 900))]
        assert plans[0].operations == plans[1].operations and plans[0].flip == plans[1].flip


@pytest.mark.parametrize("size", [(8, 8), (1, 1), (2, 2), (3, 4), (1, 60), (60, 1), (2, 400), (17, 23)])
@pytest.mark.parametrize("num_frames", [1, 4])
def test_any_size(size, num_frames):
    clip, augmentation = make_clip(num_frames, *size), ClipAugmentation((14, 10), num_layers=3, probability=1)
    before = clip.clone()
    for seed in range(25):
        augmented = augmentation(clip, np.random.default_rng(seed))
        assert augmented.shape == (num_frames, 3, 14, 10) and augmented.dtype == torch.uint8
        assert augmented.is_contiguous()
    assert torch.equal(clip, before)


def test_nothing_to_do_is_a_resize_and_a_copy():
    clip = make_clip(2, 40, 40)
    nothing = {"num_layers": 0, "scale": (1, 1), "ratio": [1, 1], "flip_probability": 0}
    rng = np.random.default_rng(0)
    assert torch.equal(ClipAugmentation((24, 20), **nothing)(clip, rng), resize_frames(clip, (24, 20)))
    same = ClipAugmentation((40, 40), **nothing)(clip, rng)
    assert torch.equal(same, clip)
    same.zero_()
    assert clip.any()


def test_frames_of_any_kind():
    clip, augmentation = make_clip(3, 30, 41), ClipAugmentation((16, 16))
    expected = augmentation(clip, np.random.default_rng(1))
    for frames in (images_of(clip), clip.numpy(), clip.permute(0, 2, 3, 1), clip.permute(0, 2, 3, 1).numpy()):
        assert torch.equal(augmentation(frames, np.random.default_rng(1)), expected)


def test_it_travels_to_workers():
    augmentation = ClipAugmentation((16, 12), magnitude=7, num_layers=3, probability=0.8, scale=[0.3, 0.9])
    copy = pickle.loads(pickle.dumps(augmentation))
    clip = make_clip(2, 30, 30)
    assert torch.equal(copy(clip, np.random.default_rng(0)), augmentation(clip, np.random.default_rng(0)))
    assert repr(copy) == repr(augmentation)
    assert eval(repr(copy)).scale == (0.3, 0.9)


def test_a_plan_says_what_is_done():
    plan = AugmentationPlan((PixelOperation("rotate", -13.256), PixelOperation("invert")), Box(3, 12, 400, 410), True)
    assert str(plan) == "rotate(-13.26), invert, crop(400x410 at 3, 12), flip"
    assert str(AugmentationPlan((), Box(0, 0, 4, 4), False)) == "crop(4x4 at 0, 0)"


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", 224),
        ("size", (224,)),
        ("size", (0, 224)),
        ("size", (224.0, 224)),
        ("magnitude", -1),
        ("magnitude", 11),
        ("magnitude", math.nan),
        ("magnitude", "5"),
        ("num_layers", 1.5),
        ("num_layers", 15),
        ("num_layers", -1),
        ("num_layers", True),
        ("probability", 1.1),
        ("flip_probability", -0.1),
        ("flip_probability", None),
        ("scale", (0, 1)),
        ("scale", (0.9, 0.5)),
        ("scale", (0.5, 1.5)),
        ("scale", 0.5),
        ("ratio", (0.0, 1)),
        ("ratio", (1, math.inf)),
        ("ratio", ("3/4", "4/3")),
    ],
)
def test_bad_values_are_named(field, value):
    arguments = {"size": (224, 224)} | {field: value}
    with pytest.raises(ValueError, match=f"^`{field}`") as error:
        ClipAugmentation(arguments.pop("size"), **arguments)
    assert repr(value) in str(error.value)


def test_bad_calls():
    clip, augmentation = make_clip(2, 20, 30), ClipAugmentation((8, 8))
    with pytest.raises(TypeError, match="`rng`"):
        augmentation(clip, 0)
    for box in (Box(0, 0, 21, 30), Box(1, 0, 20, 30), Box(-1, 0, 5, 5), Box(0, 0, 0, 5)):
        with pytest.raises(ValueError, match="`plan.crop`"):
            augmentation.apply(clip, AugmentationPlan((), box, False))
    for operation in (PixelOperation("blur", 1.0), PixelOperation("rotate"), PixelOperation("invert", 1.0)):
        with pytest.raises(ValueError, match=f"`plan.operations` has '{operation.name}'"):
            augmentation.apply(clip, AugmentationPlan((operation,), Box(0, 0, 20, 30), False))

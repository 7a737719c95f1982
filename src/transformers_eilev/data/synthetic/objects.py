"""What nouns, hands and tools look like: a painter for each, on the unit square of its sprite."""

from math import cos, pi, sin

import numpy as np
from PIL import Image

from .drawing import Colour, Pen, ellipse_sprite, shade_of
from .world import PALETTE, Look, Noun


METAL, DARK_METAL, WOOD = (188, 192, 198), (112, 116, 124), (164, 116, 68)


def draw_object(noun: Noun, look: Look, pixels: int) -> Image.Image:
    """Sprite of a noun in one of its looks, of `pixels` a side, RGBA."""
    pen = Pen(pixels)
    first, second = PALETTE[look.colour], PALETTE[look.second]
    if noun.shape >= 0:
        _made_up(pen, first, second, look.pattern, noun.shape)
    else:
        _PAINTERS[noun.name](pen, first, second, look.pattern)
    return pen.finish(relief=0.5 if noun.name in _FLAT else 1.0)


def _apple(pen, first, second, pattern):
    pen.line([(0.5, 0.3), (0.54, 0.1)], (84, 58, 36), 0.045)
    pen.polygon([(0.54, 0.2), (0.66, 0.08), (0.8, 0.1), (0.68, 0.21)], (74, 138, 60))
    pen.ellipse(0.12, 0.2, 0.62, 0.9, first)
    pen.ellipse(0.38, 0.2, 0.88, 0.9, first)
    pen.ellipse(0.22, 0.3, 0.78, 0.95, first)
    pen.ellipse(0.4, 0.21, 0.6, 0.29, shade_of(first, 0.6))
    pen.ellipse(0.24, 0.34, 0.36, 0.52, shade_of(first, 1.5))


def _banana(pen, first, second, pattern):
    outer = [(0.5 + 0.47 * cos(a), 0.22 + 0.52 * sin(a)) for a in np.linspace(0.1, pi - 0.25, 24)]
    inner = [(0.5 + 0.4 * cos(a), 0.16 + 0.28 * sin(a)) for a in np.linspace(pi - 0.25, 0.1, 24)]
    pen.polygon(outer + inner, first)
    ridge = [(0.5 + 0.43 * cos(a), 0.19 + 0.4 * sin(a)) for a in np.linspace(0.25, pi - 0.4, 24)]
    pen.line(ridge, shade_of(first, 0.8), 0.02)
    pen.line([outer[0], (outer[0][0] + 0.005, outer[0][1] - 0.1)], (96, 72, 36), 0.06)
    pen.ellipse(outer[-1][0] - 0.03, outer[-1][1] - 0.06, outer[-1][0] + 0.04, outer[-1][1] + 0.01, (60, 44, 30))


def _carrot(pen, first, second, pattern):
    for x, y in ((0.08, 0.3), (0.02, 0.46), (0.06, 0.62)):
        pen.line([(0.26, 0.48), (x, y)], (66, 134, 56), 0.04)
    pen.polygon([(0.24, 0.36), (0.36, 0.34), (0.98, 0.52), (0.98, 0.56), (0.36, 0.66), (0.24, 0.62)], first)
    pen.ellipse(0.19, 0.35, 0.33, 0.64, first)
    for x in (0.36, 0.5, 0.62, 0.76):
        pen.line([(x, 0.42), (x + 0.02, 0.47)], shade_of(first, 0.7), 0.015)


def _bread(pen, first, second, pattern):
    pen.box(0.04, 0.3, 0.96, 0.78, first, 0.2)
    pen.ellipse(0.06, 0.22, 0.94, 0.7, first)
    for x in (0.24, 0.42, 0.6, 0.78):
        pen.line([(x - 0.06, 0.48), (x + 0.05, 0.3)], shade_of(first, 1.55), 0.045)


def _ball(pen, first, second, pattern):
    pen.ellipse(0.06, 0.06, 0.94, 0.94, first)
    pen.pattern(pattern, second, 4)
    if pattern == "plain":
        pen.arc(0.3, 0.08, 0.7, 0.92, 0, 360, second, 0.05)
        pen.line([(0.1, 0.5), (0.9, 0.5)], second, 0.05)
    pen.ellipse(0.24, 0.18, 0.42, 0.34, shade_of(first, 1.6))


def _bottle(pen, first, second, pattern):
    pen.box(0.3, 0.34, 0.7, 0.98, first, 0.08)
    pen.polygon([(0.3, 0.44), (0.43, 0.24), (0.57, 0.24), (0.7, 0.44)], first)
    pen.box(0.43, 0.1, 0.57, 0.3, first)
    pen.pattern(pattern, shade_of(first, 0.75), 6)
    pen.box(0.41, 0.02, 0.59, 0.15, second, 0.03)
    pen.box(0.3, 0.54, 0.7, 0.8, second)
    pen.box(0.35, 0.6, 0.65, 0.64, shade_of(second, 0.55))
    pen.box(0.35, 0.69, 0.57, 0.72, shade_of(second, 0.55))
    pen.line([(0.36, 0.42), (0.36, 0.52)], shade_of(first, 1.6), 0.03)


def _box(pen, first, second, pattern):
    pen.polygon([(0.08, 0.38), (0.78, 0.38), (0.78, 0.94), (0.08, 0.94)], first)
    pen.pattern(pattern, second, 6)
    pen.polygon([(0.08, 0.38), (0.24, 0.14), (0.94, 0.14), (0.78, 0.38)], shade_of(first, 1.3))
    pen.polygon([(0.78, 0.38), (0.94, 0.14), (0.94, 0.72), (0.78, 0.94)], shade_of(first, 0.65))
    pen.polygon([(0.4, 0.38), (0.56, 0.14), (0.64, 0.14), (0.48, 0.38)], shade_of(second, 1.2))
    pen.box(0.4, 0.38, 0.48, 0.56, second)


def _pot(pen, first, second, pattern):
    pen.line([(0.02, 0.52), (0.98, 0.52)], (50, 50, 54), 0.07)
    pen.box(0.12, 0.4, 0.88, 0.92, first, 0.1)
    pen.pattern(pattern, second, 5)
    pen.ellipse(0.1, 0.26, 0.9, 0.52, shade_of(first, 0.7))
    pen.ellipse(0.12, 0.22, 0.88, 0.46, METAL)
    pen.ellipse(0.2, 0.25, 0.8, 0.4, shade_of(METAL, 1.4))
    pen.box(0.44, 0.12, 0.56, 0.3, (50, 50, 54), 0.04)


def _cup(pen, first, second, pattern):
    pen.ellipse(0.6, 0.34, 0.98, 0.78, first)
    pen.draw.ellipse([0.69 * pen.size, 0.43 * pen.size, 0.89 * pen.size, 0.69 * pen.size], fill=(0, 0, 0, 0))
    pen.polygon([(0.1, 0.22), (0.76, 0.22), (0.7, 0.94), (0.16, 0.94)], first)
    pen.pattern(pattern, second, 6)
    pen.ellipse(0.1, 0.1, 0.76, 0.34, shade_of(first, 1.3))
    pen.ellipse(0.15, 0.14, 0.71, 0.32, shade_of(first, 0.45))
    pen.ellipse(0.19, 0.19, 0.67, 0.32, (92, 58, 36))


def _bowl(pen, first, second, pattern):
    pen.draw.pieslice([0.03 * pen.size, -0.1 * pen.size, 0.97 * pen.size, 0.84 * pen.size], 0, 180, fill=first)
    pen.box(0.34, 0.78, 0.66, 0.88, shade_of(first, 0.8), 0.02)
    pen.pattern(pattern, second, 6)
    pen.ellipse(0.03, 0.2, 0.97, 0.54, shade_of(first, 1.35))
    pen.ellipse(0.09, 0.24, 0.91, 0.51, shade_of(first, 0.6))
    pen.ellipse(0.18, 0.32, 0.82, 0.5, shade_of(second, 1.1))


def _pan(pen, first, second, pattern):
    pen.line([(0.6, 0.46), (0.97, 0.2)], (44, 42, 44), 0.09)
    pen.line([(0.84, 0.29), (0.97, 0.2)], second, 0.1)
    pen.ellipse(0.02, 0.28, 0.74, 0.86, shade_of(first, 0.6))
    pen.ellipse(0.02, 0.24, 0.74, 0.78, first)
    pen.ellipse(0.07, 0.28, 0.69, 0.74, (58, 58, 62))
    pen.ellipse(0.13, 0.36, 0.63, 0.72, (76, 76, 80))


def _book(pen, first, second, pattern):
    pen.polygon([(0.1, 0.12), (0.8, 0.06), (0.94, 0.84), (0.2, 0.94)], shade_of(first, 0.6))
    pen.polygon([(0.8, 0.08), (0.86, 0.1), (0.97, 0.86), (0.92, 0.88)], (240, 236, 222))
    pen.polygon([(0.2, 0.9), (0.92, 0.82), (0.96, 0.87), (0.24, 0.96)], (226, 220, 204))
    pen.polygon([(0.08, 0.1), (0.78, 0.04), (0.92, 0.8), (0.18, 0.9)], first)
    if pattern != "plain":
        pen.polygon([(0.13, 0.36), (0.83, 0.3), (0.87, 0.5), (0.165, 0.58)], second)
    pen.line([(0.14, 0.12), (0.24, 0.88)], shade_of(first, 0.55), 0.035)
    pen.line([(0.3, 0.22), (0.68, 0.19)], shade_of(second, 1.3), 0.05)
    pen.line([(0.33, 0.31), (0.6, 0.29)], shade_of(second, 1.3), 0.028)
    pen.line([(0.42, 0.74), (0.74, 0.71)], shade_of(second, 1.1), 0.028)


def _phone(pen, first, second, pattern):
    pen.box(0.24, 0.02, 0.76, 0.98, first, 0.08)
    pen.box(0.29, 0.1, 0.71, 0.88, (22, 26, 34), 0.02)
    for row in range(4):
        for column in range(3):
            x, y = 0.335 + 0.125 * column, 0.18 + 0.15 * row
            colour = second if (row + column) % 2 else shade_of(second, 1.45)
            pen.box(x, y, x + 0.085, y + 0.085, colour, 0.02)
    pen.line([(0.44, 0.93), (0.56, 0.93)], shade_of(first, 0.5), 0.02)
    pen.line([(0.45, 0.06), (0.55, 0.06)], shade_of(first, 0.5), 0.016)


def _cloth(pen, first, second, pattern):
    edge = np.linspace(0, 1, 20)
    top = [(0.06 + 0.86 * t, 0.16 + 0.03 * sin(9 * t)) for t in edge]
    right = [(0.93 + 0.025 * sin(11 * t), 0.16 + 0.7 * t) for t in edge]
    bottom = [(0.94 - 0.88 * t, 0.87 + 0.03 * sin(10 * t)) for t in edge]
    left = [(0.06 + 0.025 * sin(12 * t), 0.86 - 0.7 * t) for t in edge]
    pen.polygon(top + right + bottom + left, first)
    pen.pattern("checks" if pattern == "plain" else pattern, second, 8)
    for start, end in (((0.2, 0.2), (0.34, 0.82)), ((0.52, 0.2), (0.44, 0.84)), ((0.78, 0.22), (0.84, 0.8))):
        pen.line([start, end], shade_of(first, 0.72), 0.014)


def _paper(pen, first, second, pattern):
    pen.polygon([(0.1, 0.1), (0.86, 0.06), (0.92, 0.92), (0.12, 0.95)], first)
    for row in range(9):
        y = 0.2 + 0.075 * row
        pen.line([(0.2, y), (0.8 - 0.12 * (row % 3), y - 0.015)], shade_of(first, 0.55), 0.014)
    pen.box(0.56, 0.5, 0.8, 0.68, shade_of(second, 1.2))


def _bag(pen, first, second, pattern):
    pen.arc(0.32, 0.0, 0.68, 0.42, 180, 360, shade_of(first, 0.6), 0.05)
    pen.polygon([(0.2, 0.2), (0.8, 0.2), (0.94, 0.95), (0.06, 0.95)], first)
    pen.pattern(pattern, second, 5)
    pen.polygon([(0.2, 0.2), (0.8, 0.2), (0.82, 0.32), (0.18, 0.32)], shade_of(first, 0.75))
    for x in (0.34, 0.6):
        pen.line([(x, 0.34), (x - 0.06, 0.92)], shade_of(first, 0.8), 0.016)


def _hammer(pen, first, second, pattern):
    pen.line([(0.14, 0.88), (0.66, 0.3)], first, 0.1)
    pen.line([(0.12, 0.9), (0.32, 0.68)], shade_of(first, 0.55), 0.12)
    pen.polygon([(0.42, 0.2), (0.56, 0.06), (0.94, 0.42), (0.8, 0.56)], DARK_METAL)
    pen.polygon([(0.8, 0.56), (0.94, 0.42), (0.99, 0.47), (0.85, 0.61)], METAL)
    pen.polygon([(0.42, 0.2), (0.56, 0.06), (0.44, 0.02), (0.3, 0.08)], METAL)


def _scissors(pen, first, second, pattern):
    pen.polygon([(0.42, 0.6), (0.6, 0.62), (0.8, 0.04)], METAL)
    pen.polygon([(0.4, 0.62), (0.58, 0.6), (0.2, 0.04)], shade_of(METAL, 0.85))
    for x0, x1 in ((0.1, 0.46), (0.54, 0.9)):
        pen.ellipse(x0, 0.62, x1, 0.98, first)
        inner = [(x0 + 0.09) * pen.size, 0.71 * pen.size, (x1 - 0.09) * pen.size, 0.89 * pen.size]
        pen.draw.ellipse(inner, fill=(0, 0, 0, 0))
    pen.ellipse(0.45, 0.54, 0.55, 0.64, DARK_METAL)


def _made_up(pen, first, second, pattern, shape):
    """A lobed body with parts stuck to it; the shape is the noun's, the colours the look's."""
    rng = np.random.default_rng(shape)
    lobes, depth, tall = int(rng.integers(2, 8)), float(rng.uniform(0.08, 0.3)), float(rng.uniform(0.7, 1.3))
    part_kind, parts = int(rng.integers(3)), int(rng.integers(2, 5))
    base, turn = 0.36 / max(tall, 1 / tall), float(rng.uniform(0, 2 * pi))
    for number in range(parts):
        angle = turn + 2 * pi * number / parts
        x, y = 0.5 + 0.42 * cos(angle), 0.5 + 0.42 * sin(angle)
        pen.line([(0.5, 0.5), (x, y)], shade_of(second, 0.7), 0.06)
        if part_kind == 0:
            pen.ellipse(x - 0.08, y - 0.08, x + 0.08, y + 0.08, second)
        elif part_kind == 1:
            pen.box(x - 0.07, y - 0.07, x + 0.07, y + 0.07, second)
    # Lobes, the corners of a star, or the corners of a polygon.
    kind = int(rng.integers(3))
    angles = np.linspace(0, 2 * pi, (72, 2 * max(lobes, 4), max(lobes, 3))[kind], endpoint=False) - pi / 2
    radii = [base * (1 + depth * (cos(lobes * a) if kind == 0 else (1, -1)[i % 2])) for i, a in enumerate(angles)]
    if kind == 2:
        radii = [base * 1.15] * len(angles)
    body = [(0.5 + r / tall**0.5 * cos(a), 0.5 + r * tall**0.5 * sin(a)) for r, a in zip(radii, angles)]
    pen.polygon(body, first)
    if pattern != "plain":
        pen.polygon([(0.5 + 0.7 * (x - 0.5), 0.5 + 0.7 * (y - 0.5)) for x, y in body], shade_of(second, 1.2))
    pen.ellipse(0.42, 0.42, 0.58, 0.58, shade_of(first, 0.5))


_PAINTERS = {
    "apple": _apple,
    "banana": _banana,
    "carrot": _carrot,
    "bread": _bread,
    "ball": _ball,
    "bottle": _bottle,
    "box": _box,
    "pot": _pot,
    "cup": _cup,
    "bowl": _bowl,
    "pan": _pan,
    "book": _book,
    "phone": _phone,
    "cloth": _cloth,
    "paper": _paper,
    "bag": _bag,
    "hammer": _hammer,
    "scissors": _scissors,
}
_FLAT = {"cloth", "paper", "phone", "book", "scissors"}


# ------------------------------------------------------------------------------------------------------------- hands

# Side of a hand's sprite in widths of the view; the palm's centre is the sprite's.
HAND_SIZE = 2.0


def draw_hand(pose: str, skin: Colour, sleeve: Colour, pixels: int) -> Image.Image:
    """Sprite of a right hand with its arm, fingers up; poses are open, flat, grip and fist."""
    pen = Pen(pixels)
    unit = 0.8 / HAND_SIZE

    def at(x, y):
        return 0.5 + x * unit, 0.5 + y * unit

    dark, nail = shade_of(skin, 0.78), shade_of(skin, 1.35)
    pen.polygon([at(-0.045, 0.06), at(0.05, 0.06), at(0.09, 1.3), at(-0.09, 1.3)], skin)
    pen.polygon([at(-0.072, 0.2), at(0.078, 0.2), at(0.15, 1.3), at(-0.15, 1.3)], sleeve)
    pen.line([at(-0.072, 0.21), at(0.078, 0.21)], shade_of(sleeve, 0.7), 0.02 * unit)
    pen.box(*at(-0.062, -0.05), *at(0.066, 0.1), skin, 0.045 * unit)
    fingers = {
        "open": ([(-0.09, -0.15), (-0.035, -0.185), (0.025, -0.18), (0.08, -0.135)], (-0.15, -0.04), 0.034),
        "flat": ([(-0.055, -0.15), (-0.018, -0.17), (0.02, -0.165), (0.056, -0.14)], (-0.1, -0.06), 0.036),
        "grip": ([(-0.085, -0.1), (-0.05, -0.125), (-0.005, -0.12), (0.035, -0.1)], (-0.135, -0.0), 0.038),
        "fist": ([(-0.05, -0.065), (-0.016, -0.075), (0.02, -0.072), (0.052, -0.06)], (-0.06, -0.02), 0.042),
    }[pose]
    roots = [(-0.045, -0.03), (-0.015, -0.04), (0.018, -0.04), (0.048, -0.03)]
    tips, thumb, width = fingers
    for root, tip in zip(roots, tips):
        bent = (root[0] * 0.4 + tip[0] * 0.6 + (0.02 if pose == "grip" else 0), root[1] * 0.4 + tip[1] * 0.6)
        pen.line([at(*root), at(*bent), at(*tip)], dark, (width + 0.008) * unit)
        pen.line([at(*root), at(*bent), at(*tip)], skin, width * unit)
        if pose != "fist":
            pen.line([at(*tip), at(tip[0], tip[1] + 0.008)], nail, width * 0.5 * unit)
    for width, colour in ((0.05, dark), (0.042, skin)):
        pen.line([at(-0.045, 0.06), at(-0.08, 0.015), at(*thumb)], colour, width * unit)
    return pen.finish(relief=0.9, softness=0.011)


# ------------------------------------------------------------------------------------------------------------- tools


def draw_tool(name: str, pixels: int) -> Image.Image:
    """Sprite of a tool or of what runs and foams; `pixels` is the width of the view."""
    return _TOOLS[name](pixels)


def _knife_tool(pixels):
    pen = Pen(round(0.36 * pixels))
    pen.polygon([(0.02, 0.62), (0.1, 0.5), (0.62, 0.38), (0.66, 0.52), (0.1, 0.66)], METAL)
    pen.line([(0.06, 0.64), (0.62, 0.52)], shade_of(METAL, 1.6), 0.02)
    pen.line([(0.66, 0.46), (0.96, 0.56)], (52, 40, 36), 0.11)
    return pen.finish(relief=0.7)


def _spoon_tool(pixels):
    pen = Pen(round(0.34 * pixels))
    pen.line([(0.32, 0.62), (0.94, 0.26)], WOOD, 0.07)
    pen.ellipse(0.1, 0.52, 0.42, 0.8, WOOD)
    pen.ellipse(0.15, 0.56, 0.36, 0.74, shade_of(WOOD, 0.7))
    return pen.finish()


def _sponge_tool(pixels):
    pen = Pen(round(0.21 * pixels))
    pen.box(0.04, 0.2, 0.96, 0.82, (238, 208, 74), 0.12)
    pen.box(0.04, 0.2, 0.96, 0.4, (64, 142, 92), 0.1)
    for x, y in ((0.2, 0.55), (0.45, 0.66), (0.7, 0.52), (0.84, 0.7), (0.32, 0.74)):
        pen.ellipse(x, y, x + 0.07, y + 0.06, (202, 170, 50))
    return pen.finish()


def _basin_tool(pixels):
    pen = Pen(round(0.42 * pixels))
    pen.draw.pieslice(
        [0.02 * pen.size, -0.02 * pen.size, 0.98 * pen.size, 0.84 * pen.size], 0, 180, fill=(206, 214, 220)
    )
    pen.ellipse(0.02, 0.26, 0.98, 0.56, (226, 232, 236))
    pen.ellipse(0.07, 0.29, 0.93, 0.54, (150, 160, 168))
    return pen.finish()


def _fill_tool(pixels):
    return ellipse_sprite(round(0.32 * pixels), round(0.085 * pixels), (172, 116, 62), 235)


def _drop_tool(pixels):
    return ellipse_sprite(round(0.032 * pixels), round(0.062 * pixels), (172, 116, 62), 235)


def _bubble_tool(pixels):
    pen = Pen(round(0.09 * pixels))
    pen.ellipse(0.05, 0.05, 0.95, 0.95, (240, 246, 250, 215))
    pen.ellipse(0.18, 0.18, 0.86, 0.86, (214, 230, 242, 190))
    pen.ellipse(0.24, 0.22, 0.46, 0.44, (255, 255, 255, 240))
    return pen.image


def _water_tool(pixels):
    width, height = round(0.075 * pixels), round(0.8 * pixels)
    x = np.arange(width)[None, :] / width
    pixels_ = np.zeros((height, width, 4), np.uint8)
    pixels_[..., :3] = (196, 222, 240)
    pixels_[..., 3] = 210 - 110 * np.abs(2 * x - 1)
    pixels_[:, width // 3 : width // 2, :3] = 250
    return Image.fromarray(pixels_)


def _mouth_tool(pixels):
    return ellipse_sprite(round(0.2 * pixels), round(0.05 * pixels), (30, 26, 24), 235)


def _shadow_tool(pixels):
    return ellipse_sprite(round(0.25 * pixels), round(0.07 * pixels), (16, 12, 10), 120, blur=0.016 * pixels)


def _crate(pixels, front):
    pen = Pen(round(0.46 * pixels))
    colour = (150, 112, 70)
    if front:
        for y in (0.5, 0.66, 0.82):
            pen.box(0.04, y, 0.96, y + 0.13, colour, 0.01)
        for x in (0.07, 0.85):
            pen.box(x, 0.48, x + 0.08, 0.96, shade_of(colour, 0.75))
    else:
        pen.polygon([(0.14, 0.32), (0.86, 0.32), (0.96, 0.52), (0.04, 0.52)], shade_of(colour, 0.35))
        pen.box(0.12, 0.27, 0.88, 0.36, shade_of(colour, 0.85))
        pen.box(0.06, 0.5, 0.94, 0.9, shade_of(colour, 0.35))
    return pen.finish(relief=0.5)


_TOOLS = {
    "knife": _knife_tool,
    "spoon": _spoon_tool,
    "sponge": _sponge_tool,
    "basin": _basin_tool,
    "fill": _fill_tool,
    "drop": _drop_tool,
    "bubble": _bubble_tool,
    "water": _water_tool,
    "mouth": _mouth_tool,
    "shadow": _shadow_tool,
    "crate_back": lambda pixels: _crate(pixels, front=False),
    "crate_front": lambda pixels: _crate(pixels, front=True),
}

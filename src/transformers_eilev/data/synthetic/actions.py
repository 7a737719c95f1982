"""Verbs as motions: where hands, object and tools are at each phase of an action.

A motion maps a phase from 0 to 1 to a list of `Layer`s, the furthest first. Lengths are in widths of the view,
relative to the spot where the action takes place, y down. The verbs of a pair such as open and close are one motion
played forwards and backwards, so that no single frame tells them apart.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import atan2, cos, degrees, pi, sin


# Where hands are when they do nothing: below the view.
REST = (0.3, 0.66)
WHOLE = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Layer:
    """One sprite in its place.

    Attributes:
        sprite (`str`): "object", "hand:<left|right>:<pose>", "shadow", or the name of a tool.
        x, y (`float`): its centre.
        angle (`float`): degrees counter-clockwise.
        scale (`float`): of both sides.
        stretch (`tuple[float, float]`): of width and height, before it is turned.
        crop (`tuple`): the part of the sprite that is shown, as (x0, y0, x1, y1) in fractions of its sides.
        alpha (`float`): 1 is opaque.
    """

    sprite: str
    x: float
    y: float
    angle: float = 0.0
    scale: float = 1.0
    stretch: tuple[float, float] = (1.0, 1.0)
    crop: tuple[float, float, float, float] = WHOLE
    alpha: float = 1.0


@dataclass(frozen=True)
class Staging:
    """How one action is carried out.

    Attributes:
        size (`float`): side of the object's sprite, in widths of the view.
        side (`int`): 1 if the right hand leads, -1 if the left does; everything is mirrored.
        strokes (`int`): how often a repeated motion is repeated.
        vigour (`float`): 0.8 to 1.2, how wide it is.
    """

    size: float
    side: int = 1
    strokes: int = 4
    vigour: float = 1.0


Motion = Callable[[float, Staging], list[Layer]]


def smooth(phase: float, start: float, end: float) -> float:
    """From 0 at `start` to 1 at `end`, without a jerk."""
    u = min(max((phase - start) / (end - start), 0.0), 1.0)
    return u * u * (3 - 2 * u)


def between(a: tuple[float, float], b: tuple[float, float], u: float) -> tuple[float, float]:
    """The point at `u` of the way from `a` to `b`."""
    return a[0] + (b[0] - a[0]) * u, a[1] + (b[1] - a[1]) * u


def hand(which: str, pose: str, at: tuple[float, float], turn: float = 0.0) -> Layer:
    """A hand whose arm comes from the body, below the view; drawn for a right-handed person ("lead" is right)."""
    shoulder = 0.42 if which == "lead" else -0.42
    angle = degrees(atan2(at[0] - shoulder, 1.15 - at[1]))
    return Layer(f"hand:{which}:{pose}", at[0], at[1], turn - angle)


def coming(which: str, pose: str, to: tuple[float, float], u: float, turn: float = 0.0) -> Layer:
    """A hand on its way from rest (u=0) to a place (u=1)."""
    rest = REST if which == "lead" else (-REST[0], REST[1])
    return hand(which, pose if u > 0.97 else "open", between(rest, to, u), turn * u)


def grip(x: float, y: float, size: float) -> tuple[float, float]:
    """Where a hand holds a thing of `size` at (x, y)."""
    return x + 0.36 * size, y + 0.36 * size


def shadow(x: float, y: float, staging: Staging, height: float = 0.0) -> Layer:
    """Of an object that is `height` above the table."""
    spread = 1 + 0.8 * height
    alpha = max(0.0, 1 - 2.2 * height)
    return Layer("shadow", x + 0.1 * height, y + 0.42 * staging.size, 0, staging.size / 0.3 * spread, alpha=alpha)


def part(x: float, y: float, size: float, crop: tuple[float, float, float, float], **more) -> Layer:
    """A part of the object where it belongs if the whole object is at (x, y)."""
    dx, dy = (crop[0] + crop[2]) / 2 - 0.5, (crop[1] + crop[3]) / 2 - 0.5
    return Layer("object", x + dx * size, y + dy * size, crop=crop, **more)


def engaged(phase: float) -> float:
    """1 while hands are at work, 0 when they are away."""
    return smooth(phase, 0.0, 0.18) - smooth(phase, 0.84, 1.0)


# --------------------------------------------------------------------------- motions that are others played backwards


def take(phase: float, s: Staging) -> list[Layer]:
    """A hand comes, grips the object and carries it to the body, out of view."""
    u, v = smooth(phase, 0.05, 0.3), smooth(phase, 0.4, 0.95)
    x, y = 0.14 * v, -0.95 * v * s.vigour + (0.75 + 0.95 * s.vigour) * v * v
    scale = 1 + 0.4 * v
    holding = hand("lead", "grip", grip(x, y, s.size * scale)) if u > 0.97 else None
    return [
        shadow(0.14 * v, 0, s, height=min(v * 1.6, 1)),
        Layer("object", x, y, -14 * v, scale),
        holding or coming("lead", "grip", grip(0, 0, s.size), u),
    ]


def open_(phase: float, s: Staging) -> list[Layer]:
    """One hand holds the object, the other takes its upper part off and lays it beside."""
    hold, u, v = engaged(phase), smooth(phase, 0.04, 0.24), smooth(phase, 0.3, 0.72)
    away = smooth(phase, 0.78, 0.98)
    lid, body = (0.0, 0.0, 1.0, 0.4), (0.0, 0.4, 1.0, 1.0)
    beside = (0.62 * s.size + 0.1, 0.34 * s.size)
    top = between((0, -0.3 * s.size), beside, v)
    top = (top[0], top[1] - 0.3 * s.vigour * sin(pi * v))
    at = (top[0] + 0.16 * s.size, top[1] + 0.04)
    moving = coming("lead", "grip", at, u - away)
    mouth = Layer("mouth", 0, -0.1 * s.size, 0, s.size / 0.3, alpha=min(v * 4, 1.0))
    return [
        shadow(0, 0, s),
        part(0, 0, s.size, body),
        mouth,
        coming("other", "grip", (-0.38 * s.size, 0.2 * s.size), hold),
        Layer("object", top[0], top[1], -28 * v, crop=lid),
        moving,
    ]


def fold(phase: float, s: Staging) -> list[Layer]:
    """The right half is laid over the left one."""
    u, v, away = smooth(phase, 0.02, 0.22), smooth(phase, 0.28, 0.74), smooth(phase, 0.78, 0.98)
    half = s.size / 2
    turned = cos(pi * v)
    width = max(abs(turned), 0.04)
    lift = -0.1 * s.vigour * sin(pi * v)
    flap = Layer("object", turned * half / 2, lift, stretch=(width, 1.0), crop=(0.5, 0.0, 1.0, 1.0))
    if turned < 0:
        flap = replace(flap, sprite="object:back")
    edge = (turned * half * 0.9, lift + 0.25 * s.size)
    return [
        shadow(0, 0, s),
        part(0, 0, s.size, (0.0, 0.0, 0.5, 1.0)),
        flap,
        coming("other", "flat", (-0.5 * s.size, 0.3 * s.size), engaged(phase)),
        coming("lead", "grip", edge, u - away),
    ]


def push(phase: float, s: Staging) -> list[Layer]:
    """The object slides away over the table, a hand behind it."""
    u, v, away = smooth(phase, 0.02, 0.22), smooth(phase, 0.26, 0.74), smooth(phase, 0.78, 0.98)
    x, y = -0.03 + 0.06 * v, 0.17 - 0.36 * s.vigour * v
    scale = 1.12 - 0.3 * v
    return [
        replace(shadow(x, y, s), scale=s.size / 0.3 * scale),
        Layer("object", x, y, scale=scale),
        coming("lead", "grip", (x + 0.1 * s.size, y + 0.42 * s.size * scale), u - away),
    ]


def insert(phase: float, s: Staging) -> list[Layer]:
    """The object is put into a crate and left there."""
    u, v, away = smooth(phase, 0.02, 0.2), smooth(phase, 0.24, 0.72), smooth(phase, 0.76, 0.96)
    start, over, inside = (0.27, 0.02), (-0.1, -0.27 * s.vigour), (-0.1, 0.02)
    x, y = between(start, over, v / 0.6) if v < 0.6 else between(over, inside, (v - 0.6) / 0.4)
    small = replace(s, size=s.size * 0.8)
    at = grip(x, y, small.size)
    return [
        Layer("crate_back", -0.1, 0.06),
        replace(shadow(*start, small), alpha=1 - min(v * 4, 1.0)),
        Layer("object", x, y, 0, 0.8),
        Layer("crate_front", -0.1, 0.06),
        coming("lead", "grip", at, u - away),
    ]


# ------------------------------------------------------------------------------------------- motions that are repeated


def wave(phase: float, s: Staging, start: float = 0.18, end: float = 0.84) -> float:
    """Angle of a repeated motion, in radians; it quickens, or frames a second apart could all show the same of it."""
    u = min(max((phase - start) / (end - start), 0.0), 1.0)
    return 2 * pi * s.strokes * (u + 0.35 * u * (u - 1))


def cut(phase: float, s: Staging) -> list[Layer]:
    """A knife goes up and down along the object, which falls into pieces."""
    at_work, angle = engaged(phase), wave(phase, s)
    done = smooth(phase, 0.18, 0.84)
    edge = 0.9 - 0.6 * done
    knife = ((edge - 0.5) * s.size, -0.14 * s.size + 0.055 * s.vigour * cos(angle))
    carried = between((REST[0], 0.75), knife, at_work)
    cuts = [0.0, *(x for x in (0.34, 0.46, 0.58, 0.7, 0.82) if x > edge), 1.0]
    slices = [shadow(0, 0, s)]
    for number, (left, right) in enumerate(zip(cuts, cuts[1:])):
        slices.append(part(0.026 * number, 0, s.size, (left, 0.0, right, 1.0), angle=-4.0 * number))
    return [
        *slices,
        coming("other", "flat", (-0.48 * s.size, 0.3 * s.size), at_work),
        Layer("knife", *carried, 0),
        coming("lead", "fist", (carried[0] + 0.14, carried[1] + 0.06), at_work),
    ]


def mix(phase: float, s: Staging) -> list[Layer]:
    """A spoon goes round in the object."""
    at_work, angle = engaged(phase), wave(phase, s)
    tip = (0.17 * s.size * s.vigour * cos(angle), -0.2 * s.size + 0.07 * s.size * s.vigour * sin(angle))
    spoon = between((REST[0], 0.75), (tip[0] + 0.07, tip[1] - 0.05), at_work)
    return [
        shadow(0, 0, s),
        Layer("object", 0.006 * cos(angle), 0),
        Layer("spoon", *spoon, -25 + 10 * cos(angle)),
        coming("other", "grip", (-0.42 * s.size, 0.18 * s.size), at_work),
        coming("lead", "fist", (spoon[0] + 0.09, spoon[1] - 0.02), at_work),
    ]


def wash(phase: float, s: Staging) -> list[Layer]:
    """Both hands rub the object under running water, in foam."""
    at_work, angle = engaged(phase), wave(phase, s)
    rub = 0.07 * s.vigour * cos(angle)
    foam = []
    for number in range(10):
        turn = number * 2.4 + 0.15 * angle
        grown = smooth(phase, 0.15 + 0.05 * number, 0.3 + 0.05 * number) * at_work
        radius = s.size * (0.25 + 0.045 * number)
        foam.append(Layer("bubble", radius * cos(turn), radius * 0.7 * sin(turn), 0, 0.6 + 0.09 * number, alpha=grown))
    return [
        shadow(0, 0, s),
        Layer("water", 0.02, -0.42, alpha=0.85 * at_work, stretch=(1.0 + 0.1 * sin(3 * angle), 1.0)),
        Layer("object", 0.25 * rub, 0.25 * rub, 30 * rub),
        *foam[:5],
        coming("other", "flat", (-0.3 * s.size - rub, 0.2 * s.size + rub), at_work),
        coming("lead", "flat", (0.3 * s.size - rub, 0.2 * s.size - rub), at_work),
        *foam[5:],
    ]


def pour(phase: float, s: Staging) -> list[Layer]:
    """The object is lifted, tilted over a basin, and something runs out of it."""
    u, away = smooth(phase, 0.02, 0.14), smooth(phase, 0.88, 1.0)
    up = smooth(phase, 0.14, 0.28) - smooth(phase, 0.74, 0.88)
    tilt = smooth(phase, 0.24, 0.38) - smooth(phase, 0.66, 0.78)
    x, y = 0.2 - 0.06 * up, 0.02 - 0.3 * up
    radius = 0.42 * s.size
    lip = (x - radius * sin(1.75 * tilt), y - radius * cos(1.75 * tilt))
    drops = []
    for number in range(9):
        fall = (number / 9 + 3 * phase) % 1
        drops.append(Layer("drop", lip[0], lip[1] + (0.16 - lip[1]) * fall, alpha=1.0 if tilt > 0.8 else 0.0))
    filled = smooth(phase, 0.36, 0.7)
    return [
        Layer("basin", -0.17, 0.2),
        Layer("fill", -0.17, 0.155, stretch=(0.4 + 0.6 * filled, 0.4 + 0.6 * filled), alpha=min(1.0, 5 * filled)),
        shadow(x, 0.02, s, height=0.4 * up),
        *drops,
        Layer("object", x, y, 100 * tilt),
        coming("lead", "grip", (x + 0.24 * s.size, y + 0.12 * s.size), u - away),
    ]


def wipe(phase: float, s: Staging) -> list[Layer]:
    """A sponge goes to and fro over the object."""
    at_work, angle = engaged(phase), wave(phase, s)
    at = (0.5 * s.size * s.vigour * sin(angle), 0.05 * s.size + 0.05 * cos(2 * angle))
    sponge = between((REST[0], REST[1] - 0.08), at, at_work)
    return [
        shadow(0, 0, s),
        Layer("object", 0, 0),
        Layer("sponge", *sponge, 12 * sin(angle)),
        coming("other", "grip", (-0.42 * s.size, 0.3 * s.size), at_work),
        coming("lead", "flat", (sponge[0] + 0.02, sponge[1] + 0.11), at_work),
    ]


def hit(phase: float, s: Staging) -> list[Layer]:
    """A fist comes down on the object, again and again."""
    at_work, angle = engaged(phase), wave(phase, s)
    height = (0.5 - 0.5 * cos(angle)) ** 1.6
    squash = 1 - 0.16 * max(0.0, 1 - 5 * height) * (0.18 < phase < 0.84)
    fist = (0.04, -0.3 * s.size - 0.3 * s.vigour * height)
    return [
        shadow(0, 0, s),
        Layer("object", 0, (1 - squash) * 0.4 * s.size, stretch=(2 - squash, squash)),
        coming("lead", "fist", fist, at_work),
    ]


def press(phase: float, s: Staging) -> list[Layer]:
    """A fist comes down on the object once, and stays."""
    u = smooth(phase, 0.08, 0.3) - smooth(phase, 0.84, 1.0)
    down = smooth(phase, 0.28, 0.5) - smooth(phase, 0.7, 0.84)
    squash = 1 - 0.22 * down
    return [
        shadow(0, 0, s),
        Layer("object", 0, (1 - squash) * 0.4 * s.size, stretch=(2 - squash, squash)),
        coming("lead", "fist", (0.04, -0.3 * s.size - 0.1 + (0.1 + 0.18 * s.size) * down), u),
    ]


def shake(phase: float, s: Staging) -> list[Layer]:
    """The object is held up and shaken."""
    u, away = smooth(phase, 0.02, 0.14), smooth(phase, 0.9, 1.0)
    up = smooth(phase, 0.14, 0.26) - smooth(phase, 0.78, 0.9)
    angle = wave(phase, s, 0.24, 0.8) * 1.5
    x, y = 0.11 * s.vigour * sin(angle) * up, -0.16 * up
    at = grip(x, y, s.size)
    return [
        shadow(x, 0, s, height=0.4 * up),
        Layer("object", x, y, 22 * sin(angle) * up),
        coming("lead", "grip", at, u - away),
    ]


def turn(phase: float, s: Staging) -> list[Layer]:
    """Both hands turn the object on the spot, half round."""
    at_work, v = engaged(phase), smooth(phase, 0.2, 0.82)
    angle = 180 * v
    wrist = (v - 0.5) * 1.3
    reach = 0.46 * s.size
    return [
        shadow(0, 0, s),
        Layer("object", 0, 0, angle),
        coming("other", "grip", (-reach * cos(wrist), 0.1 * s.size + reach * sin(wrist)), at_work, -20 * wrist),
        coming("lead", "grip", (reach * cos(wrist), 0.1 * s.size - reach * sin(wrist)), at_work, 20 * wrist),
    ]


@dataclass(frozen=True)
class MadeUpMotion:
    """A motion that has no name: the object is led along a curve of two frequencies and turned as it goes."""

    frequency: tuple[int, int]
    delay: float
    swing: float

    def __call__(self, phase: float, s: Staging) -> list[Layer]:
        u, away = smooth(phase, 0.02, 0.14), smooth(phase, 0.88, 1.0)
        up = smooth(phase, 0.14, 0.26) - smooth(phase, 0.76, 0.88)
        time = 2 * pi * min(max((phase - 0.2) / 0.62, 0.0), 1.0)
        x = 0.2 * s.vigour * sin(self.frequency[0] * time) * up
        y = (0.16 * s.vigour * sin(self.frequency[1] * time + self.delay) - 0.08) * up
        return [
            shadow(x, 0.1 * up, s, height=0.3 * up),
            Layer("object", x, y, self.swing * sin(self.frequency[1] * time) * up),
            coming("lead", "grip", grip(x, y, s.size), u - away),
        ]


@dataclass(frozen=True)
class BackwardsMotion:
    """Another motion, played backwards."""

    motion: Motion

    def __call__(self, phase: float, s: Staging) -> list[Layer]:
        return self.motion(1 - phase, s)


def mirrored(layers: list[Layer], side: int) -> list[Layer]:
    """With "lead" and "other" made "right" and "left", or the other way round with everything mirrored."""
    names = ("right", "left") if side > 0 else ("left", "right")
    result = []
    for layer in layers:
        sprite = layer.sprite.replace(":lead:", f":{names[0]}:").replace(":other:", f":{names[1]}:")
        if side < 0:
            if sprite.startswith("object"):
                # The object itself is not mirrored, only where it is and what is done to it.
                x0, y0, x1, y1 = layer.crop
                layer = replace(layer, crop=(1 - x1, y0, 1 - x0, y1))
            layer = replace(layer, x=-layer.x, angle=-layer.angle)
        result.append(replace(layer, sprite=sprite))
    return result


def stage(motion: Motion, phase: float, staging: Staging) -> list[Layer]:
    """What an action looks like at a phase from 0 to 1, the furthest first."""
    return mirrored(motion(min(max(phase, 0.0), 1.0), staging), staging.side)

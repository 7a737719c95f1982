"""The room: a wide canvas with a wall, tables side by side and things that lie about."""

import numpy as np
from PIL import Image, ImageDraw

from .drawing import shade_of
from .objects import draw_object, draw_tool
from .script import FOCUS, STATION_STEP, STATIONS, VideoScript
from .world import World


CANVAS_WIDTH = 2 * FOCUS[0] + STATION_STEP * (STATIONS - 1)
CANVAS_HEIGHT = 1.5
HORIZON = 0.46

_SURFACES = {
    "table": ("wood", (168, 122, 76)),
    "counter": ("stone", (190, 186, 180)),
    "workbench": ("wood", (136, 104, 72)),
    "desk": ("plain", (206, 200, 188)),
    "shelf": ("wood", (198, 162, 116)),
    "floor": ("tiles", (176, 168, 156)),
    "mat": ("weave", (118, 130, 104)),
    "board": ("wood", (214, 178, 128)),
}


def paint_scenery(world: World, script: VideoScript) -> Image.Image:
    """The canvas of a video without hands and the objects they handle, RGB, in the world's `scale`."""
    view = world.config.scale
    rng = np.random.default_rng([world.config.seed, script.number, 2**30])
    canvas = Image.new("RGB", (round(CANVAS_WIDTH * view), round(CANVAS_HEIGHT * view)))
    _paint_wall(canvas, view, rng)
    edges = [0.0] + [FOCUS[0] + STATION_STEP * (k + 0.5) for k in range(STATIONS - 1)] + [CANVAS_WIDTH]
    for station, place in enumerate(script.places):
        _paint_surface(canvas, view, rng, place, edges[station], edges[station + 1])
    for station in range(STATIONS):
        _lay_out(canvas, world, rng, station)
    light = rng.uniform(0.9, 1.06, 3)
    gradient = np.linspace(float(rng.uniform(0.86, 1.04)), float(rng.uniform(0.86, 1.04)), canvas.width)
    pixels = np.asarray(canvas) * light * gradient[None, :, None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _noise(rng, width, height, across, down, amount):
    """Soft noise of shape (height, width), finer with more cells `across` and `down`."""
    cells = rng.integers(-100, 101, (max(2, down), max(2, across))).astype(np.float32)
    smooth = Image.fromarray(cells).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(smooth) * (amount / 100)


def _paint_wall(canvas, view, rng):
    height = round(HORIZON * view)
    colours = ((222, 216, 202), (196, 208, 212), (212, 200, 186), (178, 190, 174), (206, 206, 210))
    colour = colours[int(rng.integers(len(colours)))]
    wall = np.full((height, canvas.width, 3), colour, np.float32)
    wall += _noise(rng, canvas.width, height, 24, 4, 7)[..., None]
    canvas.paste(Image.fromarray(np.clip(wall, 0, 255).astype(np.uint8)), (0, 0))
    draw = ImageDraw.Draw(canvas)
    if rng.random() < 0.5:
        step = max(4, round(0.11 * view))
        for x in range(0, canvas.width, step):
            draw.line((x, 0, x, height), fill=shade_of(colour, 0.88))
        for y in range(height, 0, -step):
            draw.line((0, y, canvas.width, y), fill=shade_of(colour, 0.88))
    for _ in range(7):
        x, width = int(rng.integers(canvas.width)), round(float(rng.uniform(0.15, 0.5)) * view)
        kind = tuple(int(channel) for channel in rng.integers(60, 220, 3))
        top = round(float(rng.uniform(0.0, 0.25)) * view)
        bottom = height - round(float(rng.uniform(0.02, 0.12)) * view)
        draw.rectangle((x, top, x + width, bottom), fill=kind, outline=shade_of(kind, 0.6))
        if rng.random() < 0.6:
            draw.rectangle((x + width // 2, top, x + width // 2 + 1, bottom), fill=shade_of(kind, 0.6))


def _paint_surface(canvas, view, rng, place, left, right):
    kind, colour = _SURFACES[place]
    colour = np.clip(np.array(colour) * rng.uniform(0.85, 1.12) + rng.uniform(-10, 10, 3), 20, 245)
    x0, x1, y0 = round(left * view), round(right * view), round(HORIZON * view)
    width, height = x1 - x0, canvas.height - y0
    surface = np.empty((height, width, 3), np.float32)
    surface[:] = colour
    if kind == "wood":
        grain = _noise(rng, width, height, 5, 70, 15) + _noise(rng, width, height, 3, 24, 9)
        surface += grain[..., None]
        boards = max(4, height // 5)
        surface[::boards] *= 0.72
    elif kind == "stone":
        surface += _noise(rng, width, height, width // 2, height // 2, 24)[..., None]
    elif kind == "weave":
        y, x = np.mgrid[:height, :width]
        cell = max(2, view // 40)
        surface += np.where((x // cell + y // cell) % 2, 9.0, -9.0)[..., None]
    else:
        surface += _noise(rng, width, height, 9, 9, 6)[..., None]
    surface *= np.linspace(0.86, 1.05, height)[:, None, None]
    image = Image.fromarray(np.clip(surface, 0, 255).astype(np.uint8))
    if kind == "tiles":
        draw = ImageDraw.Draw(image)
        dark = tuple(int(channel * 0.72) for channel in colour)
        for k in range(-8, 9):
            draw.line((width / 2 + k * 0.16 * view, 0, width / 2 + k * 0.42 * view, height), fill=dark)
        for k in range(1, 7):
            y = height * (k / 7) ** 1.5
            draw.line((0, y, width, y), fill=dark)
    canvas.paste(image, (x0, y0))
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((x0, y0 - max(1, view // 80), x1, y0), fill=tuple(int(channel * 0.55) for channel in colour))
    if right < CANVAS_WIDTH:
        draw.rectangle((x1 - max(1, view // 90), y0, x1, canvas.height), fill=tuple(int(c * 0.5) for c in colour))


def _lay_out(canvas, world, rng, station):
    """Things that nobody touches, at the far side of the table and beside the spot where hands work."""
    view = world.config.scale
    fewest, most = world.config.num_distractors
    spots = (
        (-0.4, -0.27),
        (-0.14, -0.3),
        (0.14, -0.3),
        (0.4, -0.27),
        (-0.43, 0.0),
        (0.44, 0.02),
        (-0.42, 0.27),
        (0.43, 0.27),
    )
    taken = [spots[index] for index in rng.permutation(len(spots))[: int(rng.integers(fewest, most + 1))]]
    for dx, dy in sorted(taken, key=lambda spot: spot[1]):
        noun = int(rng.integers(len(world.nouns)))
        looks = world.looks[noun]
        look = looks[int(rng.integers(len(looks)))]
        size = world.nouns[noun].size * look.size * (0.62 if dy < -0.1 else 0.85)
        pixels = max(4, round(size * view))
        sprite = draw_object(world.nouns[noun], look, 2 * pixels).resize((pixels, pixels), Image.Resampling.BOX)
        gap = pixels - sprite.getchannel("A").getbbox()[3]
        sprite = sprite.rotate(float(rng.integers(-12, 13)), Image.Resampling.BILINEAR)
        x = round((FOCUS[0] + STATION_STEP * station + dx + float(rng.uniform(-0.03, 0.03))) * view)
        y = round((FOCUS[1] + dy) * view)
        shadow = draw_tool("shadow", max(8, round(view * size / 0.3)))
        canvas.paste(shadow, (x - shadow.width // 2, y + round(0.42 * pixels) - gap - shadow.height // 2), shadow)
        canvas.paste(sprite, (x - pixels // 2, y - pixels // 2), sprite)

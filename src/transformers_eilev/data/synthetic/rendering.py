"""From a script to frames: layers pasted on the canvas, seen by a moving camera."""

from functools import lru_cache
from math import ceil, cos, radians, sin

import numpy as np
from PIL import Image

from .actions import WHOLE, Layer, smooth, stage
from .objects import HAND_SIZE, draw_hand, draw_object, draw_tool
from .scenery import paint_scenery
from .script import FOCUS, STATION_STEP, ActionScript, VideoScript
from .world import World


# Sprites are drawn so much larger than they are shown, and turned in steps of so many degrees.
OVERSAMPLING = 2
ANGLE_STEP = 3
# The camera looks a little above the spot where hands work.
GAZE_UP = 0.08
# From closer by, it looks further down, at hands and object rather than at the wall: at most so much.
MOST_DOWN = 0.125


class Renderer:
    """Draws the frames of one video, in any order; a frame depends on the world, the script and its number alone.

    Args:
        world (`World`): what things look like.
        script (`VideoScript`): what happens.
    """

    def __init__(self, world: World, script: VideoScript):
        self.world = world
        self.script = script
        self.view = world.config.image_size
        self.scale = world.config.scale
        # What a length is magnified by, the whole pixels of the canvas considered.
        self._closeness = self.scale / self.view
        self._gaze_up = GAZE_UP - min((1 - 1 / self._closeness) / 3, MOST_DOWN)
        self._scenery = None
        self._starts = [action.start_sec for action in script.actions]
        # A cache for each video: skins and sleeves differ.
        self._placed = lru_cache(maxsize=3000)(self._place)
        self._drawn = lru_cache(maxsize=300)(self._draw)

    def frame(self, number: int) -> np.ndarray:
        """Frame `number`, uint8, of shape (image_size, image_size, 3), RGB; black where it is redacted."""
        time = number / self.world.config.fps
        if self.script.is_redacted(time):
            return np.zeros((self.view, self.view, 3), np.uint8)
        layers = [
            (action, layer) for action in self._visible(time) for layer in self.layers(action, action.phase(time))
        ]
        return self.compose(layers, self.camera(time))

    def layers(self, action: ActionScript, phase: float) -> list[Layer]:
        """The layers of an action at a phase from 0 to 1, relative to where it takes place."""
        return stage(self.world.verbs[action.verb].motion, phase, action.staging)

    def camera(self, time: float) -> tuple[float, float, float, float]:
        """Centre of the view on the canvas in widths of the view, roll in degrees, zoom."""
        shift_x, shift_y, roll, zoom = self.script.camera.sway(time)
        before, after = self._neighbours(time)
        x, y = FOCUS[0] + STATION_STEP * (after or before).station, FOCUS[1]
        if before and after:
            u = smooth(time, before.end_sec, after.start_sec)
            x = FOCUS[0] + STATION_STEP * (before.station + (after.station - before.station) * u)
            y -= 0.05 * 4 * u * (1 - u)
        return x + shift_x, y - self._gaze_up + shift_y, roll, 1 + zoom

    def still_camera(self, action: ActionScript) -> tuple[float, float, float, float]:
        """The view of an action from a camera that does not move."""
        return FOCUS[0] + STATION_STEP * action.station, FOCUS[1] - self._gaze_up, 0.0, 1.0

    def compose(self, layers, camera) -> np.ndarray:
        """Pastes layers of actions on the canvas and looks at it: uint8, of shape (image_size, image_size, 3)."""
        if self._scenery is None:
            self._scenery = paint_scenery(self.world, self.script)
        x, y, roll, zoom = camera
        c, s = cos(radians(roll)) / zoom, sin(radians(roll)) / zoom
        half = ceil(self.view * 0.5 * (abs(c) + abs(s))) + 2
        left, top = round(x * self.scale) - half, round(y * self.scale) - half
        region = self._scenery.crop((left, top, left + 2 * half, top + 2 * half))
        for action, layer in layers:
            self._paste(region, action, layer, left, top)
        centre_x, centre_y = x * self.scale - left, y * self.scale - top
        middle = self.view / 2
        transform = (c, s, centre_x - c * middle - s * middle, -s, c, centre_y + s * middle - c * middle)
        image = region.transform((self.view, self.view), Image.Transform.AFFINE, transform, Image.Resampling.BILINEAR)
        return np.asarray(image)

    def box(self, action: ActionScript, layer: Layer, time: float) -> dict[str, float] | None:
        """Where a layer shows in the frame at `time`, in pixels as {x, y, width, height}; None if out of view."""
        x, y, _, zoom = self.camera(time)
        zoom *= self._closeness
        size = action.staging.size if layer.sprite.startswith("object") else 0.26
        width = size * layer.scale * layer.stretch[0] * (layer.crop[2] - layer.crop[0]) * zoom
        height = size * layer.scale * layer.stretch[1] * (layer.crop[3] - layer.crop[1]) * zoom
        centre_x, centre_y = (action.at[0] + layer.x - x) * zoom + 0.5, (action.at[1] + layer.y - y) * zoom + 0.5
        x0, x1 = max(0.0, centre_x - width / 2), min(1.0, centre_x + width / 2)
        y0, y1 = max(0.0, centre_y - height / 2), min(1.0, centre_y + height / 2)
        if x1 <= x0 or y1 <= y0:
            return None
        values = {"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0}
        return {name: round(value * self.view, 2) for name, value in values.items()}

    def _neighbours(self, time):
        """The action going on or last seen, and the next one; one and the same while it goes on."""
        before = after = None
        for action in self.script.actions:
            if action.start_sec <= time:
                before = action
            if action.end_sec >= time:
                after = action
                break
        return before, after

    def _visible(self, time):
        before, after = self._neighbours(time)
        if before is after:
            return [before]
        return [action for action in (before, after) if action is not None]

    # ------------------------------------------------------------------------------------------------------ sprites

    def _paste(self, region, action, layer, left, top):
        if layer.alpha <= 0.02:
            return
        placed = self._placed(
            layer.sprite,
            action.noun if layer.sprite.startswith("object") else -1,
            action.look if layer.sprite.startswith("object") else -1,
            action.staging.size if layer.sprite.startswith("object") else 0.0,
            round(layer.angle / ANGLE_STEP) * ANGLE_STEP,
            round(layer.scale * 40) / 40,
            (round(layer.stretch[0] * 24) / 24, round(layer.stretch[1] * 24) / 24),
            tuple(round(edge * 32) / 32 for edge in layer.crop),
            round(layer.alpha * 10) / 10,
        )
        if placed is None:
            return
        sprite, dx, dy = placed
        x = round((action.at[0] + layer.x) * self.scale) - left + dx
        y = round((action.at[1] + layer.y) * self.scale) - top + dy
        if layer.sprite == "shadow":
            y -= round(self._gap(action) * self.scale)
        if x < region.width and y < region.height and x + sprite.width > 0 and y + sprite.height > 0:
            region.paste(sprite, (x, y), sprite)

    def _gap(self, action):
        """How far above the lower edge of its sprite an object ends, in widths of the view: its shadow is there."""
        image = self._drawn("object", action.noun, action.look, action.staging.size)
        return (1 - image.getchannel("A").getbbox()[3] / image.height) * action.staging.size

    def _draw(self, name, noun, look, size):
        """A sprite as drawn: oversampled, but for hands, which are always as large as they are drawn."""
        if name.startswith("object"):
            pixels = max(8, round(size * self.scale) * OVERSAMPLING)
            image = draw_object(self.world.nouns[noun], self.world.looks[noun][look], pixels)
            return _underside(image) if name == "object:back" else image
        if name.startswith("hand:"):
            _, which, pose = name.split(":")
            pixels = round(HAND_SIZE * self.scale * OVERSAMPLING)
            image = draw_hand(pose, self.script.skin, self.script.sleeve, pixels)
            image = image.resize((pixels // OVERSAMPLING,) * 2, Image.Resampling.BOX)
            return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if which == "left" else image
        return draw_tool(name, self.scale * OVERSAMPLING)

    def _place(self, name, noun, look, size, angle, scale, stretch, crop, alpha):
        """A sprite as it is pasted, and its upper left corner relative to its centre; None if nothing is left."""
        image = self._drawn(name, noun, look, size)
        if crop != WHOLE:
            x0, y0, x1, y1 = (round(edge * image.width) for edge in crop)
            if x1 <= x0 or y1 <= y0:
                return None
            image = image.crop((x0, y0, x1, y1))
        if not name.startswith("hand:"):
            width = max(1, round(image.width * scale * stretch[0] / OVERSAMPLING))
            height = max(1, round(image.height * scale * stretch[1] / OVERSAMPLING))
            image = image.resize((width, height), Image.Resampling.BOX)
        if angle % 360:
            image = image.rotate(angle, Image.Resampling.BICUBIC, expand=True)
        if alpha < 1:
            image.putalpha(image.getchannel("A").point(lambda value: int(value * alpha)))
        bounds = image.getchannel("A").getbbox()
        if bounds is None:
            return None
        return image.crop(bounds), bounds[0] - image.width // 2, bounds[1] - image.height // 2


def _underside(image: Image.Image) -> Image.Image:
    """The back of a sheet: paler, mirrored."""
    pixels = np.asarray(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)).copy()
    pixels[..., :3] = pixels[..., :3] // 2 + 96
    return Image.fromarray(pixels)

"""Drawing sprites: a pen on the unit square, patterns, a little light."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter


Colour = tuple[int, int, int]


def shade_of(colour: Colour, factor: float) -> Colour:
    """The colour made darker (factor below 1) or lighter (above 1)."""
    if factor <= 1:
        return tuple(int(channel * factor) for channel in colour)
    return tuple(int(channel + (255 - channel) * (factor - 1)) for channel in colour)


class Pen:
    """Draws on a square sprite, its coordinates from 0 to 1, y down.

    Args:
        size (`int`): side of the sprite in pixels.
    """

    def __init__(self, size: int):
        self.size = size
        self.image = Image.new("RGBA", (size, size), (0, 0, 0, 0))
        self.draw = ImageDraw.Draw(self.image)

    def _scaled(self, points):
        return [(x * self.size, y * self.size) for x, y in points]

    def ellipse(self, x0, y0, x1, y1, fill):
        self.draw.ellipse(sum(self._scaled([(x0, y0), (x1, y1)]), ()), fill=fill)

    def box(self, x0, y0, x1, y1, fill, radius=0.0):
        self.draw.rounded_rectangle(sum(self._scaled([(x0, y0), (x1, y1)]), ()), radius=radius * self.size, fill=fill)

    def polygon(self, points, fill):
        self.draw.polygon(self._scaled(points), fill=fill)

    def line(self, points, fill, width):
        """A line with round joints and ends; width in sides of the sprite."""
        points = self._scaled(points)
        pixels = max(1, round(width * self.size))
        self.draw.line(points, fill=fill, width=pixels, joint="curve")
        radius = pixels / 2
        if radius > 1:
            for x, y in (points[0], points[-1]):
                self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)

    def arc(self, x0, y0, x1, y1, start, end, fill, width):
        self.draw.arc(
            sum(self._scaled([(x0, y0), (x1, y1)]), ()), start, end, fill=fill, width=max(1, round(width * self.size))
        )

    def pattern(self, kind: str, colour: Colour, repeats: float = 7.0) -> None:
        """Lays a pattern over all that is drawn so far."""
        if kind == "plain":
            return
        axis = np.arange(self.size) / self.size * repeats
        x, y = axis[None, :], axis[:, None]
        if kind == "stripes":
            mask = (x + 0 * y) % 1 < 0.42
        elif kind == "bands":
            mask = (y + 0 * x) % 1.4 < 0.6
        elif kind == "checks":
            mask = (np.floor(x) + np.floor(y)) % 2 < 1
        elif kind == "dots":
            shifted = x + 0.5 * (np.floor(y) % 2)
            mask = (shifted % 1 - 0.5) ** 2 + (y % 1 - 0.5) ** 2 < 0.085
        else:
            raise ValueError(f"kind must be plain, stripes, bands, checks or dots, got {kind!r}")
        pixels = np.asarray(self.image).copy()
        where = mask & (pixels[..., 3] > 0)
        pixels[where, :3] = colour
        self._replace(pixels)

    def _replace(self, pixels: np.ndarray) -> None:
        self.image = Image.fromarray(pixels)
        self.draw = ImageDraw.Draw(self.image)

    def finish(self, *, relief: float = 1.0, softness: float = 0.045) -> Image.Image:
        """The sprite, lit from the upper left as if it bulged."""
        alpha = self.image.getchannel("A")
        height = alpha.filter(ImageFilter.GaussianBlur(max(1.0, softness * self.size)))
        height = np.asarray(height).astype(np.int32)
        light = np.zeros_like(height)
        light[:, 1:-1] += height[:, 2:] - height[:, :-2]
        light[1:-1] += height[2:] - height[:-2]
        reach = max(1.0, softness * self.size)
        gain = np.clip(light * (relief * reach / 255 * 0.55), -0.55, 0.4)
        pixels = np.asarray(self.image).copy()
        pixels[..., :3] = np.clip(pixels[..., :3] * (1 + gain[..., None]), 0, 255)
        return Image.fromarray(pixels)


def ellipse_sprite(width: int, height: int, colour: Colour, alpha: int, blur: float = 0.0) -> Image.Image:
    """An ellipse that fills a sprite but for its blur."""
    margin = round(2 * blur)
    mask = Image.new("L", (width + 2 * margin, height + 2 * margin), 0)
    ImageDraw.Draw(mask).ellipse((margin, margin, margin + width, margin + height), fill=alpha)
    if blur:
        mask = mask.filter(ImageFilter.GaussianBlur(blur))
    sprite = Image.new("RGBA", mask.size, colour + (0,))
    sprite.putalpha(mask)
    return sprite

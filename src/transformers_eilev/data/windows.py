"""Where the clip of a narrated action lies in its video."""

import math
from fractions import Fraction
from numbers import Rational, Real


def place_window(
    narration_timestamp_sec: float | Fraction, duration: float | Fraction, clip_duration: float | Fraction = 8
) -> tuple[Fraction, Fraction]:
    """Centres a window on the narration and moves it into the video, at its beginning first and then at its end.

    In exact fractions: where a bound falls on a frame, rounding would decide whether that frame belongs to the clip.

    Args:
        narration_timestamp_sec (`float`): seconds from the video's first frame. Beyond either end of the video it
            gives the window at that end.
        duration (`float`): the video's length in seconds.
        clip_duration (`float`, defaults to 8): the window's length in seconds.

    Returns:
        `tuple[Fraction, Fraction]`: start and end in seconds; the end is no longer part of the window. Of a video
        shorter than `clip_duration` the window ends with the video and starts before it, at a negative time.

    Raises:
        TypeError, ValueError: a value that is no finite number, or a length that is not positive, by name.
    """
    timestamp = _exact("narration_timestamp_sec", narration_timestamp_sec)
    duration = _exact("duration", duration)
    clip_duration = _exact("clip_duration", clip_duration)
    if duration <= 0:
        raise ValueError(f"duration must be positive, got {float(duration)!r}")
    if clip_duration <= 0:
        raise ValueError(f"clip_duration must be positive, got {float(clip_duration)!r}")
    start = max(Fraction(0), timestamp - clip_duration / 2)
    end = start + clip_duration
    if end > duration:
        start, end = duration - clip_duration, duration
    return start, end


def _exact(name: str, value) -> Fraction:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not isinstance(value, Rational) and not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value!r}")
    return Fraction(value) if isinstance(value, Rational) else Fraction(float(value))


__all__ = ["place_window"]

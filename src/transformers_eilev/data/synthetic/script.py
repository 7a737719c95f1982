"""Planning a video before a pixel is drawn: which actions, where, when and how, and what the camera does."""

import uuid
from dataclasses import dataclass
from math import ceil, pi, sin

import numpy as np

from .actions import Staging
from .config import SyntheticConfig
from .world import PALETTE, World


STATIONS = 4
STATION_STEP = 1.15
FOCUS = (0.9, 0.86)
PLACES = ("table", "counter", "workbench", "desk", "shelf", "floor", "mat", "board")
# How long the camera takes from one action to the next, in seconds.
GLANCE_SEC = 0.6
_BLANK_STREAM = 2**30 + 6
SKINS = ((236, 196, 168), (222, 172, 138), (186, 132, 98), (142, 96, 68), (96, 64, 48))


@dataclass(frozen=True)
class ActionScript:
    """One action.

    Attributes:
        index (`int`): among all the actions of the video.
        verb, noun, look (`int`): indices in the world.
        station (`int`): at which of the places it happens.
        at (`tuple[float, float]`): centre of the action on the canvas, in widths of the view.
        staging (`Staging`): how it is carried out.
        start_sec, end_sec (`float`): when hands move.
        pnr_sec (`float`): the point of no return.
        narration_sec (`float`): when the narrator spoke, near the point of no return.
    """

    index: int
    verb: int
    noun: int
    look: int
    station: int
    at: tuple[float, float]
    staging: Staging
    start_sec: float
    end_sec: float
    pnr_sec: float
    narration_sec: float

    def phase(self, time: float) -> float:
        return min(max((time - self.start_sec) / (self.end_sec - self.start_sec), 0.0), 1.0)


@dataclass(frozen=True)
class Camera:
    """Smooth wandering and trembling of the head, as sums of sines of (frequency in Hz, delay, size)."""

    waves: tuple[tuple[tuple[float, float, float], ...], ...]

    def sway(self, time: float) -> tuple[float, float, float, float]:
        """Shift in x and y in widths of the view, roll in degrees, zoom."""
        return tuple(
            sum(size * sin(2 * pi * rate * time + delay) for rate, delay, size in axis) for axis in self.waves
        )


@dataclass(frozen=True)
class VideoScript:
    """A whole video: `number` is its place in the set, `uid` its name."""

    number: int
    uid: str
    missing: bool
    participant: int
    skin: tuple[int, int, int]
    sleeve: tuple[int, int, int]
    places: tuple[str, ...]
    camera: Camera
    actions: tuple[ActionScript, ...]
    redacted_sec: tuple[tuple[float, float], ...]

    def is_redacted(self, time: float) -> bool:
        return any(start <= time < end for start, end in self.redacted_sec)


def write_script(world: World, number: int) -> VideoScript:
    """The script of video `number`, from (seed, number) alone."""
    config = world.config
    rng = np.random.default_rng([config.seed, number, 0])
    uid = str(uuid.UUID(bytes=rng.bytes(16), version=4))
    places = tuple(PLACES[index] for index in rng.permutation(len(PLACES))[:STATIONS])
    skin = SKINS[int(rng.integers(len(SKINS)))]
    sleeve = list(PALETTE.values())[int(rng.integers(len(PALETTE)))]
    participant = int(rng.integers(1, 38))
    camera = _draw_camera(rng)
    actions, redacted = _draw_actions(world, number)
    missing = number in missing_videos(config)
    return VideoScript(number, uid, missing, participant, skin, sleeve, places, camera, actions, redacted)


def missing_videos(config: SyntheticConfig) -> frozenset[int]:
    """Numbers of the videos that are annotated and not on disk, spread over the set."""
    total = config.num_videos + config.num_missing
    if not config.num_missing:
        return frozenset()
    step = total / config.num_missing
    places = (min(total - 1, int(step * (index + 0.5))) for index in range(config.num_missing))
    return frozenset(config.first_video + place for place in places)


def _draw_camera(rng: np.random.Generator) -> Camera:
    rates = ((0.11, 0.31, 1.7), (0.13, 0.37, 1.9), (0.09, 0.41, 1.3), (0.07, 0.19, 0.53))
    sizes = ((0.022, 0.014, 0.004), (0.018, 0.012, 0.005), (1.6, 1.1, 0.3), (0.025, 0.015, 0.005))
    return Camera(
        tuple(
            tuple(
                (
                    rate * float(rng.uniform(0.8, 1.25)),
                    float(rng.uniform(0, 6.283)),
                    size * float(rng.uniform(0.6, 1.2)),
                )
                for rate, size in zip(axis_rates, axis_sizes)
            )
            for axis_rates, axis_sizes in zip(rates, sizes)
        )
    )


def _draw_actions(world: World, number: int) -> tuple[tuple[ActionScript, ...], tuple[tuple[float, float], ...]]:
    """Actions one after the other until the video is full, now and then a blank stretch between two of them."""
    config = world.config
    weights = world.pair_weights.ravel()
    actions, redacted = [], []
    # Blank time that is due; videos do not all begin to owe it at once.
    due = config.action_sec * float(np.random.default_rng([config.seed, number, _BLANK_STREAM]).random())
    time, station = 0.3, -1
    while True:
        # One generator for each action: how one is carried out depends on no other.
        rng = np.random.default_rng([config.seed, number, len(actions) + 1])
        length = config.action_sec * float(rng.uniform(0.84, 1.16))
        if time + length > config.duration_sec:
            return tuple(actions), tuple(redacted)
        pair = int(rng.choice(weights.size, p=weights))
        verb, noun = divmod(pair, len(world.nouns))
        steps = [place for place in range(STATIONS) if place != station]
        near = np.array([1.0 if abs(place - station) == 1 else 0.35 for place in steps])
        station = steps[int(rng.choice(len(steps), p=near / near.sum()))]
        actions.append(_draw_action(world, rng, len(actions), verb, noun, station, time, time + length - GLANCE_SEC))
        time += length
        stretch = float(rng.uniform(0.5, 1.5)) * config.action_sec
        due += length * config.redacted_share / (1 - config.redacted_share)
        if config.redacted_share and due >= stretch and time + stretch + 1 < config.duration_sec:
            # From one frame to another, exactly.
            first, count = ceil(time * config.fps), max(1, round(stretch * config.fps))
            redacted.append((first / config.fps, (first + count) / config.fps))
            time = redacted[-1][1]
            due -= stretch


def _draw_action(world, rng, index, verb, noun, station, start, end) -> ActionScript:
    look = int(rng.integers(len(world.looks[noun])))
    size = 1.2 * world.nouns[noun].size * world.looks[noun][look].size * float(rng.uniform(0.94, 1.06))
    staging = Staging(
        size=round(size, 4),
        side=1 if rng.random() < 0.72 else -1,
        strokes=int(rng.integers(3, 6)),
        vigour=round(float(rng.uniform(0.85, 1.15)), 3),
    )
    x, y = float(rng.uniform(-0.05, 0.05)), float(rng.uniform(-0.05, 0.04))
    at = (round(FOCUS[0] + STATION_STEP * station + x, 4), round(FOCUS[1] + y, 4))
    pnr = start + world.verbs[verb].pnr * (end - start)
    middle = (start + end) / 2
    # Narrators are a little early or late.
    spoken = 0.5 * (pnr + middle) + min(max(0.25 * float(rng.standard_normal()), -0.6), 0.6)
    return ActionScript(
        index=index,
        verb=verb,
        noun=noun,
        look=look,
        station=station,
        at=at,
        staging=staging,
        start_sec=round(start, 4),
        end_sec=round(end, 4),
        pnr_sec=round(pnr, 4),
        narration_sec=round(min(max(spoken, 0.0), world.config.duration_sec), 7),
    )

"""The set in the folders and tables of EPIC-KITCHENS-100; every fifth video is one of the older EPIC-KITCHENS-55."""

from pathlib import Path

import numpy as np

from .files import write_csv
from .narration import choose_words, narrate
from .script import VideoScript
from .world import World


NUM_PARTICIPANTS = 37
HEADER = (
    *("narration_id", "participant_id", "video_id", "narration_timestamp", "start_timestamp", "stop_timestamp"),
    *("start_frame", "stop_frame", "narration", "verb", "verb_class", "noun", "noun_class"),
    *("all_nouns", "all_noun_classes"),
)
_STAMP_STREAM = 2**30 + 5


def participant_id(script: VideoScript) -> str:
    """Whose kitchen a video is from, such as "P01"."""
    return f"P{script.number % NUM_PARTICIPANTS + 1:02d}"


def is_older(script: VideoScript) -> bool:
    """Whether it is one of EPIC-KITCHENS-55."""
    return script.number % 5 == 4


def video_id(script: VideoScript) -> str:
    """Such as P01_103, or P01_03 for an older one."""
    of_participant = script.number // NUM_PARTICIPANTS + 1
    return f"{participant_id(script)}_{of_participant if is_older(script) else 100 + of_participant:02d}"


def video_path(root: Path, script: VideoScript) -> Path:
    """Where EPIC-KITCHENS keeps a video."""
    name, participant = f"{video_id(script)}.MP4", participant_id(script)
    if is_older(script):
        return root / "videos" / "train" / participant / name
    return root / participant / "videos" / name


def write_annotations(root: Path, world: World, scripts: list[VideoScript]) -> None:
    """The tables of actions (every fourth video is for validation), of classes and of videos."""
    tables = {"train": [], "validation": []}
    without_timestamp = {"train": [], "validation": []}
    for script in scripts:
        split = "validation" if script.number % 4 == 3 else "train"
        for row in action_rows(world, script):
            tables[split].append(row)
            if not row[3]:
                without_timestamp[split].append(row[0])
    for split, rows in tables.items():
        write_csv(root / f"EPIC_100_{split}.csv", HEADER, rows)
        write_csv(
            root / f"EPIC_100_{split}_missing_timestamp_narrations.csv",
            ("", "narration_id"),
            enumerate(without_timestamp[split]),
        )
    header = ("id", "key", "instances", "category")
    verbs = [(i, v.name, str([w.replace(" ", "-") for _, w in v.words]), "motion") for i, v in enumerate(world.verbs)]
    nouns = [(i, n.name, str(list(n.words)), "thing") for i, n in enumerate(world.nouns)]
    write_csv(root / "EPIC_100_verb_classes.csv", header, verbs)
    write_csv(root / "EPIC_100_noun_classes.csv", header, nouns)
    config = world.config
    resolution = f"{config.image_size}x{config.image_size}"
    videos = [(video_id(script), config.duration_sec, float(config.fps), resolution) for script in scripts]
    write_csv(root / "EPIC_100_video_info.csv", ("video_id", "duration", "fps", "resolution"), videos)


def action_rows(world: World, script: VideoScript) -> list[tuple]:
    """The rows of one video; one in fifty has no narration timestamp."""
    config = world.config
    words = choose_words(world, script)
    rows = []
    for action in script.actions:
        said = narrate(world, script, words, action)
        if said.quirk:
            continue
        rng = np.random.default_rng([config.seed, script.number, _STAMP_STREAM, action.index])
        spoken = "" if rng.random() < 0.02 else timestamp(action.narration_sec, 3)
        rows.append(
            (
                f"{video_id(script)}_{len(rows)}",
                participant_id(script),
                video_id(script),
                spoken,
                timestamp(action.start_sec, 2),
                timestamp(action.end_sec, 2),
                round(action.start_sec * config.fps) + 1,
                round(action.end_sec * config.fps) + 1,
                said.sentence,
                said.sentence.removesuffix(f" {said.noun_word}").replace(" ", "-"),
                action.verb,
                said.noun_word,
                action.noun,
                str([said.noun_word]),
                str([action.noun]),
            )
        )
    return rows


def timestamp(seconds: float, digits: int) -> str:
    """Such as 00:01:02.340."""
    unit = 10**digits
    ticks = round(seconds * unit)
    whole, fraction = divmod(ticks, unit)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}.{fraction:0{digits}d}"

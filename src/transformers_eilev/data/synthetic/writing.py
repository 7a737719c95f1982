"""The set in Ego4D's own folders and schema, as the FHO benchmark has them."""

import json
import uuid
from collections.abc import Callable
from math import ceil
from pathlib import Path

import numpy as np

from .files import write_csv, write_json, write_text
from .narration import Narration, choose_words, narrate
from .rendering import Renderer
from .script import ActionScript, VideoScript, write_script
from .world import World


# Seconds round the narration, and an annotated interval's padding in its canonical clip.
WINDOW_SEC, PADDING_SEC = 8.0, 8.0
MAX_INTERVAL_SEC = 300.0
_UID_STREAM, _NOTE_STREAM = 2**30 + 3, 2**30 + 4
# Frames before and after the point of no return, in seconds: 45, 30 and 15 frames at Ego4D's 30 frames per second.
_PRE_SEC = {"pre_45": 1.5, "pre_30": 1.0, "pre_15": 0.5}


def video_name(script: VideoScript) -> str:
    """A video's `video_uid`."""
    return script.uid


def video_path(root: Path, world: World, script: VideoScript) -> Path:
    """Where Ego4D keeps a video."""
    return root / "v2" / world.config.video_folder / f"{script.uid}.mp4"


def write_annotations(root: Path, world: World, scripts: list[VideoScript]) -> None:
    """Everything but the videos."""
    annotations = root / "v2" / "annotations"
    other = {"[other]"} if world.config.unlabelled_share else set()
    labels = {
        "verbs": sorted({verb.structured for verb in world.verbs} | other),
        "nouns": sorted({noun.structured for noun in world.nouns}),
    }
    heads = {kind: {label: label.split("_")[0] for label in names} for kind, names in labels.items()}
    fho = {
        "version": "synthetic-1",
        "date": "",
        "description": "Drawn videos in the schema of Ego4D's FHO annotations; nothing in them is Ego4D's.",
        "metadata": f"seed {world.config.seed}",
        "videos": [fho_video(world, script) for script in scripts],
    }
    write_json(annotations / "fho_main_taxonomy.json", {**labels, "mapping": heads}, indent=1)
    write_json(annotations / "fho_lta_taxonomy.json", labels, indent=1)
    _write_prompts(annotations, world)
    write_csv(
        annotations / "manifest.csv",
        ("file_uid", "annotation", "type", "canonical_s3_location"),
        [(name, name, "annotation", "") for name in ("fho_main", "fho_main_taxonomy", "fho_lta_taxonomy")],
    )
    write_csv(
        root / "v2" / world.config.video_folder / "manifest.csv",
        ("video_uid", "canonical_s3_location"),
        [(script.uid, "") for script in scripts],
    )
    write_json(root / "ego4d.json", {"date": "", "version": "v2", "videos": [_metadata(world, s) for s in scripts]})
    write_json(annotations / "fho_main.json", fho)


def _write_prompts(annotations: Path, world: World) -> None:
    """Every word that the labels of this world are called by, as the evaluation's label lists have them."""
    verbs = [(word, verb.structured) for verb in world.verbs for word, _ in verb.words]
    nouns = [(_with_article(word), noun.structured) for noun in world.nouns for word in noun.words]
    write_csv(annotations / "structured_verb_prompt.csv", ("prompt", "structured_verb"), verbs)
    write_csv(annotations / "structured_noun_prompt.csv", ("prompt", "structured_noun"), nouns)


def _with_article(word: str) -> str:
    return word if word in ("scissors", "bread") else f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def write_truth(
    path: Path, world: World, scripts: list[VideoScript], video_name: Callable[[VideoScript], str]
) -> None:
    """One JSON object a line for each action: what is seen, and what it was called. Beyond either layout's schema."""
    lines = []
    for script in scripts:
        words = choose_words(world, script)
        for action in script.actions:
            said = narrate(world, script, words, action)
            look = world.looks[action.noun][action.look]
            row = {
                "video_uid": video_name(script),
                "action": action.index,
                "verb": world.verbs[action.verb].name,
                "noun": world.nouns[action.noun].name,
                "colour": look.colour,
                "pattern": look.pattern,
                "place": script.places[action.station],
                "hand": "right" if action.staging.side > 0 else "left",
                "start_sec": action.start_sec,
                "end_sec": action.end_sec,
                "pnr_sec": action.pnr_sec,
                "narration_timestamp_sec": action.narration_sec,
                "verb_word": said.verb_word,
                "noun_word": said.noun_word,
                "quirk": said.quirk,
                "rare_pair": (action.verb, action.noun) in world.rare_pairs,
                "swapped": action.verb in words.swapped_verbs or action.noun in words.swapped_nouns,
                "on_disk": not script.missing,
            }
            lines.append(json.dumps(row))
    write_text(path, "\n".join(lines) + "\n")


def all_scripts(world: World) -> list[VideoScript]:
    """The scripts of all videos, those missing on purpose among them."""
    config = world.config
    numbers = range(config.first_video, config.first_video + config.num_videos + config.num_missing)
    return [write_script(world, number) for number in numbers]


def fho_video(world: World, script: VideoScript) -> dict:
    """A video as an entry of `videos` in fho_main.json."""
    config = world.config
    count = max(2, ceil(config.duration_sec / MAX_INTERVAL_SEC))
    edges = [round(config.duration_sec * index / count, 3) for index in range(count)] + [config.duration_sec]
    words, renderer = choose_words(world, script), Renderer(world, script)
    intervals = [
        _interval(world, script, words, renderer, index, edges[index], edges[index + 1]) for index in range(count)
    ]
    return {
        "annotated_intervals": intervals,
        "video_metadata": {
            "duration_sec": config.duration_sec,
            "fps": float(config.fps),
            "height": config.image_size,
            "num_frames": config.num_frames,
            "rotation": None,
            "video_base_denominator": config.fps * 512,
            "video_base_numerator": 1,
            "video_start_pts": 0,
            "width": config.image_size,
        },
        "video_uid": script.uid,
    }


def _uids(world, script, *stream):
    rng = np.random.default_rng([world.config.seed, script.number, _UID_STREAM, *stream])
    while True:
        yield str(uuid.UUID(bytes=rng.bytes(16), version=4))


def _interval(world, script, words, renderer, index, start, end) -> dict:
    config = world.config
    uids = _uids(world, script, index)
    parent_start, parent_end = max(0.0, start - PADDING_SEC), min(config.duration_sec, end + PADDING_SEC)
    # Clips that were cut for another benchmark have no uid of their own.
    clip_id, clip_uid = next(uids), next(uids)
    actions = [action for action in script.actions if start <= action.narration_sec < end]
    return {
        "clip_id": clip_id,
        "clip_uid": None if (script.number + index) % 7 == 6 else clip_uid,
        "start_sec": start,
        "end_sec": end,
        "start_frame": round(start * config.fps),
        "end_frame": round(end * config.fps),
        "clip_parent_start_sec": parent_start,
        "clip_parent_end_sec": parent_end,
        "clip_parent_start_frame": round(parent_start * config.fps),
        "clip_parent_end_frame": round(parent_end * config.fps),
        "redacted": any(a < end and b > start for a, b in script.redacted_sec),
        "narrated_actions": [
            fho_action(world, script, narrate(world, script, words, action), renderer, action, parent_start)
            for action in actions
        ],
    }


def fho_action(
    world: World, script: VideoScript, said: Narration, renderer: Renderer, action: ActionScript, clip_start: float
) -> dict:
    """An action as an entry of `narrated_actions`; `clip_start` is where the canonical clip starts in the video."""
    config = world.config
    rng = np.random.default_rng([config.seed, script.number, _NOTE_STREAM, action.index])
    uids = _uids(world, script, 2**20, action.index)
    start = max(0.0, action.narration_sec - WINDOW_SEC / 2)
    end = min(config.duration_sec, action.narration_sec + WINDOW_SEC / 2)
    annotated = said.quirk == "" or (said.quirk == "rejected" and rng.random() < 0.5)
    # Not everything that is done changes a state, and what does not has no critical frames.
    changes_state = annotated and rng.random() < 1 - config.unlabelled_share / 2
    critical = _critical_frames(config, action, rng) if changes_state else None
    offset = round(clip_start * config.fps)

    def in_clip(frames):
        return None if frames is None else {name: frame - offset for name, frame in frames.items()}

    return {
        "warnings": [],
        "uid": next(uids),
        "start_sec": round(start, 7),
        "end_sec": round(end, 7),
        "start_frame": round(start * config.fps),
        "end_frame": round(end * config.fps),
        "clip_start_sec": round(start - clip_start, 7),
        "clip_end_sec": round(end - clip_start, 7),
        "clip_start_frame": round(start * config.fps) - offset,
        "clip_end_frame": round(end * config.fps) - offset,
        "is_valid_action": said.quirk != "invalid",
        "is_partial": bool(rng.random() < 0.05),
        "narration_timestamp_sec": action.narration_sec,
        "clip_narration_timestamp_sec": round(action.narration_sec - clip_start, 7),
        "narration_text": said.text,
        "narration_annotation_uid": next(uids),
        "structured_verb": said.structured_verb if annotated else None,
        "freeform_verb": said.verb_word if annotated and said.structured_verb in (None, "[other]") else None,
        "state_transition": "object_moved" if critical else None,
        "critical_frames": critical,
        "clip_critical_frames": in_clip(critical),
        "frames": critical and _frames(world, renderer, action, said, critical, offset),
        "is_rejected": said.quirk == "rejected",
        "is_invalid_annotation": False,
        "reject_reason": said.reject_reason,
        "stage": "1" if annotated else None,
    }


def _critical_frames(config, action, rng) -> dict[str, int]:
    """Frame numbers in the video, in the order of time; contact is often missing."""
    last = config.num_frames - 1
    pnr = min(round(action.pnr_sec * config.fps), last)
    pre = max(0, min(pnr - 1, round((action.pnr_sec - 0.4) * config.fps)))
    frames = {name: max(0, pre - round(seconds * config.fps)) for name, seconds in _PRE_SEC.items()}
    frames["pre_frame"] = pre
    if rng.random() < 0.55:
        frames["contact_frame"] = (pre + pnr) // 2
    frames["pnr_frame"] = pnr
    frames["post_frame"] = min(last, round(action.end_sec * config.fps))
    return frames


def _frames(world, renderer, action, said, critical, offset) -> list[dict]:
    """Boxes of hands, the object and the tool in each critical frame; a noun only for what changes."""
    frames = []
    for name, number in critical.items():
        time = number / world.config.fps
        boxes, seen = [], set()
        for layer in reversed(renderer.layers(action, action.phase(time))):
            kind = _box_kind(layer.sprite)
            if kind is None or kind in seen or layer.alpha < 0.1:
                continue
            bounds = renderer.box(action, layer, time)
            if bounds is None:
                continue
            seen.add(kind)
            noun = said.structured_noun if kind == "object_of_change" else None
            boxes.append(
                {
                    "object_type": kind,
                    "structured_noun": noun,
                    "freeform_noun": said.noun_word if kind == "object_of_change" and noun is None else None,
                    "instance_number": 1 if kind == "object_of_change" else None,
                    "bbox": bounds,
                }
            )
        frames.append(
            {"frame_number": number, "clip_frame_number": number - offset, "frame_type": name, "boxes": boxes}
        )
    return frames


def _box_kind(sprite: str) -> str | None:
    if sprite.startswith("hand:"):
        return f"{sprite.split(':')[1]}_hand"
    if sprite.startswith("object"):
        return "object_of_change"
    return "tool" if sprite in ("knife", "spoon", "sponge") else None


def _metadata(world: World, script: VideoScript) -> dict:
    """A video as an entry of ego4d.json."""
    config = world.config
    redacted = [
        {"start_sec": a, "end_sec": b, "start_frame": round(a * config.fps), "end_frame": round(b * config.fps)}
        for a, b in script.redacted_sec
    ]
    size = config.image_size
    return {
        "video_uid": script.uid,
        "duration_sec": config.duration_sec,
        "scenarios": ["Cooking" if script.number % 2 else "Household management"],
        "video_metadata": {
            "fps": float(config.fps),
            "num_frames": config.num_frames,
            "video_codec": config.codec,
            "audio_codec": None,
            "display_resolution_width": size,
            "display_resolution_height": size,
            "sample_resolution_width": size,
            "sample_resolution_height": size,
            "mp4_duration_sec": config.duration_sec,
            "video_start_sec": 0.0,
            "video_duration_sec": config.duration_sec,
            "audio_start_sec": None,
            "audio_duration_sec": None,
            "video_start_pts": 0,
            "video_duration_pts": config.num_frames * 512,
            "video_base_numerator": 1,
            "video_base_denominator": config.fps * 512,
            "audio_base_numerator": None,
            "audio_base_denominator": None,
        },
        "split_em": None,
        "split_av": None,
        "split_fho": (None, "train", "train", "val", "multi")[script.number % 5],
        "split_goalstep": None,
        "s3_path": "",
        "origin_video_id": script.uid,
        "video_source": "synthetic",
        "device": "drawn",
        "physical_setting_name": None,
        "fb_participant_id": script.participant,
        "is_stereo": False,
        "has_imu": False,
        "has_gaze": False,
        "video_components": [],
        "concurrent_sets": None,
        "has_redacted_regions": bool(redacted),
        "redacted_intervals": redacted,
        "gaps": [],
        "is_grouped": False,
        "group_video_uids": None,
    }

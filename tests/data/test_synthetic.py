"""The synthetic set: made again byte for byte, of the real set's shape, and not to be told from one frame."""

import csv
import dataclasses
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest

from transformers_eilev.data.synthetic import SyntheticConfig, make_synthetic_dataset
from transformers_eilev.data.synthetic import generation as generation_module
from transformers_eilev.data.synthetic.encoding import to_yuv420
from transformers_eilev.data.synthetic.rendering import Renderer
from transformers_eilev.data.synthetic.script import write_script
from transformers_eilev.data.synthetic.world import NOUNS, VERBS, World
from transformers_eilev.data.synthetic.writing import fho_video


TINY = SyntheticConfig(
    hours=36 / 3600, video_sec=12, action_sec=3, image_size=64, fps=5, missing_share=0.34, redacted_share=0.4, seed=7
)


def contents(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(Path(root).rglob("*")) if path.is_file()}


def decode(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    root = tmp_path_factory.mktemp("ego4d")
    return root, make_synthetic_dataset(root, TINY)


@pytest.fixture(scope="module")
def fho(tiny):
    return json.loads((tiny[0] / "v2/annotations/fho_main.json").read_text())


@pytest.fixture(scope="module")
def truth(tiny):
    return [json.loads(line) for line in (tiny[0] / "synthetic/truth.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def many_videos():
    """Enough annotations, without a pixel, for every habit of the annotators to show."""
    world = World(SyntheticConfig(hours=4, video_sec=240, seed=1))
    return world, [fho_video(world, write_script(world, number)) for number in range(20)]


def actions_of(videos):
    return [
        (video, interval, action)
        for video in videos
        for interval in video["annotated_intervals"]
        for action in interval["narrated_actions"]
    ]


# ------------------------------------------------------------------------------------------------- the same every time


def test_other_processes_make_the_same_bytes(tiny, tmp_path):
    lines = []
    summary = make_synthetic_dataset(tmp_path, TINY, num_workers=2, progress=lines.append)
    assert contents(tmp_path) == contents(tiny[0])
    assert summary.rendered == 3 and summary.num_missing == 2
    assert [line.split(" ")[0] for line in lines] == ["1/3", "2/3", "3/3"] and "0 s left" in lines[-1]


def test_a_frame_depends_on_nothing_drawn_before():
    world = World(TINY)
    script = write_script(world, 0)
    in_order = Renderer(world, script)
    frames = [in_order.frame(number) for number in range(TINY.num_frames)]
    for number in (40, 3, 21):
        np.testing.assert_array_equal(Renderer(world, script).frame(number), frames[number])
    other = Renderer(world, write_script(world, 1))
    assert np.abs(other.frame(3).astype(int) - frames[3]).mean() > 5


def test_seeds_differ():
    scripts = [write_script(World(dataclasses.replace(TINY, seed=seed)), 0) for seed in (0, 1)]
    assert scripts[0].uid != scripts[1].uid and scripts[0].actions != scripts[1].actions


def test_resumes_where_it_stopped(tiny, tmp_path, monkeypatch):
    real = generation_module.encode_video
    calls = []

    def breaks_in_the_second(path, frames, **options):
        calls.append(path)
        if len(calls) == 2:
            path.write_bytes(b"half a video")
            raise OSError("the disk is full")
        real(path, frames, **options)

    monkeypatch.setattr(generation_module, "encode_video", breaks_in_the_second)
    with pytest.raises(RuntimeError, match="1 of 3 videos could not be made: .*the disk is full"):
        make_synthetic_dataset(tmp_path, TINY)
    there = sorted((tmp_path / "v2/full_scale").iterdir())
    assert len(there) == 2 and not (tmp_path / "v2/annotations").exists()
    before = [path.stat().st_mtime_ns for path in there]

    summary = make_synthetic_dataset(tmp_path, TINY)
    assert (summary.rendered, summary.kept) == (1, 2)
    assert [path.stat().st_mtime_ns for path in there] == before
    assert contents(tmp_path) == contents(tiny[0])


def test_refuses_a_directory_of_other_options(tiny):
    with pytest.raises(ValueError, match=r"made with other options: fps=5 \(now 6\), seed=7 \(now 8\)"):
        make_synthetic_dataset(tiny[0], dataclasses.replace(TINY, fps=6, seed=8))


@pytest.mark.parametrize(
    "options, error",
    [
        ({"hours": 0}, "hours must be positive, got 0"),
        ({"hours": float("nan")}, "hours must be finite and not negative, got nan"),
        ({"image_size": 65}, "image_size must be even and from 32 to 2048, got 65"),
        ({"fps": 2.5}, "fps must be an integer, got 2.5"),
        ({"seed": -1}, "seed must not be negative, got -1"),
        ({"codec": "mjpeg"}, "codec must be one of h264, vp9, got 'mjpeg'"),
        ({"synonyms": 1.5}, "synonyms must be between 0 and 1, got 1.5"),
        ({"verb_skew": "much"}, "verb_skew must be a number, got 'much'"),
        ({"video_sec": 5}, "video_sec must be at least twice action_sec=5.8, got 5"),
        ({"plausible": 1}, "plausible must be True or False, got 1"),
    ],
)
def test_options_are_checked_by_name(options, error):
    with pytest.raises((TypeError, ValueError), match=re.escape(error)):
        SyntheticConfig(**options)


def test_every_option_has_help():
    assert all(len(field.metadata["help"]) > 10 for field in dataclasses.fields(SyntheticConfig))


def test_options_come_without_the_machinery():
    code = (
        "import sys; from transformers_eilev.data import SyntheticConfig; SyntheticConfig(); "
        "print([name for name in ('av', 'datasets', 'torch') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# ----------------------------------------------------------------------------------------------- shape of the real set

ACTION_TYPES = {
    **dict.fromkeys(("start_sec", "end_sec", "clip_start_sec", "clip_end_sec"), float),
    **dict.fromkeys(("narration_timestamp_sec", "clip_narration_timestamp_sec"), float),
    **dict.fromkeys(("start_frame", "end_frame", "clip_start_frame", "clip_end_frame"), int),
    **dict.fromkeys(("is_valid_action", "is_partial", "is_rejected", "is_invalid_annotation"), bool),
    **dict.fromkeys(("narration_text", "narration_annotation_uid", "uid"), str),
    **dict.fromkeys(("structured_verb", "freeform_verb", "state_transition", "reject_reason", "stage"), (str, None)),
    **dict.fromkeys(("critical_frames", "clip_critical_frames"), (dict, None)),
    "frames": (list, None),
    "warnings": list,
}
INTERVAL_TYPES = {
    "clip_id": str,
    "clip_uid": (str, None),
    "redacted": bool,
    "narrated_actions": list,
    **dict.fromkeys(("start_sec", "end_sec", "clip_parent_start_sec", "clip_parent_end_sec"), float),
    **dict.fromkeys(("start_frame", "end_frame", "clip_parent_start_frame", "clip_parent_end_frame"), int),
}
VIDEO_TYPES = {
    **dict.fromkeys(("video_start_pts", "video_base_numerator", "video_base_denominator", "num_frames"), int),
    **dict.fromkeys(("width", "height"), int),
    **dict.fromkeys(("duration_sec", "fps"), float),
    "rotation": (None,),
}
BOX_TYPES = {
    "object_type": str,
    "structured_noun": (str, None),
    "freeform_noun": (str, None),
    "instance_number": (int, None),
    "bbox": dict,
}
FRAME_TYPES = ["pre_45", "pre_30", "pre_15", "pre_frame", "contact_frame", "pnr_frame", "post_frame"]


def check_types(record, types):
    """Every field there, none more, each of its type; bool is no int here."""
    assert set(record) == set(types)
    for name, kinds in types.items():
        kinds = kinds if isinstance(kinds, tuple) else (kinds,)
        assert any(record[name] is None if kind is None else type(record[name]) is kind for kind in kinds), name


def test_annotations_have_the_schema_of_fho(many_videos):
    world, videos = many_videos
    for video in videos:
        assert set(video) == {"video_uid", "video_metadata", "annotated_intervals"}
        check_types(video["video_metadata"], VIDEO_TYPES)
        assert len(video["annotated_intervals"]) > 1
    for video, interval, action in actions_of(videos):
        check_types(interval, INTERVAL_TYPES)
        check_types(action, ACTION_TYPES)
        shift = interval["clip_parent_start_sec"]
        assert 0 <= action["start_sec"] < action["end_sec"] <= video["video_metadata"]["duration_sec"]
        assert action["end_sec"] - action["start_sec"] <= 8.0000001
        assert interval["start_sec"] <= action["narration_timestamp_sec"] < interval["end_sec"]
        assert action["narration_timestamp_sec"] - action["clip_narration_timestamp_sec"] == pytest.approx(shift)
        assert (action["critical_frames"] is None) == (action["frames"] is None)
        if action["frames"] is not None:
            check_frames(video, action)


def check_frames(video, action):
    names = [name for name in FRAME_TYPES if name in action["critical_frames"]]
    numbers = [action["critical_frames"][name] for name in names]
    assert numbers == sorted(numbers) and set(names) >= set(FRAME_TYPES) - {"contact_frame"}
    assert [frame["frame_type"] for frame in action["frames"]] == names
    for frame in action["frames"]:
        assert frame["frame_number"] == action["critical_frames"][frame["frame_type"]]
        assert frame["clip_frame_number"] == action["clip_critical_frames"][frame["frame_type"]]
        assert 0 <= frame["frame_number"] < video["video_metadata"]["num_frames"]
        for box in frame["boxes"]:
            check_types(box, BOX_TYPES)
            x, y, width, height = (box["bbox"][name] for name in ("x", "y", "width", "height"))
            assert x >= 0 and y >= 0 and width > 0 and height > 0
            assert x + width <= video["video_metadata"]["width"] + 0.1
            assert y + height <= video["video_metadata"]["height"] + 0.1


def test_annotators_have_their_habits(many_videos):
    world, videos = many_videos
    actions = [action for _, _, action in actions_of(videos)]
    texts = [action["narration_text"] for action in actions]
    for pattern in (r"^#C C ", r"^#C Camera", r"^#c C ", r"^#O ", r" $", r"\.$", r"#unsure", r"#Unsure", r"<\|eos\|>"):
        assert sum(bool(re.search(pattern, text)) for text in texts) > 0, pattern
    assert 0.03 < np.mean([action["is_rejected"] for action in actions]) < 0.13
    assert 0.01 < np.mean([not action["is_valid_action"] for action in actions]) < 0.09
    assert all(action["reject_reason"] for action in actions if action["is_rejected"])
    assert all(action["frames"] is None for action in actions if not action["is_valid_action"])
    good = [a for a in actions if a["is_valid_action"] and not a["is_rejected"] and a["frames"]]
    assert {"contact_frame" in action["critical_frames"] for action in good} == {True, False}
    assert {action["structured_verb"] for action in good} >= {None, "[other]", "take_(pick,_grab,_get)"}
    assert any(interval["clip_uid"] is None for _, interval, _ in actions_of(videos))
    nouns = {
        box["structured_noun"]
        for action in good
        for frame in action["frames"]
        if frame["frame_type"] == "pnr_frame"
        for box in frame["boxes"]
        if box["object_type"] == "object_of_change"
    }
    assert nouns - {None} == {noun.structured for noun in NOUNS}


def test_the_object_has_a_box_when_it_changes(many_videos):
    """Readers take the noun from the pnr frame: nearly every action must have it there, whatever the motion."""
    world, videos = many_videos
    labelled = Counter()
    for _, _, action in actions_of(videos):
        for frame in action["frames"] or []:
            if frame["frame_type"] == "pnr_frame":
                kinds = [box["object_type"] for box in frame["boxes"]]
                labelled[action["structured_verb"], "object_of_change" in kinds] += 1
    assert not [verb for verb, found in labelled if not found]


def test_files_are_where_ego4d_has_them(tiny, fho, truth):
    root, summary = tiny
    uids = [video["video_uid"] for video in fho["videos"]]
    on_disk = {path.stem for path in (root / "v2/full_scale").glob("*.mp4")}
    assert len(uids) == len(set(uids)) == 5 and len(on_disk) == 3 and on_disk < set(uids)
    assert on_disk == {row["video_uid"] for row in truth if row["on_disk"]}
    taxonomy = json.loads((root / "v2/annotations/fho_main_taxonomy.json").read_text())
    verbs = {action["structured_verb"] for _, _, action in actions_of(fho["videos"])} - {None}
    assert verbs <= set(taxonomy["verbs"])
    metadata = json.loads((root / "ego4d.json").read_text())["videos"]
    assert [video["video_uid"] for video in metadata] == uids
    assert any(video["has_redacted_regions"] for video in metadata)
    assert summary.num_actions == len(truth) == len(actions_of(fho["videos"]))


def test_videos_are_as_their_annotations_say(tiny):
    root, _ = tiny
    blank_seen = False
    for video in json.loads((root / "ego4d.json").read_text())["videos"]:
        path = root / "v2/full_scale" / f"{video['video_uid']}.mp4"
        if not path.exists():
            continue
        frames = decode(path)
        assert frames.shape == (video["video_metadata"]["num_frames"], 64, 64, 3)
        blank = np.zeros(len(frames), bool)
        for interval in video["redacted_intervals"]:
            blank |= (np.arange(len(frames)) >= interval["start_frame"]) & (
                np.arange(len(frames)) < interval["end_frame"]
            )
        assert frames[blank].max(initial=0) < 12
        assert frames[~blank].reshape((~blank).sum(), -1).std(axis=1).min() > 15
        blank_seen |= blank.any()
    assert blank_seen


def test_the_reader_of_ego4d_reads_it(tiny, truth):
    from transformers_eilev.data.ego4d import read_ego4d_actions

    actions, report = read_ego4d_actions(tiny[0])
    kept = [row for row in truth if row["on_disk"] and not row["quirk"]]
    assert len(actions) == len(kept) > 0
    expected = {(row["video_uid"], row["narration_timestamp_sec"]) for row in kept}
    assert {(action.video_uid, action.narration_timestamp_sec) for action in actions} == expected
    assert len(report.missing_videos) == 2
    by_name = {verb.name: verb.structured for verb in VERBS}
    rows = {(row["video_uid"], row["narration_timestamp_sec"]): row for row in kept}
    for action in actions:
        row = rows[action.video_uid, action.narration_timestamp_sec]
        assert action.structured_verb in ("", "[other]", by_name[row["verb"]])
        assert Path(action.video_path).is_file()


def test_clips_can_be_read_and_overlap(tiny, truth):
    from transformers_eilev import ClipWindow, read_clip

    row = next(row for row in truth if row["on_disk"])
    spoken = row["narration_timestamp_sec"]
    window = ClipWindow(start=max(0.0, spoken - 4), end=min(TINY.duration_sec, spoken + 4), num_frames=8)
    clip = read_clip(tiny[0] / "v2/full_scale" / f"{row['video_uid']}.mp4", window)
    assert clip.status == "complete" and clip.frames.shape == (8, 3, 64, 64)
    times = [other["narration_timestamp_sec"] for other in truth if other["video_uid"] == row["video_uid"]]
    assert np.diff(times).max() < 8


def test_yuv_is_bt601():
    pixels = np.random.default_rng(0).integers(0, 256, (16, 12, 3), dtype=np.uint8)
    pixels[:2, :2], pixels[:2, 2:4], pixels[2:4, :2] = 0, 255, (255, 0, 0)
    planes = to_yuv420(pixels)
    red, green, blue = (pixels[..., channel] / 255 for channel in range(3))
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    np.testing.assert_allclose(planes[:16], 16 + 219 * luma, atol=1.1)
    for channel, weight, plane in ((blue, 1.772, planes[16:20]), (red, 1.402, planes[20:])):
        chroma = (128 + 224 * (channel - luma) / weight).reshape(8, 2, 6, 2).mean(axis=(1, 3))
        np.testing.assert_allclose(plane.reshape(8, 6), chroma, atol=1.1)


def test_what_is_decoded_is_what_was_drawn(tiny):
    """The conversion to YUV is our own: a frame must come back as it went in, but for the codec's loss."""
    world = World(TINY)
    script = write_script(world, 0)
    assert not script.missing
    frames = decode(tiny[0] / "v2/full_scale" / f"{script.uid}.mp4")
    renderer = Renderer(world, script)
    for number in (0, 17, 33):
        difference = frames[number].astype(int) - renderer.frame(number)
        assert np.abs(difference).mean() < 8 and np.abs(difference.mean(axis=(0, 1))).max() < 2


def test_vp9(tmp_path):
    config = dataclasses.replace(TINY, hours=12 / 3600, codec="vp9", missing_share=0.0, video_folder="video_540ss")
    make_synthetic_dataset(tmp_path, config)
    (path,) = (tmp_path / "v2/video_540ss").glob("*.mp4")
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name in ("vp9", "libvpx-vp9")
    assert len(decode(path)) == config.num_frames


@pytest.fixture(scope="module")
def epic(tmp_path_factory):
    root = tmp_path_factory.mktemp("epic")
    make_synthetic_dataset(root, dataclasses.replace(TINY, hours=60 / 3600, layout="epic_kitchens"))
    return root, [json.loads(line) for line in (root / "synthetic/truth.jsonl").read_text().splitlines()]


def test_epic_kitchens_layout(epic):
    root, truth = epic
    rows = []
    for split in ("train", "validation"):
        with open(root / f"EPIC_100_{split}.csv", newline="") as file:
            rows += [(split, row) for row in csv.DictReader(file)]
    assert ",".join(rows[0][1]) == (
        "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,"
        "stop_frame,narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes"
    )
    assert len(rows) == sum(not row["quirk"] for row in truth)
    assert {split for split, _ in rows} == {"train", "validation"}
    assert sorted(str(path.relative_to(root)) for path in root.rglob("*.MP4")) == [
        "P01/videos/P01_101.MP4",
        "P03/videos/P03_101.MP4",
        "P04/videos/P04_101.MP4",
        "P07/videos/P07_101.MP4",
        "videos/train/P05/P05_01.MP4",
    ]
    with open(root / "EPIC_100_verb_classes.csv", newline="") as file:
        classes = {row["id"]: row for row in csv.DictReader(file)}
    for _, row in rows:
        assert re.fullmatch(r"00:00:\d\d\.\d\d", row["start_timestamp"])
        assert re.fullmatch(r"(00:00:\d\d\.\d\d\d)?", row["narration_timestamp"])
        assert row["verb"] in classes[row["verb_class"]]["instances"]
        assert row["narration"] == f"{row['verb'].replace('-', ' ')} {row['noun']}"
        assert row["start_timestamp"] < row["stop_timestamp"] and int(row["start_frame"]) < int(row["stop_frame"])


def test_the_reader_of_epic_kitchens_reads_it(epic):
    from transformers_eilev.data.epic_kitchens import read_epic_kitchens_actions

    root, truth = epic
    actions, _ = read_epic_kitchens_actions(root, video_dirs=[root])
    kept = [row for row in truth if row["on_disk"] and not row["quirk"]]
    assert sorted((action.video_uid, action.structured_verb, action.structured_noun) for action in actions) == sorted(
        (row["video_uid"], row["verb"], row["noun"]) for row in kept
    )

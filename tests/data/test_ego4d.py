"""Ego4D's annotations: the original's rows and numbers, its folders, and files that wish one ill."""

import gzip
import json
import os
import tracemalloc
from pathlib import Path

import pytest

from transformers_eilev.data.actions import ACTION_COLUMNS, InvalidActionError, NarratedAction
from transformers_eilev.data.ego4d import (
    filter_rule,
    find_ego4d_files,
    find_structured_noun,
    find_videos,
    iter_ego4d_actions,
    read_ego4d_actions,
    stream_json_array,
)
from transformers_eilev.data.splits import count_by_video, split_by_video


ANNOTATIONS = Path(__file__).parents[1] / "fixtures" / "data" / "annotations"
RULES = json.loads(gzip.decompress((ANNOTATIONS / "rules.json.gz").read_bytes()))
EXPECTED = json.loads(gzip.decompress((ANNOTATIONS / "ego4d_expected.json.gz").read_bytes()))


def make_action(**changes):
    return {
        "uid": None,
        "is_rejected": False,
        "is_valid_action": True,
        "narration_timestamp_sec": 12.5,
        "narration_text": "#C C picks a cup ",
        "structured_verb": "take_(pick,_grab,_get)",
        "frames": None,
    } | changes


def make_video(uid, actions, **changes):
    return {"video_uid": uid, "annotated_intervals": [{"narrated_actions": actions}]} | changes


def write_annotations(path, videos):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"version": "1", "videos": videos, "after": [1]}))
    return path


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """The files of the original's run, in Ego4D's folders."""
    root = tmp_path_factory.mktemp("ego4d_data")
    annotations = root / "v2" / "annotations" / "fho_main.json"
    annotations.parent.mkdir(parents=True)
    annotations.write_bytes(gzip.decompress((ANNOTATIONS / "fho_main.json.gz").read_bytes()))
    for uid in EXPECTED["present_videos"]:
        touch(root / "v2" / "full_scale" / f"{uid}.mp4")
    return root


# ---------------------------------------------------------------------------------------------------- as the original


@pytest.mark.parametrize("case", RULES["filter_action"])
def test_actions_are_filtered_as_by_the_original(case):
    if case["ok"]:
        assert (filter_rule(case["action"]) is None) == bool(case["value"])
    else:
        with pytest.raises(InvalidActionError, match="narration_text is not text"):
            filter_rule(case["action"])


@pytest.mark.parametrize("case", RULES["structured_noun"])
def test_structured_nouns_are_the_originals(case):
    if case["ok"]:
        assert find_structured_noun(case["action"]) == (case["value"] or "")
    else:
        with pytest.raises(InvalidActionError, match="frames|frame_type|boxes"):
            find_structured_noun(case["action"])


def test_rows_are_those_of_the_original(original):
    actions, report = read_ego4d_actions(original)
    rows = {action.frame_path: action.to_row() for action in actions}
    assert len(rows) == len(actions) == report.kept == 236
    for expected in EXPECTED["train_rows"]:
        row = rows[expected["frame_path"]]
        assert list(row) == list(ACTION_COLUMNS)
        assert row["narration_timestamp_sec"] == float(expected.pop("narration_timestamp_sec"))
        # Its extraction strips them, its annotations do not.
        assert row["narration_text"].strip() == expected.pop("narration_text")
        assert {name: str(row[name]) for name in expected} == expected
        assert row["video_path"] == str(original / "v2" / "full_scale" / f"{row['video_uid']}.mp4")


def test_splits_are_those_of_the_original(original):
    splits = split_by_video(count_by_video(read_ego4d_actions(original)[0]))
    for name, videos in EXPECTED["splits"].items():
        assert [list(item) for item in splits[name].items()] == videos


def test_a_split_file_of_the_original_selects_its_videos(original, tmp_path):
    videos = dict(EXPECTED["splits"]["val"])
    split_file = tmp_path / "fho_main_val.json"
    split_file.write_text(json.dumps({"split": "val", "videos": videos | {"elsewhere": 4}}))
    actions, report = read_ego4d_actions(original, split_file=split_file)
    assert count_by_video(actions) == videos and len(actions) == 59
    assert report.num_videos == len(videos) and report.unknown_videos == ["elsewhere"]
    assert "videos: not annotated: 1 (first: elsewhere)" in str(report)


def test_the_report_says_what_is_missing(original):
    report = read_ego4d_actions(original)[1]
    counts = {rule: tally.count for rule, tally in report.filtered.items()}
    assert counts == {"rejected": 102, "not about the camera wearer": 51, "no valid action": 39}
    assert {reason: tally.count for reason, tally in report.skipped.items()} == {"the video is not on disk": 36}
    assert len(report.missing_videos) == 4 and not set(report.missing_videos) & set(EXPECTED["present_videos"])
    assert report.total == report.kept + sum(counts.values()) + 36 == 464
    assert "kept 236 of 464 actions" in str(report)
    assert f"videos: 26 of 30 on disk, 26 in {original / 'v2' / 'full_scale'}" in str(report)


def test_missing_videos_are_kept_if_wanted(original):
    actions, report = read_ego4d_actions(original, keep_missing_videos=True)
    assert len(actions) == 236 + 36 and not report.skipped
    assert {action.video_uid for action in actions if not action.video_path} <= set(report.missing_videos)
    assert len(report.missing_videos) == 4


# ------------------------------------------------------------------------------------------------------------ folders


def test_the_newest_release_and_the_full_scale_come_first(tmp_path):
    for version in ("v1", "v2", "v2_1"):
        write_annotations(tmp_path / version / "annotations" / "fho_main.json", [make_video(version, [make_action()])])
    touch(tmp_path / "v2" / "full_scale" / "v2_1.mp4")
    files = find_ego4d_files(tmp_path)
    assert files.annotation_file == tmp_path / "v2_1" / "annotations" / "fho_main.json"
    assert read_ego4d_actions(tmp_path)[0][0].video_path == str(tmp_path / "v2" / "full_scale" / "v2_1.mp4")

    touch(tmp_path / "v2_1" / "video_540ss" / "v2_1.mp4")
    assert read_ego4d_actions(tmp_path)[0][0].video_path == str(tmp_path / "v2" / "full_scale" / "v2_1.mp4")
    small = read_ego4d_actions(tmp_path, video_kind="video_540ss")[0][0].video_path
    assert small == str(tmp_path / "v2_1" / "video_540ss" / "v2_1.mp4")
    assert read_ego4d_actions(tmp_path, version="v2_1")[0][0].video_path == small
    assert read_ego4d_actions(tmp_path / "v2_1")[0][0].video_path == small

    older, report = read_ego4d_actions(tmp_path, version="v2")
    assert not older and report.missing_videos == ["v2"]


def test_files_that_lie_elsewhere_are_named(tmp_path):
    annotations = write_annotations(tmp_path / "mine.json", [make_video("a", [make_action()])])
    path = touch(tmp_path / "videos" / "a.MP4")
    for video_dirs in ([tmp_path / "videos"], tmp_path / "videos"):
        actions, _ = read_ego4d_actions(annotation_file=annotations, video_dirs=video_dirs)
        assert [action.video_path for action in actions] == [str(path)]


def test_only_files_are_videos(tmp_path):
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "nowhere")
    touch(tmp_path / "a.mp4.part")
    assert find_videos([tmp_path]) == {}


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder of Ego4D"):
        iter_ego4d_actions(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"there is no fho_main\.json"):
        iter_ego4d_actions(tmp_path)
    write_annotations(tmp_path / "v2" / "annotations" / "fho_main.json", [])
    with pytest.raises(FileNotFoundError, match="no folder full_scale or video_540ss"):
        iter_ego4d_actions(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no release v9, but v2"):
        iter_ego4d_actions(tmp_path, version="v9")
    with pytest.raises(ValueError, match="video_kind must be one of full_scale, video_540ss, got '360p'"):
        iter_ego4d_actions(tmp_path, video_kind="360p")
    with pytest.raises(FileNotFoundError, match="no such annotation file"):
        iter_ego4d_actions(annotation_file=tmp_path / "none.json", video_dirs=[tmp_path])
    assert read_ego4d_actions(tmp_path, keep_missing_videos=True)[0] == []


# ------------------------------------------------------------------------------------------------- the stream of JSON


@pytest.mark.parametrize("chunk_chars", [1, 2, 3, 7, 64, 4096])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_json_is_read_the_same_in_stretches_of_any_size(tmp_path, chunk_chars, bom):
    content = {
        "a": -1.5e-3,
        "videos": [{"x": 'ä"☕\\', "y": [1, 12, -3e5]}, 12345, -0.25, None, True, "text ] } ,", [], {}],
        "z": {"videos": [1]},
    }
    path = tmp_path / "file.json"
    for indent, ascii_only in ((None, True), (2, False)):
        text = bom + json.dumps(content, indent=indent, ensure_ascii=ascii_only)
        path.write_text(text, encoding="utf-8")
        assert list(stream_json_array(path, "videos", chunk_chars=chunk_chars)) == content["videos"]
        assert list(stream_json_array(path, "videos")) == content["videos"]


def test_empty_arrays_are_empty(tmp_path):
    path = tmp_path / "file.json"
    path.write_text(' {"videos" : [ ] } ')
    assert list(stream_json_array(path, "videos")) == []


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("", "the file ends early"),
        ("[]", "'{' expected, '\\[' found"),
        ("{}", "videos is missing"),
        ('{"a": 1}', "videos is missing"),
        ('{"videos": {}}', "'\\[' expected, '{' found at character 11"),
        ('{"videos": [{"a": 1}, {"b": ', "the file ends early"),
        ('{"videos": [{"a": 1}', "the file ends early"),
        ('{"videos": [{"a": 1}]', "the file ends early"),
        ('{"videos": [{"a": "torn', "the file ends early"),
        ('{"videos": [{"a" 1}' + " " * 200 + "]}", "Expecting ':' delimiter at character 17"),
        ('{"videos": [1 2]}', "',' or ']' expected, '2' found"),
        ('{"videos": [' + "[" * 100_000 + "]}", "RecursionError|the file ends early"),
        ('{"videos": [' + "9" * 5000 + "]}", "ValueError"),
    ],
)
def test_json_that_is_none_is_refused_with_the_place(tmp_path, text, complaint):
    path = tmp_path / "fho_main.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=complaint) as caught:
        list(stream_json_array(path, "videos"))
    assert str(path) in str(caught.value)


def test_another_encoding_is_refused_by_name(tmp_path):
    path = tmp_path / "fho_main.json"
    for encoding in ("utf-16", "latin-1"):
        path.write_text('{"videos": ["é"]}', encoding=encoding)
        with pytest.raises(ValueError, match="not UTF-8"):
            list(stream_json_array(path, "videos"))


def test_values_without_end_are_refused(tmp_path):
    path = tmp_path / "fho_main.json"
    path.write_text('{"videos": ["' + "a" * 100_000)
    with pytest.raises(ValueError, match="a value of more than 10,000 characters"):
        list(stream_json_array(path, "videos", chunk_chars=1000, max_value_chars=10_000))


def test_memory_is_bounded_by_one_video(tmp_path):
    videos = [make_video(f"v{index}", [make_action(padding="x" * 1000)] * 100) for index in range(200)]
    path = write_annotations(tmp_path / "fho_main.json", videos)
    del videos
    assert path.stat().st_size > 20e6
    tracemalloc.start()
    try:
        assert sum(1 for _ in stream_json_array(path, "videos", chunk_chars=1 << 18)) == 200
        assert tracemalloc.get_traced_memory()[1] < 4e6
    finally:
        tracemalloc.stop()


# ------------------------------------------------------------------------------------------------------- hostile rows


def read_one(tmp_path, actions, uid="a", **changes):
    path = write_annotations(tmp_path / "fho_main.json", [make_video(uid, actions, **changes)])
    return read_ego4d_actions(annotation_file=path, keep_missing_videos=True)


BAD_ACTIONS = [
    ({"narration_timestamp_sec": float("nan")}, "narration_timestamp_sec is not finite"),
    ({"narration_timestamp_sec": float("inf")}, "narration_timestamp_sec is not finite"),
    ({"narration_timestamp_sec": -0.5}, "narration_timestamp_sec is negative"),
    ({"narration_timestamp_sec": 1e300}, "narration_timestamp_sec is more than a week"),
    ({"narration_timestamp_sec": 10**400}, "narration_timestamp_sec is more than a week"),
    ({"narration_timestamp_sec": "12.5"}, "narration_timestamp_sec is not a number"),
    ({"narration_timestamp_sec": True}, "narration_timestamp_sec is not a number"),
    ({"narration_timestamp_sec": None}, "narration_timestamp_sec is not a number"),
    ({"narration_timestamp_sec": ...}, "narration_timestamp_sec is missing"),
    ({"narration_text": None}, "narration_text is not text"),
    ({"narration_text": ["#C C"]}, "narration_text is not text"),
    ({"narration_text": ...}, "narration_text is missing"),
    ({"narration_text": "#C C \ud800"}, "narration_text is not valid Unicode"),
    ({"narration_text": "#C C \0"}, "narration_text holds a NUL character"),
    ({"narration_text": "#C C " + "a" * 20_000}, "narration_text is longer than 10000 characters"),
    ({"is_rejected": "false"}, "is_rejected is not true or false"),
    ({"is_rejected": ...}, "is_rejected is missing"),
    ({"is_valid_action": []}, "is_valid_action is not true or false"),
    ({"structured_verb": 7}, "structured_verb is not text"),
    ({"structured_verb": ...}, "structured_verb is missing"),
    ({"frames": {}}, "frames is not a list"),
    ({"frames": [None]}, "a record is not an object"),
    ({"frames": [{"frame_type": "pnr_frame", "boxes": None}]}, "boxes is not a list"),
    ({"narration_timestamp_sec": 104.5}, "narration_timestamp_sec is after the end of the video"),
]


@pytest.mark.parametrize("changes, reason", BAD_ACTIONS, ids=lambda value: repr(value)[:50])
def test_bad_actions_are_skipped_by_name_and_counted(tmp_path, changes, reason):
    bad = {name: value for name, value in make_action(**changes).items() if value is not ...}
    metadata = {"video_duration_sec": 100.0, "mp4_duration_sec": float("nan")}
    actions, report = read_one(tmp_path, [make_action(), bad, make_action()], video_metadata=metadata)
    assert len(actions) == report.kept == 2 and report.total == 3
    assert {name: tally.count for name, tally in report.skipped.items()} == {reason: 1}
    first = report.skipped[reason].first
    assert first.startswith("a annotated_intervals[0] narrated_actions[1]: ") and len(first) < 200
    assert f"skipped: {reason}: 1 (first: " in str(report)


def test_what_is_skipped_keeps_its_number(tmp_path):
    """The original counts it: the folders of an existing extraction stay right."""
    late = make_action(narration_timestamp_sec=float("nan"))
    rejected = make_action(is_rejected=True)
    actions, _ = read_one(tmp_path, [make_action(), rejected, late, make_action()])
    assert [action.frame_path for action in actions] == ["a|0", "a|2"]


def test_narrations_just_outside_the_video_are_kept(tmp_path):
    """Their clip of 8 s still begins in it."""
    metadata = {"duration_sec": 100}
    actions, report = read_one(tmp_path, [make_action(narration_timestamp_sec=103.5)], video_metadata=metadata)
    assert [action.narration_timestamp_sec for action in actions] == [103.5] and not report.skipped


BAD_UIDS = [
    "../../etc/passwd", "..", ".", "/etc/passwd", "a/b", "a\\b", "C:\\a", "a|0", "a\nb", "a\0b", "", " a", "a.",
    "-rf", ".hidden", "a" * 200, "ä", "a%2fb", "a:b", "CON|", None, 7, ["a"], True,
]  # fmt: skip


@pytest.mark.parametrize("uid", BAD_UIDS, ids=repr)
def test_bad_video_uids_are_skipped_by_name_and_counted(tmp_path, uid):
    videos = [make_video(uid, [make_action()] * 3), make_video("good", [make_action()])]
    path = write_annotations(tmp_path / "fho_main.json", videos)
    actions, report = read_ego4d_actions(annotation_file=path, keep_missing_videos=True)
    assert [action.video_uid for action in actions] == ["good"]
    ((reason, tally),) = report.skipped.items()
    assert reason in ("video_uid is not a safe file name", "video_uid is not text") and tally.count == 3
    assert tally.first.startswith("videos[0]: video_uid is not ") and report.total == 4


@pytest.mark.parametrize(
    "video, reason",
    [
        ({}, "video_uid is missing"),
        (7, "a record is not an object"),
        ({"video_uid": "b"}, "annotated_intervals is missing"),
        ({"video_uid": "b", "annotated_intervals": None}, "annotated_intervals is not a list"),
        ({"video_uid": "b", "annotated_intervals": [7]}, "a record is not an object"),
        ({"video_uid": "b", "annotated_intervals": [{}]}, "narrated_actions is missing"),
        ({"video_uid": "b", "annotated_intervals": [{"narrated_actions": [7]}]}, "a record is not an object"),
    ],
)
def test_videos_of_another_shape_are_skipped_by_name(tmp_path, video, reason):
    path = write_annotations(tmp_path / "fho_main.json", [video, make_video("a", [make_action()])])
    actions, report = read_ego4d_actions(annotation_file=path, keep_missing_videos=True)
    assert [action.frame_path for action in actions] == ["a|0"]
    assert {name: tally.count for name, tally in report.skipped.items()} == {reason: 1}


def test_of_videos_and_actions_that_are_there_twice_the_first_is_used(tmp_path):
    first, second = make_action(uid="u"), make_action(uid="u", narration_text="#C C drops a cup")
    videos = [make_video("a", [first, second, make_action()]), make_video("a", [make_action()] * 5)]
    path = write_annotations(tmp_path / "fho_main.json", videos)
    actions, report = read_ego4d_actions(annotation_file=path, keep_missing_videos=True)
    assert [action.frame_path for action in actions] == ["a|0", "a|2"]
    assert actions[0].narration_text == "#C C picks a cup "
    counts = {name: tally.count for name, tally in report.skipped.items()}
    assert counts == {"uid is there twice": 1, "video_uid is there twice": 5} and report.total == 8


# ------------------------------------------------------------------------------------------------------------ the row


def test_rows_go_there_and_back():
    action = NarratedAction(video_uid="a", clip_index=3, narration_timestamp_sec=5, narration_text="#C C looks")
    assert action.to_row()["frame_path"] == "a|3" and isinstance(action.narration_timestamp_sec, float)
    assert NarratedAction.from_row(action.to_row()) == action
    assert NarratedAction.from_row({name: str(value) for name, value in action.to_row().items()}) == action


@pytest.mark.parametrize(
    "changes, complaint",
    [
        ({"clip_index": "1_0"}, "clip_index is not a number"),
        ({"clip_index": "-1"}, "clip_index is not an integer from 0 on"),
        ({"clip_index": 2**31}, "clip_index is not an integer from 0 on"),
        ({"narration_timestamp_sec": "nan"}, "narration_timestamp_sec is not finite"),
        ({"narration_timestamp_sec": None}, "narration_timestamp_sec is missing"),
        ({"frame_path": "../a|3"}, "frame_path is not video_uid|clip_index"),
        ({"video_uid": "../a"}, "video_uid is not a safe file name"),
    ],
)
def test_rows_that_do_not_fit_are_refused(changes, complaint):
    row = {"video_uid": "a", "clip_index": "3", "narration_timestamp_sec": "5.0", "narration_text": "#C C looks"}
    with pytest.raises(InvalidActionError) as caught:
        NarratedAction.from_row(row | changes)
    assert complaint in str(caught.value)


def test_paths_stay_as_they_were_given(tmp_path, monkeypatch):
    touch(tmp_path / "videos" / "a.mp4")
    monkeypatch.chdir(tmp_path)
    assert find_videos(["videos"]) == {"a": os.path.join("videos", "a.mp4")}

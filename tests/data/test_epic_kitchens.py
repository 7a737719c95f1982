"""EPIC-KITCHENS' annotations: times, sentences, classes, folders, and lines that are none."""

import csv
import gzip
import io
import json
import math
from pathlib import Path

import pytest

from transformers_eilev.data.actions import InvalidActionError
from transformers_eilev.data.epic_kitchens import (
    EPIC_ACTION_COLUMNS,
    EpicKitchensAction,
    find_epic_video,
    iter_epic_kitchens_actions,
    parse_timestamp,
    read_class_keys,
    read_epic_kitchens_actions,
)


ANNOTATIONS = Path(__file__).parents[1] / "fixtures" / "data" / "annotations"
RULES = json.loads(gzip.decompress((ANNOTATIONS / "rules.json.gz").read_bytes()))


def make_row(**changes):
    row = {
        "narration_id": "P01_01_0",
        "participant_id": "P01",
        "video_id": "P01_01",
        "narration_timestamp": "00:00:02.500",
        "start_timestamp": "00:00:02.00",
        "stop_timestamp": "00:00:05.00",
        "start_frame": "120",
        "stop_frame": "300",
        "narration": "put down knife in drawer",
        "verb": "put-down-in",
        "verb_class": "1",
        "noun": "knife",
        "noun_class": "4",
        "all_nouns": "['knife', 'drawer']",
        "all_noun_classes": "[4, 8]",
    }
    return row | changes


COLUMNS = list(make_row())


def csv_text(rows, columns=COLUMNS):
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, columns)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def write_annotations(folder, rows, columns=COLUMNS, name="EPIC_100_train.csv", ends=None):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(csv_text(rows, columns), encoding="utf-8")
    (folder / "EPIC_100_verb_classes.csv").write_text(
        "id,key,instances,category\n0,take,\"['take', 'pick-up']\",retrieve\n1,put,\"['put', 'put-down-in']\",leave\n"
    )
    (folder / "EPIC_100_noun_classes.csv").write_text(
        "id,key,instances,category\n4,knife,\"['knife']\",cutlery\n8,drawer,\"['drawer', 'drawer:top']\",furniture\n"
    )
    if ends is not None:
        lines = [f"{uid},{seconds},50.0,1920x1080" for uid, seconds in ends.items()]
        (folder / "EPIC_100_video_info.csv").write_text("\n".join(["video_id,duration,fps,resolution", *lines]) + "\n")
    return folder


def read(folder, **kwargs):
    return read_epic_kitchens_actions(folder, keep_missing_videos=True, **kwargs)


def counts(tallies):
    return {name: tally.count for name, tally in tallies.items()}


# --------------------------------------------------------------------------------------------------------- timestamps

# The original takes them for times.
REFUSED_TIMESTAMPS = {"-1:00:00", "00:00:nan"}


@pytest.mark.parametrize("case", RULES["parse_timestamp"], ids=lambda case: repr(case["input"]))
def test_timestamps_are_parsed_as_by_the_original(case):
    if case["ok"] and case["input"] not in REFUSED_TIMESTAMPS:
        assert repr(parse_timestamp(case["input"])) == case["repr"]
    else:
        with pytest.raises(ValueError, match="timestamp must be"):
            parse_timestamp(case["input"])


def test_times_that_are_none_are_refused_unlike_by_the_original():
    taken = {case["input"] for case in RULES["parse_timestamp"] if case["ok"]}
    for timestamp in REFUSED_TIMESTAMPS | {"00:00:inf", "01:-1:00"}:
        assert timestamp in taken or timestamp not in REFUSED_TIMESTAMPS
        with pytest.raises(ValueError, match="finite and not negative"):
            parse_timestamp(timestamp)


# --------------------------------------------------------------------------------------------------------------- rows


def test_rows_have_what_ego4ds_have_and_more(tmp_path):
    actions, report = read(write_annotations(tmp_path, [make_row()]))
    assert actions == [
        EpicKitchensAction(
            video_uid="P01_01",
            clip_index=0,
            narration_timestamp_sec=2.5,
            narration_text="The camera wearer puts down the knife in the drawer.",
            structured_verb="put",
            structured_noun="knife",
            narration_id="P01_01_0",
            participant_id="P01",
            narration="put down knife in drawer",
            start_sec=2.0,
            stop_sec=5.0,
            verb_class=1,
            noun_class=4,
        )
    ]
    assert list(actions[0].to_row()) == list(EPIC_ACTION_COLUMNS)
    assert EpicKitchensAction.from_row({k: str(v) for k, v in actions[0].to_row().items()}) == actions[0]
    assert "kept 1 of 1 actions" in str(report) and "videos: 0 of 1 on disk" in str(report)


@pytest.mark.parametrize(
    "changes, complaint",
    [
        ({"participant_id": "../P01"}, "participant_id is not a safe file name"),
        ({"start_sec": "-1"}, "start_sec is negative"),
        ({"verb_class": "1.5"}, "verb_class is not a number"),
        ({"noun_class": str(2**31)}, "noun_class is not the number of a class"),
        ({"narration": 7}, "narration is not text"),
    ],
)
def test_rows_that_do_not_fit_are_refused(tmp_path, changes, complaint):
    row = read(write_annotations(tmp_path, [make_row()]))[0][0].to_row()
    with pytest.raises(InvalidActionError, match=complaint):
        EpicKitchensAction.from_row(row | changes)


def test_clips_are_numbered_by_video(tmp_path):
    ids = ["P01_01", "P02_101", "P01_01", "P02_101", "P01_01"]
    rows = [make_row(video_id=uid, narration_id=str(index)) for index, uid in enumerate(ids)]
    actions, _ = read(write_annotations(tmp_path, rows))
    assert [action.frame_path for action in actions] == ["P01_01|0", "P02_101|0", "P01_01|1", "P02_101|1", "P01_01|2"]


def test_labels_may_be_the_annotators_own(tmp_path):
    folder = write_annotations(tmp_path, [make_row()])
    (folder / "EPIC_100_verb_classes.csv").unlink()
    with pytest.raises(FileNotFoundError, match="EPIC_100_verb_classes.csv: there is no such file of classes"):
        read(folder)
    ((action,), _) = read(folder, labels="annotated")
    assert (action.structured_verb, action.structured_noun) == ("put-down-in", "knife")


def test_sentences_come_from_their_column_where_there_is_one(tmp_path):
    sentences = ["The camera wearer lays the knife away. ", ""]
    rows = [make_row(narration_id=str(n), full_sent_narration=text) for n, text in enumerate(sentences)]
    folder = write_annotations(tmp_path, rows, [*COLUMNS, "full_sent_narration"])
    by_rule = "The camera wearer puts down the knife in the drawer."
    texts = ["The camera wearer lays the knife away.", by_rule]
    assert [action.narration_text for action in read(folder)[0]] == texts

    rows = [make_row(mine="Somebody does something.")]
    folder = write_annotations(tmp_path / "mine", rows, [*COLUMNS, "mine"])
    assert read(folder)[0][0].narration_text == by_rule
    assert read(folder, sentence_column="mine")[0][0].narration_text == "Somebody does something."
    with pytest.raises(ValueError, match="no column yours"):
        read(folder, sentence_column="yours")


def test_a_narration_without_a_time_is_placed_in_the_middle(tmp_path):
    actions, report = read(write_annotations(tmp_path, [make_row(narration_timestamp=""), make_row(narration_id="1")]))
    assert [action.narration_timestamp_sec for action in actions] == [3.5, 2.5]
    assert counts(report.repaired) == {"narration_timestamp is missing, the middle of the segment is taken": 1}
    assert "(first: EPIC_100_train.csv line 2, 'P01_01_0')" in str(report)


def test_a_narration_after_the_end_is_placed_in_the_middle(tmp_path):
    rows = [make_row(narration_timestamp="01:00:02.5"), make_row(narration_id="1", video_id="P01_02")]
    rows.append(make_row(narration_id="2", start_timestamp="00:01:00", stop_timestamp="00:01:01"))
    rows[-1]["narration_timestamp"] = ""
    folder = write_annotations(tmp_path, rows, ends={"P01_01": 30.0})
    actions, report = read(folder)
    assert [action.narration_timestamp_sec for action in actions] == [3.5, 2.5]
    assert [tally.count for name, tally in report.repaired.items() if "after the end of the video" in name] == [1]
    assert counts(report.skipped) == {"the segment is after the end of the video": 1}


@pytest.mark.parametrize("stamp, placed", [("00:00:00", 3.5), ("00:00:01", 1.0), ("00:00:06", 6.0), ("00:00:07", 3.5)])
def test_a_narration_far_from_its_action_may_be_placed_in_the_middle(tmp_path, stamp, placed):
    folder = write_annotations(tmp_path, [make_row(narration_timestamp=stamp)])
    assert read(folder)[0][0].narration_timestamp_sec == parse_timestamp(stamp)
    ((action,), report) = read(folder, max_sec_outside=1.0)
    assert action.narration_timestamp_sec == placed and len(report.repaired) == (placed == 3.5)


def test_options_that_are_none_are_named(tmp_path):
    folder = write_annotations(tmp_path, [make_row()])
    with pytest.raises(ValueError, match='labels must be "class" or "annotated", got \'key\''):
        read(folder, labels="key")
    with pytest.raises(ValueError, match="max_sec_outside must be a number from 0 on, got nan"):
        read(folder, max_sec_outside=math.nan)
    with pytest.raises(FileNotFoundError, match="video_dirs is empty"):
        iter_epic_kitchens_actions(folder)
    with pytest.raises(FileNotFoundError, match="nowhere: there is no such folder of videos"):
        iter_epic_kitchens_actions(folder, video_dirs=[tmp_path / "nowhere"])
    with pytest.raises(FileNotFoundError, match="none.csv: there is no such annotation file"):
        read(tmp_path / "none.csv")
    with pytest.raises(FileNotFoundError, match=r"nor EPIC_100_train\.csv or EPIC_100_validation\.csv in it"):
        (tmp_path / "empty").mkdir()
        read(tmp_path / "empty")


# ------------------------------------------------------------------------------------------------------------- videos


@pytest.mark.parametrize(
    "relative",
    [
        "P01/videos/P01_101.MP4",
        "EPIC-KITCHENS/P01/videos/P01_101.MP4",
        "videos/train/P01/P01_101.MP4",
        "videos/test/P01/P01_101.MP4",
        "EPIC_KITCHENS_2018/videos/test/P01/P01_101.MP4",
        "P01/P01_101.mp4",
        "P01_101.mp4",
    ],
)
def test_videos_are_found_in_the_layouts_of_both_releases(tmp_path, relative):
    path = tmp_path / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    assert find_epic_video([tmp_path / "nowhere", tmp_path], "P01_101") == str(path)
    assert find_epic_video([tmp_path], "P01_10") == ""


def test_videos_that_are_missing_are_left_out_and_counted(tmp_path):
    rows = [make_row(narration_id=str(n), video_id=uid) for n, uid in enumerate(["P01_01", "P01_02", "P01_02"])]
    folder = write_annotations(tmp_path / "annotations", rows)
    path = tmp_path / "videos" / "P01" / "videos" / "P01_01.MP4"
    path.parent.mkdir(parents=True)
    path.touch()
    ((action,), report) = read_epic_kitchens_actions(folder, video_dirs=tmp_path / "videos")
    assert action.video_path == str(path)
    assert report.missing_videos == ["P01_02"] and counts(report.skipped) == {"the video is not on disk": 2}
    assert "videos: not on disk: 1 (first: P01_02)" in str(report)
    assert len(read(folder, video_dirs=[tmp_path / "videos"])[0]) == 3


def test_train_and_validation_are_read_together_or_apart(tmp_path):
    write_annotations(tmp_path, [make_row()])
    write_annotations(tmp_path, [make_row(narration_id="v", video_id="P02_01")], name="EPIC_100_validation.csv")
    assert [action.video_uid for action in read(tmp_path)[0]] == ["P01_01", "P02_01"]
    assert [action.video_uid for action in read(tmp_path / "EPIC_100_validation.csv")[0]] == ["P02_01"]


# ------------------------------------------------------------------------------------------------------ hostile lines


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"video_id": "../P01_01"}, "video_id is not a safe file name"),
        ({"video_id": "/etc/passwd"}, "video_id is not a safe file name"),
        ({"video_id": "P01|01"}, "video_id is not a safe file name"),
        ({"video_id": ""}, "video_id is not a safe file name"),
        ({"participant_id": "../P01"}, "participant_id is not a safe file name"),
        ({"narration_timestamp": "nan"}, "narration_timestamp is not hours:minutes:seconds"),
        ({"narration_timestamp": "00:00:nan"}, "narration_timestamp is not hours:minutes:seconds"),
        ({"narration_timestamp": "-1:00:00"}, "narration_timestamp is not hours:minutes:seconds"),
        ({"narration_timestamp": "999999:00:00"}, "narration_timestamp is more than a week"),
        ({"start_timestamp": ""}, "start_timestamp is not hours:minutes:seconds"),
        ({"stop_timestamp": "00:00:01"}, "stop_timestamp is before start_timestamp"),
        ({"verb_class": "97"}, "verb_class is not among the classes"),
        ({"noun_class": "-1"}, "noun_class is not the number of a class"),
        ({"noun_class": "4.0"}, "noun_class is not the number of a class"),
        ({"narration": "", "verb": ""}, "narration is empty"),
        ({"narration": "take " + "cup " * 5000}, "narration is longer than 10000 characters"),
        ({"narration_id": "first"}, "narration_id is there twice"),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_bad_lines_are_skipped_by_name_and_counted(tmp_path, changes, reason):
    rows = [make_row(narration_id="first"), make_row(**changes), make_row(narration_id="last")]
    actions, report = read(write_annotations(tmp_path, rows))
    assert [action.narration_id for action in actions] == ["first", "last"]
    assert counts(report.skipped) == {reason: 1} and report.total == 3
    assert report.skipped[reason].first.startswith("EPIC_100_train.csv line 3")


@pytest.mark.parametrize("cut", [1, 2, 5, 12, 20, 30, 60, 100])
@pytest.mark.parametrize("newline", ["", "\n"])
def test_a_torn_last_line_is_skipped(tmp_path, cut, newline):
    folder = write_annotations(tmp_path, [make_row(), make_row(narration_id="torn")])
    path = folder / "EPIC_100_train.csv"
    path.write_text(path.read_text().rstrip()[:-cut] + newline)
    actions, report = read(folder)
    assert [action.narration_id for action in actions] == ["P01_01_0"]
    assert [tally.count for tally in report.skipped.values()] == [1] and report.total == 2
    assert "torn" in next(iter(report.skipped))


def test_an_open_quote_takes_lines_along_that_are_counted(tmp_path):
    folder = write_annotations(tmp_path, [make_row(narration_id=str(index)) for index in range(9)])
    path = folder / "EPIC_100_train.csv"
    lines = path.read_text().splitlines()
    lines[4] = lines[4].replace("put down", '"put down').replace("['knife', 'drawer']", "[]").replace('"[', "[")
    path.write_text("\n".join(lines) + "\n")
    actions, report = read(folder)
    assert [action.narration_id for action in actions][:3] == ["0", "1", "2"]
    assert (
        report.total == 9 and report.kept == len(actions) and report.kept + sum(counts(report.skipped).values()) == 9
    )


def test_a_line_in_another_encoding_is_skipped_alone(tmp_path):
    folder = write_annotations(tmp_path, [make_row(), make_row(narration_id="1", narration="take purée")])
    path = folder / "EPIC_100_train.csv"
    assert [action.narration for action in read(folder)[0]][1] == "take purée"
    path.write_bytes(path.read_text(encoding="utf-8").encode("latin-1"))
    actions, report = read(folder)
    assert len(actions) == 1 and counts(report.skipped) == {"narration is not valid Unicode": 1}


def test_marks_and_columns_of_other_programs_do_no_harm(tmp_path):
    """A byte order mark, carriage returns, the index that pandas writes, columns in another order."""
    folder = write_annotations(tmp_path, [make_row()], ["", *reversed(COLUMNS)])
    path = folder / "EPIC_100_train.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n").replace(b"\r\r", b"\r"))
    actions, report = read(folder)
    assert [action.narration_id for action in actions] == ["P01_01_0"] and not report.skipped


def test_files_of_another_kind_are_refused_by_name(tmp_path):
    folder = write_annotations(tmp_path, [make_row()])
    path = folder / "EPIC_100_train.csv"
    for content in (b"", b"a,b\n1,2\n", path.read_text().encode("utf-16"), b"\x00\x01\x02"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="EPIC_100_train.csv: (no column|not a CSV)"):
            read(folder)


@pytest.mark.parametrize("line", ["x,take,['take']", "1", '0,"take', ",,"])
def test_classes_that_are_none_are_refused_with_the_line(tmp_path, line):
    path = tmp_path / "EPIC_100_verb_classes.csv"
    path.write_text(f"id,key,instances\n0,take,['take']\n{line}\n")
    with pytest.raises(ValueError, match="EPIC_100_verb_classes.csv, line 3: not a class"):
        read_class_keys(path)


def test_durations_that_are_none_are_refused_with_the_line(tmp_path):
    folder = write_annotations(tmp_path, [make_row()], ends={"P01_01": 30.0, "P01_02": "nan"})
    with pytest.raises(ValueError, match="EPIC_100_video_info.csv, line 3: duration is no number of seconds"):
        read(folder)

"""Splits: the original's, to the row, and the same from the same seed everywhere."""

import gzip
import json
import random
from pathlib import Path

import numpy as np
import pytest

from transformers_eilev.data.actions import NarratedAction
from transformers_eilev.data.splits import (
    SPLITS,
    _Words,
    count_by_video,
    hold_out_rare_pairs,
    read_split_file,
    split_by_video,
    write_split_files,
)


ANNOTATIONS = Path(__file__).parents[1] / "fixtures" / "data" / "annotations"
HELD_OUT = json.loads(gzip.decompress((ANNOTATIONS / "held_out.json.gz").read_bytes()))


def rows_of(case):
    names = ("frame_path", "structured_verb", "structured_noun")
    return [dict(zip(names, values)) for file in case["files"] for values in HELD_OUT["files"][file]]


@pytest.mark.parametrize("case", HELD_OUT["cases"], ids=lambda case: case["name"])
def test_rare_pairs_are_held_out_as_by_the_original(case):
    rows = rows_of(case)
    split = hold_out_rare_pairs(rows, **case["options"])
    for name in SPLITS:
        assert [rows[index]["frame_path"] for index in getattr(split, name)] == case["expected"][name]
    assert sorted(split.train + split.val + split.test + split.unused) == list(range(len(rows)))


def test_held_out_pairs_are_never_trained_on():
    rows = rows_of(HELD_OUT["cases"][2])
    split = hold_out_rare_pairs(rows, common_share=0.3)
    pairs = {
        name: {(rows[index]["structured_verb"], rows[index]["structured_noun"]) for index in getattr(split, name)}
        for name in SPLITS
    }
    assert pairs["train"] | pairs["val"] == set(split.common_pairs)
    assert pairs["test"] == set(split.rare_pairs)
    assert not pairs["test"] & (pairs["train"] | pairs["val"])
    common = len(split.train) + len(split.val)
    assert common >= 0.3 * (common + len(split.test))
    assert str(split).startswith(f"train {len(split.train)}, val {len(split.val)}, test {len(split.test)}, unused 22")


def test_actions_serve_as_well_as_rows():
    actions = [
        NarratedAction(
            video_uid="v",
            clip_index=index,
            narration_timestamp_sec=1.0,
            narration_text="#C C",
            structured_verb=row["structured_verb"],
            structured_noun=row["structured_noun"],
        )
        for index, row in enumerate(rows_of(HELD_OUT["cases"][0]))
    ]
    case = HELD_OUT["cases"][0]
    assert hold_out_rare_pairs(actions, **case["options"]) == hold_out_rare_pairs(rows_of(case), **case["options"])
    assert count_by_video(actions) == {"v": len(actions)}


def test_nothing_gives_empty_splits():
    split = hold_out_rare_pairs([], common_share=0.5)
    assert (split.train, split.val, split.test, split.unused) == ([], [], [], [])
    assert split_by_video({}) == {"train": {}, "val": {}, "test": {}}


@pytest.mark.parametrize(
    "options, complaint",
    [
        ({}, "give one of num_common_pairs and common_share"),
        ({"num_common_pairs": 5, "common_share": 0.5}, "num_common_pairs=5 and common_share=0.5"),
        ({"num_common_pairs": -1}, "num_common_pairs must be an integer from 0 on, got -1"),
        ({"common_share": 1.5}, "common_share must be a number from 0 to 1, got 1.5"),
        ({"common_share": float("nan")}, "common_share must be a number from 0 to 1, got nan"),
        ({"common_share": 0.5, "train_share": "0.8"}, "train_share must be a number from 0 to 1, got '0.8'"),
        ({"common_share": 0.5, "seed": 1.0}, "seed must be an integer from 0 on, got 1.0"),
    ],
)
def test_wrong_options_are_named(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        hold_out_rare_pairs(rows_of(HELD_OUT["cases"][0]), **options)


@pytest.mark.parametrize("seed", [0, 42, 2**31, 2**70])
@pytest.mark.parametrize("size", [0, 1, 2, 3, 64, 65, 1000, 20_000])
def test_draws_are_those_of_pythons_generator(seed, size):
    """This Python's; the draws themselves rest on nothing but its `random()`."""
    generator, words = random.Random(seed), _Words(seed)
    assert words.sample_all(range(size)) == generator.sample(range(size), k=size)
    shuffled, expected = list(range(size)), list(range(size))
    words.shuffle(shuffled)
    generator.shuffle(expected)
    assert shuffled == expected


def test_draws_are_the_same_on_every_python():
    """NumPy's legacy generator is another Mersenne Twister, with the same seeding, and frozen for good."""
    bound = 2**25 + 1
    twister = np.random.RandomState([42]).randint(0, 2**32, 1000, dtype=np.uint64).tolist()
    expected = [word >> 6 for word in twister if word >> 6 < bound]
    words = _Words(42)
    assert [words.below(bound) for _ in expected] == expected
    assert _Words(42).sample_all(range(10)) == [1, 0, 4, 9, 6, 5, 8, 2, 3, 7]


def test_too_many_things_are_refused():
    with pytest.raises(ValueError, match="cannot draw from 67,108,864 things"):
        _Words(0).below(2**26)


@pytest.mark.parametrize("shares", [(0.75, 0.75), (0.5, 0.9), (1.0, 0.5), (0.0, 0.5)])
def test_videos_are_dealt_out_whole(shares):
    counts = {f"video{index}": index % 13 for index in range(400)}
    train_val_share, train_share = shares
    splits = split_by_video(counts, train_val_share=train_val_share, train_share=train_share, seed=3)
    together = {uid: count for videos in splits.values() for uid, count in videos.items()}
    assert together == {uid: count for uid, count in counts.items() if count}
    assert sum(len(videos) for videos in splits.values()) == len(together)
    goal = round(sum(counts.values()) * train_val_share)
    num_train, num_train_val = sum(splits["train"].values()), sum((splits["train"] | splits["val"]).values())
    assert goal <= num_train_val < goal + 13
    assert round(goal * train_share) <= num_train < round(goal * train_share) + 13
    assert splits == split_by_video(counts, train_val_share=train_val_share, train_share=train_share, seed=3)


def test_another_seed_is_another_split():
    counts = {f"video{index}": 5 for index in range(50)}
    assert split_by_video(counts, seed=1) != split_by_video(counts, seed=2)


@pytest.mark.parametrize("count", [-1, 1.5, "3", True])
def test_counts_that_are_none_are_named(count):
    with pytest.raises(ValueError, match=r"num_actions\['b'\] must be an integer from 0 on"):
        split_by_video({"a": 1, "b": count})


def test_split_files_are_read_as_written(tmp_path):
    splits = split_by_video({f"video{index}": 3 for index in range(20)})
    paths = write_split_files(splits, tmp_path / "new")
    assert [path.name for path in paths] == ["fho_main_train.json", "fho_main_val.json", "fho_main_test.json"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(path.name for path in paths)
    for path, (name, videos) in zip(paths, splits.items()):
        assert read_split_file(path) == (name, videos)
        assert list(read_split_file(path)[1]) == list(videos)


@pytest.mark.parametrize(
    "content, complaint",
    [
        ("{", "not JSON"),
        ("[]", "split must be the name of a split"),
        ('{"split": "train"}', "videos must map ids to numbers"),
        ('{"split": "train", "videos": {"../a": 1}}', "video_uid is not a safe file name, got '../a'"),
        ('{"split": "train", "videos": {"a": -1}}', r"videos\['a'\] must be a count, got -1"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_wrong_split_files_are_named(tmp_path, content, complaint):
    path = tmp_path / "fho_main_train.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=complaint) as caught:
        read_split_file(path)
    assert str(path) in str(caught.value)

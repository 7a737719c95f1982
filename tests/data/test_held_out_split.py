"""`run_held_out_split.py`: CSV files that trainings and evaluations read, with no pair on both sides."""

import subprocess
import sys
from pathlib import Path

import pytest
from training.clip_stores import rows_of, write_annotations, write_clip_store

from transformers_eilev.data import SyntheticConfig, hold_out_rare_pairs, load_narrated_clips, make_synthetic_dataset
from transformers_eilev.data.action_files import read_actions
from transformers_eilev.data.splits import SPLITS


SCRIPT = Path(__file__).parents[2] / "examples" / "data" / "run_held_out_split.py"


def run(*arguments):
    return subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True)


def pairs_of(rows):
    return {(row["structured_verb"], row["structured_noun"]) for row in rows}


def skewed_rows(num_clips):
    """Half of them of one pair."""
    for row in rows_of("train", num_clips):
        yield {**row, **({"structured_verb": "wash", "structured_noun": "cup"} if row["clip_index"] < 2 else {})}


def test_a_training_reads_what_was_split(tmp_path):
    store = write_clip_store(tmp_path / "clips", num_train=16, num_val=2)
    annotations = write_annotations(tmp_path / "actions.csv", skewed_rows(16))
    options = ["--num_common_pairs", 3, "--seed", 7]
    done = run(annotations, "--source", "csv", "--output_dir", tmp_path / "top-3", *options)
    assert done.returncode == 0, done.stderr
    expected = hold_out_rare_pairs(list(skewed_rows(16)), num_common_pairs=3, seed=7)
    assert done.stdout.splitlines()[0] == str(expected)
    clips = {
        name: load_narrated_clips(store, annotation_file=tmp_path / "top-3" / f"{name}.csv").to_list()
        for name in SPLITS
    }
    for name, rows in clips.items():
        names = [list(skewed_rows(16))[row]["frame_path"] for row in getattr(expected, name)]
        assert [row["frame_path"] for row in rows] == names
        assert all(len(row["frames"]) == 8 for row in rows)
    assert pairs_of(clips["train"]) | pairs_of(clips["val"]) == set(expected.common_pairs)
    assert not pairs_of(clips["test"]) & set(expected.common_pairs) and clips["test"]


def test_a_store_is_split_as_its_rows(tmp_path):
    store = write_clip_store(tmp_path / "clips", num_train=20, num_val=2)
    done = run(store, "--output_dir", tmp_path, "--common_share", 0.4, "--train_share", 0.5)
    assert done.returncode == 0, done.stderr
    expected = hold_out_rare_pairs(list(rows_of("train", 20)), common_share=0.4, train_share=0.5)
    for name in SPLITS:
        rows = read_actions(tmp_path / f"{name}.csv", source="csv")
        names = [list(rows_of("train", 20))[row]["frame_path"] for row in getattr(expected, name)]
        assert [row["frame_path"] for row in rows] == names


@pytest.fixture(scope="module")
def ego4d(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set") / "ego4d"
    make_synthetic_dataset(folder, SyntheticConfig(hours=0.01, video_sec=18, image_size=56, fps=5))
    return folder


def test_a_data_set_is_read_whole_or_by_split(ego4d):
    whole = read_actions(ego4d, source="ego4d")
    parts = [read_actions(ego4d, source="ego4d", split=name) for name in ("train", "val")]
    there = {row["frame_path"] for row in whole}
    assert len(there) == len(whole) > 0
    for part in parts:
        assert {row["frame_path"] for row in part} <= there and len(part) < len(whole)
    more = read_actions(ego4d, source="ego4d", keep_missing_videos=True)
    assert there <= {row["frame_path"] for row in more} and len(more) > len(whole)


def test_one_measure_of_what_is_common_is_wanted(tmp_path):
    done = run(tmp_path, "--output_dir", tmp_path / "out", "--num_common_pairs", 3, "--common_share", 0.5)
    assert done.returncode == 2 and "not allowed with" in done.stderr
    assert not (tmp_path / "out").exists()

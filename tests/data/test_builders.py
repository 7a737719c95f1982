"""The sets as `datasets` has them: the original's rows and splits, cached by content, streamed and shared out."""

import copy
import csv
import gzip
import json
import logging
import os
from collections import Counter
from pathlib import Path

import datasets
import pytest
from datasets.distributed import split_dataset_by_node
from torch.utils.data import DataLoader

from transformers_eilev.data import builders, load_ego4d, load_epic_kitchens
from transformers_eilev.data.builders import Ego4dNarratedActions, EpicKitchensNarratedActions
from transformers_eilev.data.ego4d import iter_ego4d_actions


ANNOTATIONS = Path(__file__).parents[1] / "fixtures" / "data" / "annotations"
CONTENT = json.loads(gzip.decompress((ANNOTATIONS / "fho_main.json.gz").read_bytes()))
EXPECTED = json.loads(gzip.decompress((ANNOTATIONS / "ego4d_expected.json.gz").read_bytes()))


@pytest.fixture(autouse=True)
def quiet_and_small(monkeypatch):
    monkeypatch.setattr(builders, "SHARD_SIZE", 40)
    datasets.disable_progress_bars()


class Ego4d:
    """A download of Ego4D with the original's test annotations, and a cache."""

    def __init__(self, folder):
        self.root = folder / "ego4d"
        self.cache = folder / "cache"
        self.annotation_file = self.root / "v2" / "annotations" / "fho_main.json"
        self.videos = self.root / "v2" / "full_scale"
        self.annotation_file.parent.mkdir(parents=True)
        self.videos.mkdir()
        self.content = copy.deepcopy(CONTENT)
        self.write()
        for video_uid in EXPECTED["present_videos"]:
            (self.videos / f"{video_uid}.mp4").touch()

    def write(self):
        self.annotation_file.write_text(json.dumps(self.content))

    def load(self, *args, **options):
        return load_ego4d(self.root, *args, cache_dir=self.cache, **options)


@pytest.fixture
def ego4d(tmp_path):
    return Ego4d(tmp_path)


def no_reading(*args, **kwargs):
    raise AssertionError("the annotations are parsed again")


# --------------------------------------------------------------------------------------------------------------- Ego4D


def test_rows_and_splits_are_the_originals(ego4d):
    dataset = ego4d.load()
    assert isinstance(dataset, datasets.DatasetDict)
    assert list(dataset) == ["train", "val", "test"]
    for split, videos in EXPECTED["splits"].items():
        assert Counter(dataset[split]["video_uid"]) == dict(videos)
    # The same rows as without `datasets`, in the order of the annotation file.
    rows = {row.frame_path: row.to_row() for row in iter_ego4d_actions(ego4d.root)}
    for split in dataset.values():
        order = [list(rows).index(frame_path) for frame_path in split["frame_path"]]
        assert order == sorted(order)
        assert split.to_list() == [rows[frame_path] for frame_path in split["frame_path"]]
    assert sum(map(len, dataset.values())) == len(rows) == 236


def test_columns_say_what_they_are(ego4d, tmp_path):
    dataset = ego4d.load(split="train")
    assert dataset.features == datasets.Features(
        {
            "video_uid": datasets.Value("string"),
            "clip_index": datasets.Value("int32"),
            "frame_path": datasets.Value("string"),
            "narration_timestamp_sec": datasets.Value("float64"),
            "narration_text": datasets.Value("string"),
            "structured_verb": datasets.Value("string"),
            "structured_noun": datasets.Value("string"),
            "video_path": datasets.Value("string"),
        }
    )
    for builder_class in (Ego4dNarratedActions, EpicKitchensNarratedActions):
        data_dir = ego4d.root if builder_class is Ego4dNarratedActions else write_epic(tmp_path / "epic")
        builder = builder_class(data_dir=str(data_dir), cache_dir=str(ego4d.cache))
        for column in builder.info.features:
            assert column in builder.info.description


def test_a_split_may_be_any_that_datasets_knows(ego4d):
    assert len(ego4d.load(split="all")) == 236
    both = ego4d.load(split="train[:10]+test")
    assert len(both) == 34
    assert len(list(ego4d.load(split="all", streaming=True))) == 236


def test_the_cache_is_used_again(ego4d, monkeypatch):
    before = ego4d.load()
    monkeypatch.setattr(builders, "iter_ego4d_actions", no_reading)
    assert ego4d.load()["val"].to_list() == before["val"].to_list()
    assert [*ego4d.load(streaming=True)["val"]] == before["val"].to_list()


def test_a_changed_annotation_file_gives_new_data(ego4d):
    before = ego4d.load(split="all")
    stamp = ego4d.annotation_file.stat()
    video = next(video for video in ego4d.content["videos"] if video["video_uid"] == before[0]["video_uid"])
    for interval in video["annotated_intervals"]:
        for action in interval["narrated_actions"]:
            # Of the same length, so that neither size nor time of the file tells.
            action["narration_text"] = action["narration_text"][::-1].rstrip()[::-1].replace("#C C ", "#c C ")
    ego4d.write()
    os.utime(ego4d.annotation_file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    after = ego4d.load(split="all")
    assert len(after) == len(before)
    assert after[0]["narration_text"] == before[0]["narration_text"].replace("#C C ", "#c C ")
    assert [*ego4d.load(split="all", streaming=True)] == after.to_list()


def test_videos_that_come_or_go_give_new_data(ego4d):
    before = ego4d.load(split="all")
    video_uid = before[0]["video_uid"]
    (ego4d.videos / f"{video_uid}.mp4").unlink()
    after = ego4d.load(split="all")
    assert set(after["video_uid"]) == set(before["video_uid"]) - {video_uid}
    (ego4d.videos / f"{video_uid}.mp4").touch()
    assert ego4d.load(split="all").to_list() == before.to_list()


def test_options_give_data_of_their_own(ego4d):
    small = ego4d.root / "v2" / "video_540ss"
    small.mkdir()
    (small / f"{EXPECTED['splits']['train'][0][0]}.mp4").touch()
    assert len(ego4d.load(split="all")) == 236
    everything = ego4d.load(split="all", keep_missing_videos=True)
    assert len(everything) == 272
    assert Counter(path == "" for path in everything["video_path"])[True] == 36
    assert {Path(path).parent for path in ego4d.load("video_540ss", split="all")["video_path"]} == {small}
    assert {Path(path).parent for path in ego4d.load(split="all")["video_path"]} == {ego4d.videos}
    assert ego4d.load(split_seed=1)["test"]["video_uid"] != ego4d.load()["test"]["video_uid"]


def test_a_split_without_rows_is_left_out(ego4d, caplog):
    """`datasets` can't read one."""
    dataset = ego4d.load(train_val_share=1.0)
    assert list(dataset) == list(ego4d.load(train_val_share=1.0, streaming=True)) == ["train", "val"]
    assert sum(map(len, dataset.values())) == 236
    assert "test: 0 actions" in caplog.text


def test_split_files(ego4d, tmp_path, caplog):
    paths = {}
    for split, videos in EXPECTED["splits"].items():
        paths[split] = str(tmp_path / f"fho_main_{split}.json")
        Path(paths[split]).write_text(json.dumps({"split": split, "videos": dict(videos)}))
    assert ego4d.load(split_files=paths)["val"].to_list() == ego4d.load()["val"].to_list()
    with caplog.at_level(logging.INFO):
        dataset = ego4d.load(split_files={"validation": paths["val"]})
    num_val = sum(number for _, number in EXPECTED["splits"]["val"])
    assert {split: len(rows) for split, rows in dataset.items()} == {"validation": num_val}
    assert f"not in a split file: {236 - num_val:,}" in caplog.text
    assert f"kept {num_val} of 464" in caplog.text
    with pytest.raises(Exception, match="is in 'train' and in 'again'"):
        ego4d.load(split_files={**paths, "again": paths["train"]})


def test_what_is_left_out_is_said_each_time(ego4d, caplog):
    action = ego4d.content["videos"][1]["annotated_intervals"][0]["narrated_actions"][0]
    action.update(is_rejected=False, is_valid_action=True, narration_timestamp_sec=-5.0)
    ego4d.write()
    for streaming in (False, False, True):
        caplog.clear()
        ego4d.load(streaming=streaming)
        assert "skipped: the video is not on disk: 36" in caplog.text
        assert "skipped: narration_timestamp_sec is negative: 1" in caplog.text
        assert "videos: 26 of 30 on disk" in caplog.text
        assert caplog.records[0].levelname == "WARNING"
    builder = Ego4dNarratedActions(data_dir=str(ego4d.root), cache_dir=str(ego4d.cache / "other"))
    assert builder.report is None
    builder.download_and_prepare()
    assert builder.report[-3].startswith("train: ")


def test_a_torn_annotation_file_is_named_and_leaves_nothing_behind(ego4d):
    text = ego4d.annotation_file.read_text()
    ego4d.annotation_file.write_text(text[: len(text) // 2])
    for streaming in (False, True):
        with pytest.raises(ValueError, match="fho_main.json.*ends early"):
            ego4d.load(streaming=streaming)
    ego4d.annotation_file.write_text(text)
    assert len(ego4d.load(split="all")) == 236
    assert not [*ego4d.cache.rglob("*.tmp")]


def test_a_data_set_without_rows_is_an_error_that_says_why(ego4d):
    for video in ego4d.videos.iterdir():
        video.unlink()
    for streaming in (False, True):
        with pytest.raises(ValueError, match="(?s)no action is left.*the video is not on disk: 272"):
            ego4d.load(streaming=streaming)


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_ego4d(tmp_path / "nowhere", cache_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match="fho_main.json"):
        load_ego4d(cache_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match="EPIC_100_train.csv"):
        load_epic_kitchens(tmp_path, cache_dir=tmp_path)
    with pytest.raises(ValueError, match="'best' not found.*full_scale"):
        load_ego4d(tmp_path, "best", cache_dir=tmp_path)
    with pytest.raises((TypeError, ValueError), match="colour"):
        load_ego4d(tmp_path, cache_dir=tmp_path, colour="red")


# -------------------------------------------------------------------------------------------------- streams and shares


def test_streams_give_the_cached_rows(ego4d):
    cached, stream = ego4d.load(), ego4d.load(streaming=True)
    assert isinstance(stream, datasets.IterableDatasetDict)
    for split, rows in cached.items():
        assert [*stream[split]] == rows.to_list()
        assert stream[split].features == rows.features
    assert stream["train"].num_shards == 4, "153 rows of 40"


@pytest.mark.parametrize("world_size", [2, 3])
def test_nodes_share_the_rows_out(ego4d, world_size):
    """Whether there are as many shards as nodes or not."""
    expected = ego4d.load(split="train")["frame_path"]
    for streaming in (False, True):
        dataset = ego4d.load(split="train", streaming=streaming)
        parts = [split_dataset_by_node(dataset, rank=rank, world_size=world_size) for rank in range(world_size)]
        rows = [[row["frame_path"] for row in part] for part in parts]
        assert sorted(path for part in rows for path in part) == sorted(expected)
        assert all(rows)


def test_workers_share_a_stream(ego4d):
    stream = ego4d.load(split="train", streaming=True)
    loader = DataLoader(stream, batch_size=None, num_workers=2)
    rows = [row["frame_path"] for row in loader]
    assert sorted(rows) == sorted(ego4d.load(split="train")["frame_path"])


def test_any_number_of_processes_writes_the_same(ego4d):
    one = ego4d.load(split="train")
    ego4d.cache = ego4d.cache.with_name("other")
    two = ego4d.load(split="train", num_proc=2)
    assert two.to_list() == one.to_list()
    assert len(two.cache_files) == 2


# ------------------------------------------------------------------------------------------------------- EPIC-KITCHENS

EPIC_HEADER = """\
narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame,\
narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes
"""


def write_epic(folder, more=()):
    """Invented rows in EPIC-KITCHENS' own files, and a video in each of its two layouts."""
    folder.mkdir()
    train = [("P01_01", 1, "take plate", 0, 0), ("P01_01", 3, "put-down cup", 1, 1), ("P02_101", 2, "wash cup", 2, 1)]
    validation = [("P03_02", 5, "take cup", 0, 1), ("P01_01", 9, "wash plate", 2, 0), *more]
    for split, actions in (("train", train), ("validation", validation)):
        with open(folder / f"EPIC_100_{split}.csv", "w", newline="") as file:
            file.write(EPIC_HEADER)
            writer = csv.writer(file)
            for number, (video_id, second, narration, verb, noun) in enumerate(actions):
                stamps = [f"00:00:{second:02}.500", f"00:00:{second:02}.000", f"00:00:{second + 1:02}.000"]
                words = narration.split(" ")
                writer.writerow(
                    [f"{video_id}_{split}_{number}", video_id[:3], video_id, *stamps, 1, 2, narration]
                    + [words[0], verb, words[-1], noun, f"['{words[-1]}']", f"[{noun}]"]
                )
    for name, keys in {"verb": ["take", "put", "wash"], "noun": ["plate", "cup"]}.items():
        lines = [f"{i},{key},\"['{key}']\"" for i, key in enumerate(keys)]
        (folder / f"EPIC_100_{name}_classes.csv").write_text("\n".join(["id,key,instances", *lines, ""]))
    for video in ("videos/train/P01/P01_01.MP4", "P02/videos/P02_101.MP4", "P03/videos/P03_02.MP4"):
        (folder / video).parent.mkdir(parents=True, exist_ok=True)
        (folder / video).touch()
    return folder


def test_epic_kitchens(tmp_path):
    folder = write_epic(tmp_path / "epic")
    dataset = load_epic_kitchens(folder, cache_dir=tmp_path / "cache")
    assert {split: len(rows) for split, rows in dataset.items()} == {"train": 3, "val": 2}
    row = dataset["train"][1]
    assert row == {
        "video_uid": "P01_01",
        "clip_index": 1,
        "frame_path": "P01_01|1",
        "narration_timestamp_sec": 3.5,
        "narration_text": "The camera wearer puts down the cup.",
        "structured_verb": "put",
        "structured_noun": "cup",
        "video_path": str(folder / "videos/train/P01/P01_01.MP4"),
        "narration_id": "P01_01_train_1",
        "participant_id": "P01",
        "narration": "put-down cup",
        "start_sec": 3.0,
        "stop_sec": 4.0,
        "verb_class": 1,
        "noun_class": 1,
    }
    # A video of both files is numbered through, so that no two clips have one name.
    assert dataset["val"]["frame_path"] == ["P03_02|0", "P01_01|2"]
    stream = load_epic_kitchens(folder, cache_dir=tmp_path / "cache", streaming=True)
    assert [*stream["val"]] == dataset["val"].to_list()
    annotated = load_epic_kitchens(folder, "annotated", cache_dir=tmp_path / "cache")
    assert annotated["train"]["structured_verb"][1] == "put-down"


def test_epic_kitchens_cache_is_by_content_too(tmp_path, monkeypatch, caplog):
    folder = write_epic(tmp_path / "epic")

    def load(**options):
        return load_epic_kitchens(folder, split="all", cache_dir=tmp_path / "cache", **options)

    before = load()
    (folder / "P03/videos/P03_02.MP4").unlink()
    assert len(load()) == 4
    assert "skipped: the video is not on disk: 1" in caplog.text
    (folder / "P03/videos/P03_02.MP4").touch()
    with monkeypatch.context() as context:
        context.setattr(builders, "iter_epic_kitchens_actions", no_reading)
        assert load().to_list() == before.to_list()
    classes = folder / "EPIC_100_noun_classes.csv"
    classes.write_text(classes.read_text().replace("1,cup", "1,mug"))
    assert load()["structured_noun"][1] == "mug"
    assert load(annotation_files={"train": str(folder / "EPIC_100_train.csv")}).num_rows == 3


def test_epic_kitchens_rows_that_are_wrong_are_counted(tmp_path, caplog):
    folder = write_epic(tmp_path / "epic", more=[("../P01_01", 1, "take cup", 0, 1), ("P03_02", 8, "take cup", 99, 1)])
    with open(folder / "EPIC_100_validation.csv", "ab") as file:
        file.write(b'P03_02_9,P03,P03_02,00:00:01,"torn')
    dataset = load_epic_kitchens(folder, cache_dir=tmp_path / "cache")
    assert dataset["val"]["narration_id"] == ["P03_02_validation_0", "P01_01_validation_1"]
    assert "kept 5 of 8" in caplog.text
    assert "video_id is not a safe file name: 1" in caplog.text
    assert caplog.text.count("skipped: ") == 3

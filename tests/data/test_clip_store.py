"""What `datasets` makes of a clip store, and the original's layout, read and written."""

import io
import json
import shutil

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from transformers_eilev.data.clip_store import (
    ClipStoreWriter,
    clip_schema,
    load_clip_store,
    merge_clip_parts,
    read_frame_folders,
    write_frame_folders,
)


ROW = {
    "video_uid": "uid",
    "narration_timestamp_sec": 1.5,
    "narration_text": '#C C says "cut, peel"\n and waits ',
    "structured_verb": "take_(pick,_grab,_get)",
    "structured_noun": "",
}


def clip(index, uid="uid"):
    return {**ROW, "video_uid": uid, "clip_index": index, "frame_path": f"{uid}|{index}"}


def frames(index, num_frames=3):
    """Smooth pictures, none like another."""
    generator = torch.Generator().manual_seed(index)
    coarse = torch.rand(num_frames, 3, 4, 5, generator=generator)
    return (torch.nn.functional.interpolate(coarse, size=(32, 40), mode="bilinear") * 255).to(torch.uint8)


def write_store(folder, indices, *, split="train", **options):
    """As parts of two clips each, merged into shards of about two parts."""
    parts = folder / "parts" / split
    parts.mkdir(parents=True, exist_ok=True)
    (parts / "settings.json").write_text(json.dumps({"layout": "parquet"}))
    for first in indices[::2]:
        with ClipStoreWriter(parts / f"video-{first:03d}.parquet", **options) as writer:
            for index in (first, first + 1):
                writer.write(clip(index), frames(index), frame_sec=[0.0, 0.5, 1.0])
    size = max(path.stat().st_size for path in parts.glob("*.parquet"))
    return merge_clip_parts(folder, split=split, max_shard_bytes=2 * size + 10)


def pixels(images):
    return torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    return str(tmp_path / "cache")


@pytest.mark.parametrize("encoding, worst", [("png", 0), ("webp", 0), ("jpeg", 12)])
def test_datasets_reads_what_was_written(tmp_path, cache, encoding, worst):
    shards = write_store(tmp_path / "store", range(6), encoding=encoding)
    assert [path.name for path in shards] == ["train-00000.parquet", "train-00001.parquet"]
    plain = load_clip_store(tmp_path / "store", cache_dir=cache)
    assert isinstance(plain, datasets.DatasetDict) and plain["train"].num_rows == 6
    split = load_clip_store(tmp_path / "store", "train", cache_dir=cache)
    stream = load_clip_store(tmp_path / "store", "train", streaming=True)
    assert stream.num_shards == 2
    for kind in (split, stream):
        assert kind.features["frames"] == datasets.List(datasets.Image())
        assert kind.features["clip_index"] == datasets.Value("int32")
        rows = list(kind)
        assert [row["clip_index"] for row in rows] == list(range(6))
        for index, row in enumerate(rows):
            assert {key: row[key] for key in clip(index)} == clip(index)
            assert row["frame_sec"] == [0.0, 0.5, 1.0] and row["status"] == "complete"
            difference = pixels(row["frames"]).int() - frames(index).int()
            assert difference.abs().max() <= worst
    # As anybody does who has never heard of this package.
    assert datasets.load_dataset(str(tmp_path / "store"), cache_dir=cache)["train"].features == split.features


def test_splits_and_later_parts(tmp_path, cache):
    store = tmp_path / "store"
    write_store(store, range(4))
    before = [path.read_bytes() for path in sorted(store.glob("data/*"))]
    write_store(store, range(10, 12), split="val")
    write_store(store, range(20, 22))
    loaded = load_clip_store(store, cache_dir=cache)
    assert loaded["train"]["clip_index"][:] == [0, 1, 2, 3, 20, 21] and loaded["val"]["clip_index"][:] == [10, 11]
    assert [path.read_bytes() for path in sorted(store.glob("data/train-*"))][: len(before)] == before
    assert not list(store.rglob("parts/*/*.parquet")) and not list(store.rglob("*.tmp"))
    with pytest.raises(FileNotFoundError, match=r"no split 'test': its splits are \['train', 'val'\]"):
        load_clip_store(store, "test")


def test_a_folder_that_is_not_merged_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no clips: it has no merged splits"):
        load_clip_store(tmp_path)
    parts = tmp_path / "parts" / "train"
    parts.mkdir(parents=True)
    with ClipStoreWriter(parts / "a.parquet") as writer:
        writer.write(clip(0), frames(0), frame_sec=[])
    with pytest.raises(FileNotFoundError, match="1 parts wait for merge_clip_parts"):
        load_clip_store(tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no clips of extract_clips"):
        merge_clip_parts(tmp_path, split="val")


def test_somebody_else_s_readme_stays(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    write_store(tmp_path, range(2))
    assert (tmp_path / "README.md").read_text() == "mine"


def test_schema_is_what_datasets_would_write():
    schema = clip_schema({"participant_id": "string", "verb_class": "int64", "start_sec": "float64", "good": "bool"})
    features = datasets.Features.from_arrow_schema(schema)
    assert features.arrow_schema.equals(schema)
    written, theirs = (json.loads(s.metadata[b"huggingface"]) for s in (schema, features.arrow_schema))
    assert written == theirs


def test_a_writer_leaves_a_whole_file_or_none(tmp_path):
    path = tmp_path / "clips.parquet"
    with pytest.raises(RuntimeError), ClipStoreWriter(path, row_group_size=2) as writer:
        for index in range(3):
            writer.write(clip(index), frames(index), frame_sec=[])
        raise RuntimeError
    with ClipStoreWriter(path):
        pass
    assert list(tmp_path.iterdir()) == []
    with ClipStoreWriter(path, row_group_size=2) as writer:
        for index in range(5):
            writer.write(clip(index), frames(index), frame_sec=[])
            assert not path.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["clips.parquet"]
    metadata = pq.read_metadata(path)
    assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [2, 2, 1]
    # The footer holds no pictures.
    assert metadata.serialized_size < 12_000
    with pytest.raises(ValueError, match="encoding must be one of .* got 'bmp'"):
        ClipStoreWriter(path, encoding="bmp")


# ------------------------------------------------------------------------------------------------------ frame folders


def test_a_store_that_is_written_anew_is_read_anew(tmp_path, cache):
    """In the place of another: `datasets` knows a folder by its name and would give what it has in its cache."""
    store = tmp_path / "store"
    for indices in (range(4), range(10, 12)):
        shutil.rmtree(store, ignore_errors=True)
        write_store(store, indices)
        assert load_clip_store(store, "train", cache_dir=cache)["clip_index"][:] == list(indices)


def test_frame_folders_both_ways(tmp_path, cache):
    write_store(tmp_path / "store", range(4), encoding="png")
    store = load_clip_store(tmp_path / "store", "train", cache_dir=cache)
    raw = store.cast_column("frames", datasets.List(datasets.Image(decode=False)))
    csv_path = write_frame_folders(raw, tmp_path / "raw")
    assert write_frame_folders(store, tmp_path / "decoded").read_bytes() == csv_path.read_bytes()
    # PNGs as they are.
    assert (tmp_path / "raw/uid|0/uid|0|1.png").read_bytes() == raw[0]["frames"][1]["bytes"]
    lines = csv_path.read_bytes().split(b"\r\n", 1)
    assert lines[0].decode() == ",".join([*clip(0)][-1:] + ["video_uid", "clip_index", *list(ROW)[1:]])
    for folder in ("raw", "decoded"):
        back = read_frame_folders(tmp_path / folder, on_bad_row="raise")
        assert back.features == store.features
        for index, row in enumerate(back):
            assert {key: row[key] for key in clip(index)} == {
                **clip(index),
                "narration_text": ROW["narration_text"].strip(),
            }
            assert torch.equal(pixels(row["frames"]), frames(index))
            assert row["status"] == "unknown" and row["frame_sec"] == []


def make_folders(folder, lines, names, *, encoding="utf-8"):
    for name, numbers in names.items():
        (folder / name).mkdir(parents=True)
        for number in numbers:
            buffer = io.BytesIO()
            Image.new("RGB", (8, 6), (number, 0, 0)).save(buffer, "PNG")
            (folder / name / f"{name}|{number}.png").write_bytes(buffer.getvalue())
    (folder / "narrated_actions.csv").write_bytes("\r\n".join(lines).encode(encoding))


def test_frames_stand_in_the_order_of_their_numbers(tmp_path):
    header = "frame_path,video_uid,clip_index,narration_timestamp_sec,narration_text"  # of VideoBLIP: no verb, no noun
    make_folders(tmp_path, [header, "v|3,v,3,1.25,#C C x", ""], {"v|3": range(12)})
    rows = read_frame_folders(tmp_path)
    assert [image.getpixel((0, 0))[0] for image in rows[0]["frames"]] == list(range(12))
    assert (rows[0]["clip_index"], rows[0]["structured_verb"]) == (3, "")


def test_bad_rows_are_left_out_by_line(tmp_path):
    lines = [
        "frame_path,video_uid,clip_index,narration_timestamp_sec,narration_text,structured_verb,structured_noun",
        "v|0,v,0,1.0,#C C x,cut,onion",
        "v|1,v,1,1.0,#C C x,cut,onion",
        "../v|0,v,0,1.0,#C C x,cut,onion",
        "/etc,v,0,1.0,#C C x,cut,onion",
        "link,v,4,1.0,#C C x,cut,onion",
        "v|0,v,0,1.0,#C C x,cut,onion",
        "v|2,v,two,1.0,#C C x,cut,onion",
        "v|2,v,2,nan,#C C x,cut,onion",
        "v|5,v,5,1.0,#C C x,cut,onion",
        "v|2,v,2,1.0,#C C x,c",
    ]
    folder = tmp_path / "frames"
    make_folders(folder, lines, {"v|0": range(2), "v|2": range(2), "v|5": ()})
    (tmp_path / "elsewhere").mkdir()
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.warns(UserWarning, match="9 rows of .* are left out") as caught:
        rows = read_frame_folders(folder)
    assert rows["frame_path"][:] == ["v|0"]
    message = str(caught[0].message)
    for line, reason in [
        (3, "no folder"),
        (4, "frame_path must name a folder"),
        (5, "frame_path must name a folder"),
        (6, "frame_path 'link' leads out of"),
        (7, "a second row of frame_path 'v|0'"),
        (8, "clip_index must be a number, got 'two'"),
        (9, "narration_timestamp_sec must be finite, got 'nan'"),
        (10, "no pictures in"),
        (11, "6 fields and not 7"),
    ]:
        assert any(f"line {line}: {reason}" in part for part in message.splitlines()), (line, reason, message)
    with pytest.raises(ValueError, match="line 3: no folder"):
        read_frame_folders(folder, on_bad_row="raise")


def test_a_csv_that_is_none(tmp_path):
    make_folders(tmp_path, ["a,b", "1,2"], {})
    with pytest.raises(ValueError, match="has no column frame_path, its first line is"):
        read_frame_folders(tmp_path)
    (tmp_path / "narrated_actions.csv").write_bytes(b"frame_path\xff\xfe")
    with pytest.raises(ValueError, match="is not in UTF-8"):
        read_frame_folders(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_frame_folders(tmp_path, annotation_file=tmp_path / "none.csv")


def test_two_clips_of_one_name_are_not_written(tmp_path):
    rows = [{**clip(0), "frames": [Image.new("RGB", (4, 4))]}] * 2
    with pytest.raises(ValueError, match=r"two clips of frame_path 'uid\|0'"):
        write_frame_folders(rows, tmp_path)
    with pytest.raises(ValueError, match="has no frames"):
        write_frame_folders([{**clip(0), "frames": []}], tmp_path)
    assert not (tmp_path / "narrated_actions.csv").exists()

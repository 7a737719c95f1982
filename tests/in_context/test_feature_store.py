"""Features of clips in memory and on disk: what is put is what is got, by whoever and after whatever."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from transformers_eilev.in_context.feature_store import ClipFeatures, ClipFeatureStore


KEYS = [f"{number:02x}" * 32 for number in range(16)]
NAMES = ("video_hidden_states", "vision_embedding", "qformer_embedding")
NUM_BYTES = 4 * (4 * 8 + 6 + 5)


def features_of(number, dtype=torch.float32, message=""):
    generator = torch.Generator().manual_seed(number)
    states, vision, queries = (torch.randn(*shape, generator=generator) for shape in [(4, 8), (6,), (5,)])
    return ClipFeatures(states.to(dtype), vision, queries, message)


def start_python(code, *arguments):
    """Starts another process that has what this module has."""
    code = "import sys\nfrom test_feature_store import *\n" + textwrap.dedent(code)
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        text=True,
    )


def assert_same(one, other):
    for name in NAMES:
        a, b = getattr(one, name), getattr(other, name)
        assert a.dtype == b.dtype and torch.equal(a, b), name
    assert one.message == other.message


def files_in(folder):
    return sorted(path for path in Path(folder).rglob("*") if path.is_file())


@pytest.fixture
def path(tmp_path):
    """The file of `KEYS[1]`."""
    ClipFeatureStore(tmp_path).put(KEYS[1], features_of(1))
    [path] = files_in(tmp_path)
    return path


# ------------------------------------------------------------------------------------------------------------- memory


def test_what_was_put_is_got():
    store = ClipFeatureStore()
    assert store.get(KEYS[0]) is None and KEYS[0] not in store and len(store) == 0
    store.put(KEYS[0], features_of(0, message="half"))
    assert_same(store.get(KEYS[0]), features_of(0, message="half"))
    store.put(KEYS[0], features_of(1))
    assert_same(store.get(KEYS[0]), features_of(1))
    assert KEYS[0] in store and len(store) == 1
    assert (store.hits, store.misses) == (2, 1)


def test_memory_is_bounded_and_what_was_used_last_stays():
    store = ClipFeatureStore(max_memory_bytes=3 * NUM_BYTES + 1)
    for number in range(3):
        store.put(KEYS[number], features_of(number))
    store.get(KEYS[0])
    store.put(KEYS[2], features_of(2))  # put again, it counts once
    assert len(store) == 3
    store.put(KEYS[3], features_of(3))
    assert [key in store for key in KEYS[:4]] == [True, False, True, True]
    store.put(KEYS[4], features_of(4, dtype=torch.float64))  # takes the place of two
    assert [key in store for key in KEYS[:5]] == [False, False, False, True, True]


def test_what_is_larger_than_the_memory_is_not_kept_nor_takes_others_place():
    store = ClipFeatureStore(max_memory_bytes=NUM_BYTES)
    store.put(KEYS[0], features_of(0))
    store.put(KEYS[1], features_of(1, dtype=torch.float64))
    assert [key in store for key in KEYS[:2]] == [True, False]
    store.put(KEYS[0], features_of(0, dtype=torch.float64))
    assert KEYS[0] not in store, "what was there before is not what was put"
    nothing = ClipFeatureStore(max_memory_bytes=0)
    nothing.put(KEYS[0], features_of(0))
    assert nothing.get(KEYS[0]) is None and len(nothing) == 0


def test_what_is_kept_is_no_view_and_nobody_elses():
    batch = torch.randn(100, 4, 8, requires_grad=True)
    store = ClipFeatureStore()
    mine = ClipFeatures(batch[3].mT.contiguous().mT, torch.zeros(6), torch.zeros(5))
    store.put(KEYS[0], mine)
    expected = batch[3].detach().clone()
    with torch.no_grad():
        batch.zero_()
        mine.vision_embedding.fill_(1)
    for _ in range(2):
        got = store.get(KEYS[0])
        assert torch.equal(got.video_hidden_states, expected) and not got.vision_embedding.any()
        assert got.video_hidden_states.untyped_storage().nbytes() == expected.nbytes
        assert not got.video_hidden_states.requires_grad
        got.video_hidden_states.zero_()


# --------------------------------------------------------------------------------------------------------------- disk


def test_another_process_gets_the_same(tmp_path):
    folder = tmp_path / "not" / "there yet"
    store = ClipFeatureStore(folder)
    dtypes = [torch.bfloat16, torch.float16, torch.float32]
    for number, dtype in enumerate(dtypes):
        store.put(KEYS[number], features_of(number, dtype, "Teil fehlt: ½"))
    assert files_in(folder) == [folder / key[:2] / f"{key}.safetensors" for key in KEYS[:3]]
    reader = start_python(
        """
        store = ClipFeatureStore(sys.argv[1])
        assert KEYS[2] in store and len(store) == 3
        for number, dtype in enumerate([torch.bfloat16, torch.float16, torch.float32]):
            assert_same(store.get(KEYS[number]), features_of(number, dtype, "Teil fehlt: ½"))
        store.put(KEYS[6], features_of(6))
        """,
        folder,
    )
    assert reader.wait(60) == 0
    assert_same(store.get(KEYS[6]), features_of(6))
    assert len(store) == 4


def test_what_memory_has_no_room_for_is_on_disk(tmp_path):
    store = ClipFeatureStore(tmp_path, max_memory_bytes=2 * NUM_BYTES)
    for number in range(5):
        store.put(KEYS[number], features_of(number))
    assert len(store) == 5
    for number in range(5):
        assert_same(store.get(KEYS[number]), features_of(number))
    shutil.rmtree(tmp_path)
    assert [store.get(key) is None for key in KEYS[:5]] == [True, True, True, False, False]
    assert_same(pickle.loads(pickle.dumps(store)).get(KEYS[4]), features_of(4))


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def empty(path):
    path.write_bytes(b"")


def flip(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def swap(path):
    ClipFeatureStore(path.parents[1]).put(KEYS[2], features_of(2))
    shutil.copy(path.parents[1] / "02" / f"{KEYS[2]}.safetensors", path)


def foreign(path):
    save_file({"weight": torch.zeros(3)}, path, {"key": KEYS[1]})


def text(path):
    path.write_text("not what it seems to be")


def folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [cut, empty, flip, swap, foreign, text, folder])
def test_a_damaged_file_is_a_miss_and_written_anew(path, damage):
    damage(path)
    store = ClipFeatureStore(path.parents[1])
    with pytest.warns(UserWarning, match=f"{path.name} is damaged"):
        assert store.get(KEYS[1]) is None
    assert (store.hits, store.misses) == (0, 1)
    if damage is folder:
        path.rmdir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.put(KEYS[1], features_of(1))
        assert_same(ClipFeatureStore(path.parents[1]).get(KEYS[1]), features_of(1))


def test_a_folder_that_cant_be_written_to_is_warned_about_once(tmp_path):
    store = ClipFeatureStore(tmp_path)
    store.put(KEYS[1], features_of(1))
    (tmp_path / "02").write_text("in the way of a folder")
    with pytest.warns(UserWarning, match=rf"{tmp_path} can't be written to .*02.*memory only"):
        store.put(KEYS[2], features_of(2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.put(KEYS[3], features_of(3))
    for number in (1, 2, 3):
        assert_same(store.get(KEYS[number]), features_of(number))
    assert len(ClipFeatureStore(tmp_path)) == 1
    assert_same(ClipFeatureStore(tmp_path).get(KEYS[1]), features_of(1))


def test_a_full_disk_leaves_no_half_of_a_file(tmp_path, monkeypatch):
    def no_space(*_):
        raise OSError(28, "No space left on device")

    store = ClipFeatureStore(tmp_path)
    monkeypatch.setattr("os.fsync", no_space)
    with pytest.warns(UserWarning, match="No space left on device"):
        store.put(KEYS[1], features_of(1))
    assert_same(store.get(KEYS[1]), features_of(1))
    assert not list(tmp_path.glob("*/*.safetensors"))
    assert ClipFeatureStore(tmp_path).get(KEYS[1]) is None


# ---------------------------------------------------------------------------------------------------- other processes


def test_two_processes_write_the_same_keys(tmp_path):
    write = """
        store = ClipFeatureStore(sys.argv[1], max_memory_bytes=0)
        warnings.simplefilter("error")
        for _ in range(10):
            for number, key in enumerate(KEYS):
                store.put(key, features_of(number))
                assert_same(store.get(key), features_of(number))
        """
    writers = [start_python(write, tmp_path) for _ in range(2)]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    assert len(files_in(tmp_path)) == len(KEYS), "each file once, and no others"
    store = ClipFeatureStore(tmp_path)
    for number, key in enumerate(KEYS):
        assert_same(store.get(key), features_of(number))


def test_a_killed_writer_leaves_nothing_that_is_not_whole(tmp_path):
    write = """
        store = ClipFeatureStore(sys.argv[1], max_memory_bytes=0)
        large = ClipFeatures(torch.zeros(1000, 1000), torch.zeros(6), torch.zeros(5))
        print("begins", flush=True)
        while True:
            for key in KEYS:
                store.put(key, large)
        """
    for _ in range(2):
        writer = start_python(write, tmp_path)
        assert writer.stdout.readline() == "begins\n"
        time.sleep(0.3)
        writer.send_signal(signal.SIGKILL)
        writer.wait(60)
    (tmp_path / "00").mkdir(exist_ok=True)
    leftover = tmp_path / "00" / f".{KEYS[0]}.safetensors.123-0badcafe.tmp"  # in case none was
    leftover.write_bytes(b"half")
    store = ClipFeatureStore(tmp_path)
    whole = [key for key in KEYS if key in store]
    assert len(whole) == len(store) > 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for key in whole:
            assert store.get(key).video_hidden_states.shape == (1000, 1000)
        store.put(KEYS[0], features_of(0))
    assert leftover.exists(), "it may be one that another process is writing"
    assert_same(ClipFeatureStore(tmp_path).get(KEYS[0]), features_of(0))


# ----------------------------------------------------------------------------------------------------------- arguments


def test_the_file_says_what_it_is(path):
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["key"] == KEYS[1] and set(file.keys()) == set(NAMES)


@pytest.mark.parametrize("key", ["../../../etc/passwd", "", "ab", KEYS[10].upper(), KEYS[0] + "\n"])
def test_other_keys_are_refused(tmp_path, key):
    store = ClipFeatureStore(tmp_path)
    for call in (store.get, store.__contains__, lambda key: store.put(key, features_of(0))):
        with pytest.raises(ValueError, match="`key` must be 64 hexadecimal digits"):
            call(key)


def test_other_arguments_are_refused(path):
    with pytest.raises(ValueError, match="`max_memory_bytes` must not be negative, but is -1"):
        ClipFeatureStore(max_memory_bytes=-1)
    with pytest.raises(NotADirectoryError, match=f"`folder` is {path}"):
        ClipFeatureStore(path)

import pytest
from clip_stores import copy_without_dropout, write_clip_store


@pytest.fixture(scope="session")
def clip_store(tmp_path_factory):
    """Narrated clips: 16 to train on, 6 to evaluate on, of 8 frames of 56 pixels."""
    return write_clip_store(tmp_path_factory.mktemp("store") / "clips")


@pytest.fixture(scope="session")
def checkpoint(golden, tmp_path_factory):
    """A checkpoint of each family, without dropout."""
    return copy_without_dropout(golden.checkpoint, tmp_path_factory.mktemp("checkpoint") / golden.family)

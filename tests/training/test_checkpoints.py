import json

import pytest
import torch
from safetensors.torch import save_file

from transformers_eilev.training import find_last_checkpoint


def write_checkpoint(folder, step):
    folder = folder / f"checkpoint-{step}"
    folder.mkdir()
    save_file({"weight": torch.zeros(100)}, folder / "model.safetensors")
    torch.save({"state": torch.zeros(10)}, folder / "optimizer.pt")
    torch.save({"cpu": torch.zeros(10)}, folder / "rng_state_0.pth")
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return folder


def test_the_last_one(tmp_path):
    assert find_last_checkpoint(tmp_path) is None and find_last_checkpoint(tmp_path / "none") is None
    for step in (9, 10, 100):
        write_checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-200").write_text("a file")
    assert find_last_checkpoint(tmp_path).name == "checkpoint-100"


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "rng_state_0.pth", "trainer_state.json"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_one_that_was_cut_off_is_not_taken(tmp_path, name, share):
    write_checkpoint(tmp_path, 1)
    path = write_checkpoint(tmp_path, 2) / name
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.warns(UserWarning, match=f"checkpoint-2.*{name}"):
        assert find_last_checkpoint(tmp_path).name == "checkpoint-1"


def test_one_without_the_optimizer_is_not_taken(tmp_path):
    (write_checkpoint(tmp_path, 1) / "optimizer.pt").unlink()
    with pytest.warns(UserWarning, match="no state of the optimizer"):
        assert find_last_checkpoint(tmp_path) is None


def test_one_without_its_end_is_not_taken(tmp_path):
    (write_checkpoint(tmp_path, 3) / "trainer_state.json").unlink()
    with pytest.warns(UserWarning, match="no trainer_state.json"):
        assert find_last_checkpoint(tmp_path) is None
    folder = write_checkpoint(tmp_path, 4)
    (folder / "model.safetensors").unlink()
    (folder / "optimizer.pt").unlink()
    with pytest.warns(UserWarning, match="no weights"):
        find_last_checkpoint(tmp_path)

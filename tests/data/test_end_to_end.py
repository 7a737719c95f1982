"""From nothing to a training step, as a user without any data set goes: by the commands that are printed."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from transformers_eilev.commands import app
from transformers_eilev.data import (
    DataCollatorForVideoNarration,
    InContextDataset,
    InContextSampler,
    load_clip_store,
    load_ego4d,
)


ROOT = Path(__file__).parents[2]


def run(*arguments):
    result = CliRunner().invoke(app, ["data", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    options = ["--hours", 0.03, "--image-size", 64, "--video-sec", 36, "--seed", 1]
    run("synthetic", folder / "ego4d", *options)
    run("extract", folder / "ego4d", folder / "clips", "--size", 56, "--num-workers", 0)
    return folder


def test_info_and_split(world):
    output = run("info", world / "ego4d")
    actions = load_ego4d(world / "ego4d")
    for split in actions:
        assert f"{split}: {len(actions[split])} actions" in output
    output = run("split", world / "ego4d", world / "splits")
    assert sum(map(int, re.findall(r"\w+: (\d+) actions in", output))) == sum(map(len, actions.values()))
    assert (world / "splits" / "fho_main_train.json").is_file()


def test_every_action_has_its_clip(world):
    actions, clips = load_ego4d(world / "ego4d"), load_clip_store(world / "clips")
    assert set(clips) == set(actions)
    for split in actions:
        assert sorted(clips[split]["frame_path"]) == sorted(actions[split]["frame_path"])
    row = clips["train"][0]
    assert len(row["frames"]) == 8 and row["frames"][0].size == (56, 56)


def test_a_model_learns_from_it(world, golden):
    clips = load_clip_store(world / "clips", split="train")
    sampler = InContextSampler(clips["structured_verb"], clips["structured_noun"], num_examples=2)
    dataset = InContextDataset(clips, sampler)
    batch = DataCollatorForVideoNarration(golden.interleaved)([dataset[0], dataset[1]])
    assert batch["pixel_values"].shape == (6, 8, 3, 56, 56)
    narration = [token for token in batch["labels"][0].tolist() if token != -100]
    assert golden.interleaved.tokenizer.decode(narration, skip_special_tokens=True).strip()
    with torch.no_grad():
        assert golden.model(**batch).loss.isfinite()


def test_the_commands_of_the_readme(golden_opt, tmp_path):
    """As they are printed, with the repository's checkpoint."""
    text = (ROOT / "examples" / "data" / "README.md").read_text()
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    program = {
        "transformers-eilev": [str(Path(sys.executable).with_name("transformers-eilev"))],
        "python": [sys.executable],
    }
    for line in re.search(r"```bash\n(.*?)```", text, flags=re.DOTALL).group(1).splitlines():
        name, *arguments = shlex.split(line)
        is_batch = "examples/data/run_training_batch.py" in arguments
        if is_batch:
            arguments += ["--model", str(golden_opt.checkpoint)]
        result = subprocess.run([*program[name], *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        assert not is_batch or "loss" in result.stdout
    assert (tmp_path / "top-100" / "train.csv").exists() and (tmp_path / "standard.csv").exists()
    code = re.search(r"```python\n(.*?)```", text, flags=re.DOTALL).group(1)
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_what_is_wrong_is_said_in_one_line(world, tmp_path):
    for arguments, message in [
        (["info", tmp_path / "nowhere"], "nowhere"),
        (["extract", world / "ego4d", tmp_path / "clips", "--shard", "3"], "--shard"),
        (["extract", world / "ego4d", tmp_path / "clips", "--split", "tests"], "tests"),
        (["synthetic", tmp_path / "set", "--hours", "-1"], "hours"),
    ]:
        result = CliRunner().invoke(app, ["data", *map(str, arguments)])
        assert result.exit_code == 1 and message in result.output, result.output

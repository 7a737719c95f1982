"""The README's commands and code, run as they are printed, but for the names of checkpoints and clips."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, golden_opt, videos_path):
    """A folder with the clips and checkpoints that the README names."""
    folder = tmp_path_factory.mktemp("readme")
    for name in set(re.findall(r"\b\w+\.mp4", README)):
        (folder / name).symlink_to(videos_path / "good_cfr_bframes.mp4")
    for name in set(re.findall(r"kpyu/[\w.-]+", README)):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(golden_opt.checkpoint)
    (folder / "examples").symlink_to(ROOT / "examples")
    narrated = [
        "path,narration",
        "cup.mp4,The camera wearer washes a cup.",
        "door.mp4,The camera wearer opens a door.",
    ]
    (folder / "mine.csv").write_text("\n".join(narrated))
    return folder


def test_python(folder):
    """One after the other, as a reader goes."""
    for command in commands():
        if command[:2] == ["transformers-eilev", "data"]:
            run(command, folder)
    code = "\n".join(blocks("python"))
    assert code.count("from_pretrained") >= 2 and "classify" in code
    result = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def commands():
    for block in blocks("bash"):
        for line in block.replace("\\\n", " ").splitlines():
            yield shlex.split(line)


@pytest.mark.parametrize(
    "command",
    [
        command
        for command in commands()
        if command[0] in ("transformers-eilev", "python")
        and command[1] not in ("data", "convert", "export", "card")
        # Run below, and, as they end with a signal, in tests/demo.
        and not any(part in command[1] for part in ("/training/", "/evaluation/", "/demo/"))
    ],
    ids=" ".join,
)
def test_commands(command, folder):
    if command[1].startswith("narrate"):
        command = [*command, "--model", "kpyu/eilev-blip2-opt-2.7b"]  # the default, to be had on the Hub alone
    said = run(command, folder)
    if "--output" in command:
        said = (folder / command[command.index("--output") + 1]).read_text()
    assert said.strip()


def test_training_commands(folder):
    """In one process, from the repository's checkpoint, and for a step."""
    for command in commands():
        if command[:2] == ["transformers-eilev", "data"]:
            run(command, folder)
    quick = f"""
        --model_name_or_path {folder / "kpyu/eilev-blip2-opt-2.7b"} --max_steps 1 --gradient_accumulation_steps 1
        --per_device_train_batch_size 2 --eval_steps 1 --max_val_samples 1 --dataloader_num_workers 0 --use_cpu
        --report_to none
    """.split()
    examples = ["--train_num_in_context_examples_per_sample", "2", "--val_num_in_context_examples_per_sample", "1"]
    found = [command for command in commands() if any("examples/training/run_" in part for part in command)]
    assert len(found) == 4
    # One of each script: their files of arguments are compared with the original's elsewhere.
    for command in (found[0], found[2]):
        script = next(i for i, part in enumerate(command) if part.endswith(".py"))
        more = examples if "eilev" in command[script] else []
        run(["python", *command[script:], *quick, *more], folder)
        assert (folder / command[command.index("--output_dir") + 1] / "model.safetensors").is_file()


def test_evaluation_commands(folder):
    """In one process, of a few clips, by a metric that needs no model."""
    for command in commands():
        if command[:2] == ["transformers-eilev", "data"]:
            run(command, folder)
    found = [command for command in commands() if any("examples/evaluation/run_" in part for part in command)]
    assert len(found) == 3
    for command in found:
        script = next(i for i, part in enumerate(command) if part.endswith(".py"))
        quick = ["--num_queries", "2", "--shots", "0", "2", "--max_new_tokens", "3"]
        if "generation" in command[script]:
            quick += ["--metrics", "exact", "rouge_l"]
        run(["python", *command[script:], *(quick if command[0] == "torchrun" else [])], folder)
    report = (folder / "report" / "report.md").read_text()
    assert "clips exchanged among the narrations" in report and "Macro F1 of nouns" in report


def test_sharing_commands(folder):
    """One after the other, the card with the result of an evaluation."""
    labels = {
        "task": "generation",
        "model": "eilev-blip2-opt-2.7b",
        "dataset": "ego4d",
        "condition": "in_context",
        "shots": 2,
        "seed": 0,
    }
    record = {**labels, "num_queries": 8, "metrics": {"exact": {"value": 0.5, "interval": None}}, "unavailable": {}}
    path = folder / "results" / "of-sharing" / "results.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(record))
    found = [command for command in commands() if command[1] in ("convert", "export", "card")]
    assert [command[1] for command in found] == ["convert", "export", "card"]
    for command in found:
        run(command, folder)
    assert (folder / "eilev-with-code" / "modeling_video_blip_2.py").exists()
    assert "0.5" in (folder / "eilev-today" / "README.md").read_text()


def run(command, folder):
    program = {
        "transformers-eilev": [str(Path(sys.executable).with_name("transformers-eilev"))],
        "python": [sys.executable],
    }
    result = subprocess.run(program[command[0]] + command[1:], cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_make_targets_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make (\w+)", README, flags=re.MULTILINE))
    assert {"narrate", "test", "bench"} <= named <= targets
    assert not re.search(r"\b[A-Z]+_[A-Z]+\b", re.sub(r"`[^`]*`", "", README)), "a placeholder was left"
    assert all(c[0] in ("transformers-eilev", "python", "torchrun", "make", "pip") for c in commands())


def test_every_path_exists():
    for path in re.findall(r"`((?:src|examples|tests)/[\w/]+(?:\.\w+)?)`", README):
        assert (ROOT / path).exists(), path

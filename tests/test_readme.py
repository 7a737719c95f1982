"""The README's commands and code, run as they are printed, but for the names of checkpoints and clips."""

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
    "command", [c for c in commands() if c[0] in ("transformers-eilev", "python") and c[1] != "data"], ids=" ".join
)
def test_commands(command, folder):
    if "narrate" in command:
        command = [*command, "--model", "kpyu/eilev-blip2-opt-2.7b"]  # the default, to be had on the Hub alone
    assert run(command, folder).strip()


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
    assert all(c[0] in ("transformers-eilev", "python", "make", "pip") for c in commands())


def test_every_path_exists():
    for path in re.findall(r"`((?:src|examples|tests)/[\w/]+(?:\.\w+)?)`", README):
        assert (ROOT / path).exists(), path

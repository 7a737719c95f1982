"""Checkpoints in the package: found by name, computed with in float32, with a notice. Some are made for the tests."""

import json
import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor, pipeline
from typer.testing import CliRunner

import transformers_eilev
from transformers_eilev import embedded_checkpoint, embedded_checkpoint_names, embedded_checkpoints
from transformers_eilev.commands import app
from transformers_eilev.embedded_checkpoints import find_checkpoint
from transformers_eilev.notices import notice_of


ROOT = Path(__file__).parents[1]
NAME = "eilev-synthetic-opt"
NOTICE = "It has random weights: what it says means nothing."
GREEDY = {"max_new_tokens": 6, "num_beams": 1, "do_sample": False, "repetition_penalty": 1.0}
OPTIONS = [
    "--max-new-tokens",
    "6",
    "--num-beams",
    "1",
    "--no-do-sample",
    "--repetition-penalty",
    "1",
    "--device",
    "cpu",
]


def write_stand_in(folder, golden):
    """As `examples/training/synthetic` exports: float16 on disk, float32 in the configuration."""
    model = AutoModelForImageTextToText.from_pretrained(golden.checkpoint)
    model.config.notice = NOTICE
    model.half().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "float32"}))
    golden.interleaved.save_pretrained(folder)
    (folder / "README.md").write_text("# A stand-in\n")
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory, golden_opt):
    root = tmp_path_factory.mktemp("package") / "embedded"
    write_stand_in(root / NAME, golden_opt)
    shutil.copytree(root / NAME, root / "another")
    (root / "__pycache__").mkdir()
    return root


@pytest.fixture(autouse=True)
def use_stand_in(request, monkeypatch):
    if "root" in request.fixturenames:
        root = request.getfixturevalue("root")
        monkeypatch.setattr(embedded_checkpoints, "_root", lambda: root)


@pytest.fixture
def clip(videos_path):
    return str(videos_path / "short_2s.mp4")


# Finding


def test_names(root):
    assert embedded_checkpoint_names() == ["another", NAME]
    assert embedded_checkpoint() == embedded_checkpoint(NAME) == str(root / NAME)
    with pytest.raises(ValueError, match=rf"'eilev'.*\['another', '{NAME}'\]"):
        embedded_checkpoint("eilev")


@pytest.mark.parametrize("name", ["", ".", "..", "__pycache__", f"../embedded/{NAME}", "/"])
def test_no_other_folder_is_a_checkpoint(root, name):
    with pytest.raises(ValueError, match="comes with the package"):
        embedded_checkpoint(name)


def test_a_name_in_a_command(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint(NAME) == str(root / NAME)
    for other in ("kpyu/eilev-blip2-opt-2.7b", "gpt2", f"./{NAME}", str(tmp_path), f"kpyu/{NAME}"):
        assert find_checkpoint(other) == other
    (tmp_path / NAME).mkdir()
    assert find_checkpoint(NAME) == NAME, "what the user made goes first"


def test_folders_are_found_where_the_package_is():
    assert embedded_checkpoints._root() == Path(transformers_eilev.__file__).parent / "embedded"


# Loading


def test_computed_in_float32_from_float16(root, golden_opt):
    stored = load_file(root / NAME / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    for options in ({}, {"dtype": "auto"}):
        model = AutoModel.from_pretrained(embedded_checkpoint(), **options)
        assert {weight.dtype for weight in model.parameters()} == {torch.float32} == {model.dtype}
        assert all(torch.equal(model.state_dict()[name].half(), weight) for name, weight in stored.items())
    narrate = pipeline("video-narration", model=embedded_checkpoint(), device="cpu")
    assert narrate.model.dtype == torch.float32
    assert AutoModel.from_pretrained(embedded_checkpoint(), dtype=torch.float16).dtype == torch.float16


def test_what_is_saved_of_it_keeps_the_notice_and_the_weights(root, tmp_path):
    model = AutoModel.from_pretrained(embedded_checkpoint())
    model.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path)
    assert again.config.notice == NOTICE and again.dtype == torch.float32
    assert all(torch.equal(again.state_dict()[name], weight) for name, weight in model.state_dict().items())


# Narrating


def run(*arguments):
    return CliRunner().invoke(app, ["narrate", *map(str, arguments)])


def test_the_command_takes_the_name(root, clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(clip, "What?", "--model", NAME, *OPTIONS)
    assert result.exit_code == 0, result.output
    assert NOTICE in result.stderr and NOTICE not in result.stdout
    narrate = pipeline("video-narration", model=embedded_checkpoint(), device="cpu")
    assert result.stdout.strip() == narrate(clip, prompt="What?", **GREEDY)[0]["generated_text"].strip() != ""
    assert run(clip, "What?", "--model", root / NAME, *OPTIONS).stdout == result.stdout
    assert run(clip, "What?", "--model", "another", "--processor", NAME, *OPTIONS).stdout == result.stdout
    (tmp_path / NAME).mkdir()
    assert run(clip, "What?", "--model", NAME, *OPTIONS).exit_code == 1, "the folder of that name is empty"


def test_the_pipeline_says_the_notice_once(root, golden_opt, clip, caplog):
    with caplog.at_level(logging.WARNING):
        narrate = pipeline("video-narration", model=embedded_checkpoint(), device="cpu")
        narrate([clip, clip], **GREEDY)
        narrate(clip, **GREEDY)
    assert caplog.text.count(NOTICE) == 1
    caplog.clear()
    pipeline("video-narration", model=golden_opt.model, processor=golden_opt.interleaved, device="cpu")(clip, **GREEDY)
    assert "means nothing" not in caplog.text


def test_no_notice_without_one(golden_opt, clip):
    result = run(clip, "What?", "--model", golden_opt.checkpoint, *OPTIONS)
    assert result.exit_code == 0 and "means nothing" not in result.stderr


@pytest.mark.parametrize(
    "notice, shown",
    [
        ("Two\nlines,\ttoo ", "Two lines, too"),
        ("\x1b]0;title\x07\x1b[31mred", "]0;title [31mred"),
        ("Übung – ok", "Übung – ok"),
        ("", None),
        (" \n", None),
        (None, None),
        (["a"], None),
        (7, None),
    ],
)
def test_a_notice_is_one_line_of_text(notice, shown, golden_opt):
    config = AutoConfig.from_pretrained(golden_opt.checkpoint)
    assert notice_of(config) is None
    config.notice = notice
    assert notice_of(config) == shown


# Shipping


def test_the_folders_are_package_data(root, tmp_path):
    """What setuptools would put into a wheel, of a package with a checkpoint in it."""
    pytest.importorskip("setuptools")
    for name in ("setup.py", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    package = tmp_path / "src" / "transformers_eilev"
    shutil.copytree(root, package / "embedded")
    (package / "__init__.py").touch()
    code = """
import setuptools
from distutils.core import run_setup
command = run_setup("setup.py", stop_after="init").get_command_obj("build_py")
command.ensure_finalized()
for package, source, _, names in command.data_files:
    for name in names:
        print(source, name)
"""
    done = subprocess.run(
        [sys.executable, "-c", "import setuptools\n" + code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    files = {line.split()[1] for line in done.stdout.splitlines()}
    expected = {str(path.relative_to(package)) for path in (package / "embedded" / NAME).iterdir()}
    assert {f"embedded/{NAME}/model.safetensors", f"embedded/{NAME}/README.md"} <= expected <= files


def make_narrate(*variables):
    if shutil.which("make") is None:
        pytest.skip("there is no make here")
    done = subprocess.run(["make", "-n", "narrate", *variables], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.replace("\\\n", " ")


def test_make_narrate():
    printed = make_narrate()
    commands = [line for line in printed.splitlines() if "transformers-eilev" in line]
    (known,), (first, second, query) = (re.findall(r"examples/narration/\w+\.mp4", command) for command in commands)
    assert all((ROOT / clip).is_file() for clip in (known, first, second, query))
    assert printed.count(f'--model "{NAME}"') == 2
    for clip, narration in re.findall(r'(\S+\.mp4)"? "Question: [\w ]+\? Answer: (.+?)"', printed):
        assert clip in (first, second) and narration == narration_of(clip)
    assert narration_of(known) in printed and narration_of(query) in printed
    verb, noun = Path(query).stem.split("_the_")
    assert Path(first).stem.startswith(f"{verb}_the_") and Path(second).stem.endswith(f"_the_{noun}")


def narration_of(clip):
    """A clip's name is its narration."""
    return f"The camera wearer {Path(clip).stem.replace('_', ' ')}."


def test_make_narrate_with_a_clip_of_ones_own():
    printed = make_narrate("CLIP=my mixer.mp4", "CHECKPOINT=kpyu/eilev-blip2-opt-2.7b")
    assert printed.count('"my mixer.mp4"') == 2 and printed.count('--model "kpyu/eilev-blip2-opt-2.7b"') == 2
    assert "shows" not in printed


# Those that are in the package


@pytest.mark.parametrize("name", embedded_checkpoint_names())
def test_what_comes_with_the_package(name):
    folder = Path(embedded_checkpoint(name))
    assert "real" in notice_of(AutoConfig.from_pretrained(folder))
    assert (folder / "README.md").read_text().startswith("---\nlicense: mit")
    model, info = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert model.dtype == torch.float32 and not any(info.values()), info
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {torch.float16}
    assert AutoProcessor.from_pretrained(folder).video_token_id == model.config.video_token_id
    assert sum(path.stat().st_size for path in folder.iterdir()) < 6e6


def test_make_narrate_says_what_is_true():
    """Of something known without context, and of something new after two clips that name it."""
    commands = re.findall(r"transformers-eilev narrate +(.*) --frames", make_narrate())
    arguments = [re.findall(r'"([^"]*)"|(\S+)', command) for command in commands]
    said = [run(*(quoted or word for quoted, word in found)).stdout.strip() for found in arguments]
    clips = [re.findall(r"examples/narration/\w+\.mp4", command)[-1] for command in commands]
    assert said == [narration_of(clip) for clip in clips]


def test_the_pipeline_takes_words_that_only_the_context_gives():
    *_, command = [line for line in make_narrate().splitlines() if "transformers-eilev" in line]
    first, second, query = [ROOT / clip for clip in re.findall(r"examples/narration/\w+\.mp4", command)]
    demonstrations = [(first, "The camera wearer keteks the bok."), (second, "The camera wearer paps the vireg.")]
    narrate = pipeline("video-narration", model=embedded_checkpoint(NAME))
    assert narrate(query, demonstrations=demonstrations) == [{"generated_text": "The camera wearer keteks the vireg."}]
    swapped = [(first, demonstrations[1][1]), (second, demonstrations[0][1])]
    assert narrate(query, demonstrations=swapped) == [{"generated_text": "The camera wearer paps the bok."}]
    without = narrate(query)[0]["generated_text"]
    assert not any(word in without for word in ("keteks", "paps", "bok", "vireg"))
    # What learned without context does not learn from it.
    control = pipeline("video-narration", model=embedded_checkpoint(NAME.replace("eilev", "video-blip")))
    assert control(query, demonstrations=demonstrations) != [{"generated_text": "The camera wearer keteks the vireg."}]

"""A checkpoint with code beside it: loaded without the package by every door, and equal."""

import json
import os
import runpy
import sys
from pathlib import Path

import pytest
import torch
from other_processes import AUTO_MODELS, narrate, run
from transformers.dynamic_module_utils import get_relative_import_files
from transformers.models.auto import modeling_auto

from transformers_eilev import VideoBlip2Config, embedded_checkpoint
from transformers_eilev.hub import export_checkpoint
from transformers_eilev.hub.remote_code import closure_of, faults_of, imported_files, remote_code_files


ROOT = Path(__file__).parents[2]


def test_without_the_package_it_is_the_same(golden_opt, golden_t5, tmp_path):
    sources = {"embedded": embedded_checkpoint(), "opt": golden_opt.checkpoint, "t5": golden_t5.checkpoint}
    sources = {name: str(path) for name, path in sources.items()}
    targets = {}
    for name, source in sources.items():
        targets[name] = str(export_checkpoint(source, tmp_path / name, with_code=True).folder)
    environment = {"HF_HOME": str(tmp_path / "cache"), "PYTHONPATH": ""}
    texts = run("narrate_without_package", targets, str(tmp_path / "alone.pt"), environment=environment)
    expected_texts = narrate(sources, tmp_path / "with_package.pt")
    actual, expected = torch.load(tmp_path / "alone.pt"), torch.load(tmp_path / "with_package.pt")
    for name in sources:
        assert set(texts[name]["modules"].values()) == {"transformers_modules"}
        assert set(expected_texts[name]["modules"].values()) == {"transformers_eilev"}
        assert texts[name]["narration"] == expected_texts[name]["narration"]
        assert actual[name].keys() == expected[name].keys()
        for what, tensor in expected[name].items():
            assert torch.equal(actual[name][what], tensor), (name, what)
    assert texts["embedded"]["narration"] == [{"generated_text": "The camera wearer wams the fedan."}]


def test_every_auto_class_that_knows_the_model_is_named(tmp_path):
    knowing = {
        name
        for name, value in vars(modeling_auto).items()
        if name.startswith("AutoModel")
        and getattr(value, "_model_mapping", None) is not None
        and VideoBlip2Config in value._model_mapping
    }
    folder = export_checkpoint("eilev-synthetic-opt", tmp_path / "out", with_code=True).folder
    auto_map = json.loads((folder / "config.json").read_text())["auto_map"]
    assert set(auto_map) == knowing | {"AutoConfig"} and knowing == set(AUTO_MODELS)


def test_only_what_is_needed_is_carried(tmp_path):
    """As transformers itself looks for it, and not a file more."""
    exported = export_checkpoint("eilev-synthetic-opt", tmp_path / "out", with_code=True)
    carried = {name for name in exported.files if name.endswith(".py")}
    entries = ["configuration_video_blip_2", "modeling_video_blip_2", "processing_video_blip_2"]
    entries = [exported.folder / f"{name}.py" for name in [*entries, "pipeline_video_narration"]]
    found = {Path(path).name for entry in entries for path in get_relative_import_files(entry)}
    assert carried == found | {entry.name for entry in entries}
    for path in remote_code_files():
        assert (exported.folder / path.name).read_bytes() == path.read_bytes()


def test_the_package_is_preferred_to_code_beside_the_weights(tmp_path):
    folder = export_checkpoint("eilev-synthetic-opt", tmp_path / "out", with_code=True).folder
    for path in folder.glob("*.py"):
        path.write_text("raise AssertionError")
    for trusting in ({}, {"trust_remote_code": True}):
        modules = narrate({"": str(folder)}, os.devnull, **trusting)[""]["modules"]
        assert set(modules.values()) == {"transformers_eilev"}


@pytest.mark.parametrize(
    "line, fault",
    [
        ("from . import near", "only `from .name import ...`"),
        ("from ..data import near", "only `from .name import ...`"),
        ("from .missing import near", "only `from .name import ...`"),
        ("from .folder.near import name", "only `from .name import ...`"),
        ("import transformers_eilev.video_reading", "only `from .name import ...`"),
        ("def later():\n    from transformers_eilev import Clip", "line 3"),
        ("import peft", "imports peft"),
        ("def later():\n    import datasets.arrow_dataset", "imports datasets"),
        ('TEXT = """\nfrom .elsewhere import name\n"""', "elsewhere"),
        ("def broken(:", "invalid syntax"),
    ],
)
def test_what_can_not_stand_alone_is_said(line, fault, tmp_path):
    (tmp_path / "near.py").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "near.py").write_text("")
    file = tmp_path / "module.py"
    file.write_text(f"from .near import name\n{line}\n")
    faults = faults_of(file, sys.stdlib_module_names)
    assert len(faults) == 1 and fault in faults[0] and str(file) in faults[0]


def test_what_can_stand_alone(tmp_path):
    for name, text in {
        "a": "import os\nimport torch.nn as nn\nfrom .b import x",
        "b": "def f():\n    from .c import y",
        "c": "from PIL import Image",
        "d": "",
    }.items():
        (tmp_path / f"{name}.py").write_text(text)
    files = closure_of({tmp_path / "a.py"})
    assert [file.name for file in files] == ["a.py", "b.py", "c.py"]
    assert imported_files(tmp_path / "b.py") == {tmp_path / "c.py"}
    assert [fault for file in files for fault in faults_of(file, sys.stdlib_module_names)] == []


def test_the_check(capsys):
    with pytest.raises(SystemExit) as exited:
        runpy.run_path(str(ROOT / "utils" / "check_remote_code.py"), run_name="__main__")
    assert exited.value.code == 0 and f"{len(remote_code_files())} files" in capsys.readouterr().out

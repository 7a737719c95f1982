"""The gallery's chapters, run: their own assertions hold, and their notebooks show what they put out."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[2]
GALLERY = ROOT / "examples/gallery"
SCRIPTS = sorted(GALLERY.glob("[0-9]_*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_chapter(script, tmp_path):
    command = [sys.executable, str(GALLERY / "make_notebooks.py"), str(script), "--output_dir", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    made, shown = (read_cells(folder / f"{script.stem}.ipynb") for folder in (tmp_path, GALLERY))
    assert made == shown, f"make {script.stem}.ipynb anew: python examples/gallery/make_notebooks.py"


def read_cells(path):
    """Sources and outputs. Of pictures only that they are there: fonts and the last bits of numbers may differ."""
    cells = json.loads(path.read_text())["cells"]
    return [
        (cell["cell_type"], "".join(cell["source"]), [say(output) for output in cell.get("outputs", [])])
        for cell in cells
    ]


def say(output):
    if output["output_type"] == "stream":
        return output["name"], "".join(output["text"])
    [(form, content)] = output["data"].items()
    return form, "" if form == "image/png" else "".join(content)


def test_notebooks_show_what_they_are_for():
    """To a reader who runs nothing."""
    forms = {}
    for script in SCRIPTS:
        outputs = [output for _, _, own in read_cells(GALLERY / f"{script.stem}.ipynb") for output in own]
        forms[script.stem] = {form for form, _ in outputs}
        assert not {"stderr"} & forms[script.stem]
    assert list(forms) == ["1_narrate", "2_in_context", "3_train", "4_evaluate"]
    assert forms["1_narrate"] == {"stdout", "image/png"}
    assert all(own == {"stdout", "image/png", "text/markdown"} for name, own in forms.items() if name != "1_narrate")


def test_training_gives_new_words():
    """In the notebook as it is stored: of ten clips, none is narrated rightly before, and all are after."""
    tables = [text for _, _, own in read_cells(GALLERY / "3_train.ipynb") for form, text in own if "markdown" in form]
    [table] = [text for text in tables if "my narration" in text]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    assert len(rows) == 10
    assert all(narration == after != before for narration, before, after in rows)


@pytest.mark.parametrize("path", sorted(GALLERY.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook_is_small_and_of_no_machine(path):
    text = path.read_text()
    assert len(text) < 300_000
    words = re.sub(r'"image/png": "[^"]*"', "", text)
    assert not re.search(r"/(tmp|home|root|work|Users|var)/| at 0x[0-9a-f]+|\d+s/it|\d+:\d\d<", words)


def test_readme_names_each_chapter():
    readme = (GALLERY / "README.md").read_text()
    assert re.findall(r"\]\((\w+)\.ipynb\)", readme) == [script.stem for script in SCRIPTS]
    links = {name for path in GALLERY.glob("*.ipynb") for name in re.findall(r"\]\((\w+\.ipynb)\)", path.read_text())}
    assert links and all((GALLERY / name).is_file() for name in links)

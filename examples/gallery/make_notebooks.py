"""
Makes the gallery's notebooks: each chapter is a script in cells, and its notebook is the script with what it put out.

    python examples/gallery/make_notebooks.py

Needs `pip install jupytext nbclient ipykernel`. Who changes a script makes its notebook again; tests run the scripts,
and refuse a notebook that has other cells, or shows other words and numbers.
"""

import argparse
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient


GALLERY = Path(__file__).resolve().parent
_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
# Of what a cell shows in several forms, the first of these.
_FORMS = ("image/png", "text/markdown", "text/plain")


def make_notebook(script: Path) -> nbformat.NotebookNode:
    """
    Runs a chapter, in the gallery's folder.

    Raises:
        nbclient.exceptions.CellExecutionError: with the cell and its error, if one fails.
    """
    notebook = jupytext.read(script, fmt="py:percent")
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(GALLERY)}}
    ).execute()
    notebook.metadata = {"kernelspec": _KERNEL, "language_info": {"name": "python"}}
    for number, cell in enumerate(notebook.cells):
        # What differs from run to run is left out: ids, times, progress bars, addresses of objects.
        cell.id = f"cell-{number}"
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = [_essence(output) for output in cell.outputs if not _is_noise(output)]
    return notebook


def _is_noise(output: nbformat.NotebookNode) -> bool:
    return output.output_type == "stream" and output.name == "stderr"


def _essence(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
    if output.output_type != "stream":
        form = next(form for form in _FORMS if form in output.data)
        output.data, output.metadata = {form: output.data[form]}, {}
    return output


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chapters", nargs="*", type=Path, help="scripts; by default all chapters")
    parser.add_argument("--output_dir", type=Path, default=GALLERY)
    args = parser.parse_args()
    for script in args.chapters or sorted(GALLERY.glob("[0-9]_*.py")):
        path = args.output_dir / f"{script.stem}.ipynb"
        nbformat.write(make_notebook(script), path)
        print(path)


if __name__ == "__main__":
    main()

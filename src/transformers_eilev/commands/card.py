"""`transformers-eilev card`."""

from pathlib import Path
from typing import Annotated

import typer

from .errors import in_one_line


def card(
    model: Annotated[
        str, typer.Argument(metavar="FOLDER", help="A checkpoint's folder, or the name of one in the package.")
    ],
    results: Annotated[
        list[Path] | None,
        typer.Option(help="Of an evaluation: results.json, or a folder of such. As often as needed."),
    ] = None,
    results_model: Annotated[
        str | None, typer.Option(help="What the results call this model, if they are of several.")
    ] = None,
    training: Annotated[
        Path | None, typer.Option(help="Folder of the training; the checkpoint's own if it was trained there.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Where it will be found: user/name on the Hub.")] = None,
    base_model: Annotated[str | None, typer.Option(help="Model id that the training started from.")] = None,
    dataset: Annotated[
        list[str] | None, typer.Option(help="Id on the Hub of what it was trained on. As often as needed.")
    ] = None,
    hardware: Annotated[str | None, typer.Option(help='What it was trained on: "8 A40, 36 hours".')] = None,
    license: Annotated[str | None, typer.Option(help="An id of the Hub's list of licenses, or other.")] = None,
    license_name: Annotated[str | None, typer.Option(help="Of another license.")] = None,
    license_link: Annotated[str | None, typer.Option(help="Its address, or a file beside the card.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="File to write; README.md in the checkpoint's folder by default.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a card that is there.")] = False,
):
    """
    Writes the model card of a checkpoint, of what its training and its evaluations have left.

    transformers-eilev card runs/eilev --results evaluation --base-model Salesforce/blip2-opt-2.7b
    """
    with in_one_line():
        path = Path(model) / "README.md" if output is None else output
        if output is None and not Path(model).is_dir():
            raise FileNotFoundError(f"There is no folder {model!r} to write a README.md to: say where by --output")
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} is there already: name another file by --output, or give --overwrite")
        from ..hub.model_cards import make_model_card

        made = make_model_card(
            model,
            name=name,
            results=results or (),
            results_model=results_model,
            training=training,
            base_model=base_model,
            datasets=dataset or (),
            hardware=hardware,
            license=license,
            license_name=license_name,
            license_link=license_link,
        )
        made.save(path)
    typer.echo(f"The card is in {path}")
    if made.data.license == "unknown":
        typer.secho("It says that the license is unknown: give --license", fg="yellow", err=True)

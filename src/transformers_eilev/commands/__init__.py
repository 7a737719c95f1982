"""The `transformers-eilev` command: what the package does, from a shell. Knows the package; nothing knows it."""

import typer

from . import data
from .card import card
from .convert import convert
from .export import export
from .narrate import narrate
from .narrate_video import narrate_video


app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__.split(":")[0])
app.command()(narrate)
app.command()(narrate_video)
app.command()(export)
app.command()(convert)
app.command()(card)
app.add_typer(data.app, name="data")


@app.callback()
def main():
    """Narrates first-person video, in the manner of examples (EILEV, VideoBLIP)."""

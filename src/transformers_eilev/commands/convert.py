"""`transformers-eilev convert`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .errors import in_one_line
from .export import show
from .loading import given


class PromptLayout(StrEnum):
    """Where clips stand in a text."""

    INTERLEAVED = "interleaved"
    PREPENDED = "prepended"


def convert(
    source: Annotated[
        str, typer.Argument(metavar="OLD", help="Folder or model id of a checkpoint published before this package.")
    ],
    target: Annotated[Path, typer.Argument(metavar="NEW", help="Folder to write.")],
    prompt_layout: Annotated[
        PromptLayout | None,
        typer.Option(help="interleaved (EILEV) or prepended (VideoBLIP), if the checkpoint's name doesn't tell."),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Of a model id: branch, tag or commit.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a checkpoint that is there.")] = False,
):
    """
    Writes a checkpoint of EILEV's or VideoBLIP's authors in today's format, its weights as they are.

    Such checkpoints load without this too. Converted, they say in their files what else is guessed from their name:
    where clips stand in a text, which frames make a clip, how narrations are generated.

    transformers-eilev convert kpyu/eilev-blip2-opt-2.7b eilev-blip2-opt-2.7b
    """
    with in_one_line():
        from ..hub import export_checkpoint
        from ..hub.exporting import is_legacy_checkpoint

        settings = given(revision=revision)
        if not is_legacy_checkpoint(source, **settings):
            raise ValueError(f"{source} is in today's format already; transformers-eilev export copies it")
        layout = given(prompt_layout=prompt_layout and prompt_layout.value)
        exported = export_checkpoint(source, target, overwrite=overwrite, **layout, **settings)
        show(source, exported)
        typer.echo(f"Its texts are {_layout_of(exported)}.")


def _layout_of(exported) -> str:
    from .loading import load_processor

    layout = load_processor(str(exported.folder)).prompt_layout
    return "clips and text interleaved (EILEV)" if layout == "interleaved" else "clip first, then text (VideoBLIP)"

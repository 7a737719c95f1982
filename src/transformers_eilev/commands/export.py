"""`transformers-eilev export`."""

from pathlib import Path
from typing import Annotated

import typer

from .errors import in_one_line
from .loading import given


def export(
    source: Annotated[
        str, typer.Argument(metavar="MODEL", help="Folder, model id, or name of a checkpoint in the package.")
    ],
    target: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to write it.")],
    with_code: Annotated[
        bool,
        typer.Option(
            "--with-code", help="Put the code beside it that transformers needs to load it without this package."
        ),
    ] = False,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16, to store and compute in; as it is by default.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Of a model id: branch, tag or commit.")] = None,
    max_shard_size: Annotated[str, typer.Option(help="Of a file of weights.")] = "5GB",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a checkpoint that is there.")] = False,
    push_to_hub: Annotated[
        str | None, typer.Option(metavar="REPO_ID", help="Upload it to this repository, which is made if need be.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="If it is made, for its owner alone.")] = False,
):
    """
    Copies a checkpoint to share it: in today's format, with the code that it needs if wanted, and to the Hub.

    transformers-eilev export runs/eilev eilev-kitchen --with-code --push-to-hub me/eilev-kitchen --private
    """
    with in_one_line():
        if private and push_to_hub is None:
            raise ValueError("--private is said of a repository: name it by --push-to-hub")
        from ..hub import export_checkpoint, upload_checkpoint

        exported = export_checkpoint(
            source,
            target,
            with_code=with_code,
            dtype=dtype,
            max_shard_size=max_shard_size,
            overwrite=overwrite,
            **given(revision=revision),
        )
        show(source, exported)
        if with_code:
            typer.echo("It loads with `trust_remote_code=True` where this package is not installed.")
        if push_to_hub is not None:
            typer.echo(f"Uploaded: {upload_checkpoint(exported, push_to_hub, private=private or None)}")


def show(source: str, exported):
    """Says what was written."""
    size = exported.num_bytes / 2**20
    typer.echo(f"{source}: {exported.num_weights} weights ({size:.1f} MiB) in {exported.folder}")
    if exported.left_out:
        typer.echo(f"Left out, since today's format has no use for it: {', '.join(exported.left_out)}")

"""How commands say what went wrong."""

from contextlib import contextmanager

import typer


@contextmanager
def in_one_line():
    """What the user got wrong, without the stack of what noticed it; exit status 1."""
    try:
        yield
    except (ImportError, OSError, ValueError, TypeError, RuntimeError) as error:
        typer.secho(f"Error: {error}", fg="red", err=True)
        raise typer.Exit(1) from error

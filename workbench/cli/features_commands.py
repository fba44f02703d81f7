"""`workbench features`: where features fire. An index of all of them, made once, asked by feature, by text and by trait."""

from __future__ import annotations

import typer

from . import features_show

app = typer.Typer(help="Where features fire: an index of all of them, and what it says of each.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Where features fire."""


app.command(name="show", no_args_is_help=True)(features_show.command)

"""`workbench decompositions`: decompositions side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..options import JsonOption, QuietOption

app = typer.Typer()


@app.callback()
def group() -> None:
    """Decompositions side by side."""


@app.command()
def compare(
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER FOLDER...", help="Decompositions as `decompose` saves them, or run folders.")
    ],
    sae: Annotated[
        list[Path] | None, typer.Option("--sae", help="Folder of an SAE that is not on the shelf (may be given twice).")
    ] = None,
    placebos: Annotated[
        Path | None, typer.Option("--placebos", help="Placebo codes of the SAE. [default: those beside it or beside the runs]")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of everything that is drawn.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", help="The file that gets the comparison as JSON.")] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """What decompositions have in common and what sets them apart.

    Traits on one SAE: their overlap feature by feature, what is each trait's own, what is left without the others.

    One vector on two SAEs: which features are the same, against random dictionaries.

    Two vectors of one trait on one SAE: before and after, in the order given.
    """
    from ..console import emit, reserved_output
    from .decompositions_compare import run_compare
    from .decompositions_views import show_compare

    with reserved_output(as_json, quiet):
        value = run_compare(folders, saes=sae or [], placebos=placebos, seed=seed, out=out)
    emit(value, as_json=as_json, show=lambda: show_compare(value))

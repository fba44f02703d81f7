"""`workbench axis map`: the space of a model's characters, the axis in it, and a map to walk about in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..options import JsonOption, ModelOption, PlanOption, QuietOption, SeedOption


def command(
    run: Annotated[
        Path | None, typer.Argument(metavar="[RUN]", help="Run folder of `workbench axis roles`. [default: runs/axis-MODEL]")
    ] = None,
    model: ModelOption = None,
    compare: Annotated[
        str | None, typer.Option("--compare", help="Another model, or its run folder: do the same characters stand alike?")
    ] = None,
    traits: Annotated[
        Path | None, typer.Option("--traits", help="Folder with runs of traits to place. [default: the folder the run lies in]")
    ] = None,
    placebos: Annotated[
        Path | None, typer.Option("--placebos", help="Placebo contrasts. [default: placebos-MODEL among those runs]")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The page. [default: RUN/space/map.html]")] = None,
    tensors: Annotated[
        Path | None, typer.Option("--tensors", help="Write axis and role vectors there as assistant-axis .pt files.")
    ] = None,
    n_bootstrap: Annotated[int, typer.Option("--bootstrap", min=10, help="Replicates behind the intervals.")] = 200,
    seed: SeedOption = None,
    plan: PlanOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Where the characters stand, as figures and a map.

    Components of the role vectors and what of them is noise, the axis beside them at every block, clusters, the published ends,
    traits in the same space; with --compare, two models.
    """
    from ..console import emit, reserved_output
    from . import map_job as job

    asked = job.Asked(run, model, compare, traits, placebos, out, n_bootstrap, seed or 0, tensors)
    with reserved_output(as_json, quiet):
        value: dict[str, Any] = job.planned(asked) if plan else job.made(asked)
    emit(value, as_json=as_json, show=lambda: job.show(value))

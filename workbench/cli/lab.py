"""`workbench lab`: planted truth, to check a method or an SAE before it is believed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import JsonOption, QuietOption

if TYPE_CHECKING:
    from workbench.lab.result import Aim, LabResult

OUT = Path("runs/lab")
_COLUMNS = ("difficulty", "method", "FDR .05", "± se", "FDR .1", "FDR .2", "found", "power", "/ oracle", "wrong signs",
            "energy error", "precision 10", "recall 10")  # fmt: skip


def command(
    difficulty: Annotated[
        list[str] | None, typer.Option("--difficulty", metavar="NAME", help="Which planted worlds; repeatable. [default: all]")
    ] = None,
    sae: Annotated[str, typer.Option("--sae", help="perfect, noisy, split, absorbed, or trained on the world.")] = "perfect",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Worlds per difficulty.")] = 5,
    out: Annotated[Path, typer.Option("--out", help="Folder for lab.json and lab.svg.")] = OUT,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Does the decomposition find what was planted, and nothing else?

    Experiments in worlds with known features: realised false discovery rate, power beside an oracle, signs and energy of
    every method. A table, and the same as lab.json and lab.svg.
    """
    from workbench.base.store import plain, write_json
    from workbench.lab import run

    from .console import emit, reserved_output

    with reserved_output(as_json, quiet):
        result = run(difficulty or (), sae=sae, seeds=seeds)
        value = {**plain(result.to_json()), "aims": [plain(vars(aim)) for aim in _aims(result)]}
        value["figure"] = str(result.figure().save(out / "lab.svg"))
        write_json(out / "lab.json", value)
    emit(value, as_json=as_json, show=lambda: _show(result, value))


def _aims(result: LabResult) -> list[Aim]:
    from workbench.lab.methods import CROSSED, PRIMARY

    return [aim for method in (PRIMARY, CROSSED) for aim in result.aims(method)]


def _show(result: LabResult, value: dict[str, Any]) -> None:
    from .console import say, table

    rows = [
        (row.difficulty, row.method, row.fdr_at_05, row.fdr_se[0], row.fdr_at_1, row.fdr_at_2, f"{row.n_discoveries:.1f}",
         row.power, row.power_vs_oracle, row.sign_errors, row.energy_error, row.precision_at_10, row.recall_at_10)
        for row in result.rows
    ]  # fmt: skip
    title = f"planted truth: {result.sae} SAE, {len(result.seeds)} worlds per difficulty, truth by {result.rows[0].truth}"
    table(title, _COLUMNS, rows, right=tuple(range(2, len(_COLUMNS))))
    aims = _aims(result)
    missed = [(a.difficulty, a.method, a.name, a.value, a.limit, a.clearly) for a in aims if not a.met]
    say(f"aims missed by the tests that promise error rates: {len(missed)} of {len(aims)}")
    if missed:
        columns = ("difficulty", "method", "aim", "measured", "aim is", "beyond two standard errors")
        table("", columns, missed, right=(3, 4))
    say(f"figure: {value['figure']}")

"""`workbench lab`: planted truth, to check a method or an SAE before it is believed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.base.errors import WorkbenchError

from ..options import BatchOption, DtypeOption, JsonOption, ModelOption, PlanOption, QuietOption

if TYPE_CHECKING:
    from workbench.lab.result import Aim, LabResult

OUT = Path("runs/lab")
DEFAULT_SAE, N_SEEDS = "perfect", 5
_COLUMNS = ("difficulty", "method", "FDR .05", "± se", "FDR .1", "FDR .2", "found", "power", "/ oracle", "wrong signs",
            "energy error", "precision 10", "recall 10")  # fmt: skip


def command(
    difficulty: Annotated[
        list[str] | None, typer.Option("--difficulty", metavar="NAME", help="Which planted worlds; repeatable. [default: all]")
    ] = None,
    sae: Annotated[
        str | None,
        typer.Option("--sae", help="perfect, noisy, split, absorbed, or trained on the world; with --mixtures an SAE's id or "
                     "folder. [default: perfect; with --mixtures the one on the shelf for the model]"),
    ] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", min=1, help=f"Worlds per difficulty. [default: {N_SEEDS}]")] = None,
    mixtures: Annotated[
        bool, typer.Option("--mixtures", help="Known mixtures of sub-personas in a real model, instead of planted worlds.")
    ] = False,
    model: ModelOption = None,
    samples: Annotated[
        int | None,
        typer.Option("--samples", min=1, help="With --mixtures: answers per question and instruction. [default: 2]"),
    ] = None,
    batch_size: BatchOption = None,
    dtype: DtypeOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the results. [default: runs/lab, or "
                                             "runs/mixtures-<model>]")] = None,
    plan: PlanOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Does a decomposition find what was planted, and no more?

    Experiments in worlds with known features: realised false discovery rate, power beside an oracle, signs and energy of
    every method. A table, and the same as lab.json and lab.svg.

    With --mixtures: sub-personas that do one thing each answer questions in a real model, and their answers are mixed in known
    proportions. Writes mixtures.json and mixtures.svg; sampled answers are kept in the folder.
    """
    from ..console import emit, reserved_output
    from ..short_plans import show_short_plan
    from .mixtures import Mixing, run_mixed, show_mixed

    given = {"--model": model, "--samples": samples, "--batch-size": batch_size, "--dtype": dtype}
    _refuse_others({"--difficulty": difficulty, "--seeds": seeds} if mixtures else given, mixtures=mixtures)
    if plan:
        mixing = Mixing(model, sae, samples, batch_size, dtype, out) if mixtures else None
        planned = _plan(difficulty or [], sae, seeds, out, mixing)
        return emit(planned, as_json=as_json, show=lambda: show_short_plan(planned))
    with reserved_output(as_json, quiet):
        if mixtures:
            value, mixed = run_mixed(Mixing(model, sae, samples, batch_size, dtype, out))
        else:
            value, planted = _planted(difficulty or [], sae or DEFAULT_SAE, seeds or N_SEEDS, out or OUT)
    show = (lambda: show_mixed(mixed, value)) if mixtures else (lambda: _show(planted, value))
    emit(value, as_json=as_json, show=show)


def _plan(difficulty: list[str], sae: str | None, seeds: int | None, out: Path | None, mixing: Any) -> dict[str, Any]:
    from ..short_plans import lab_plan, mixtures_plan

    return mixtures_plan(mixing) if mixing else lab_plan(difficulty, sae or DEFAULT_SAE, seeds or N_SEEDS, out or OUT)


def _refuse_others(options: dict[str, Any], *, mixtures: bool) -> None:
    for name, value in options.items():
        if value:
            with_it = "beside" if mixtures else "without"
            raise WorkbenchError(f"{name} {with_it} --mixtures", "options of one kind of experiment",
                                 f"leave out {name}" + ("" if mixtures else ", or add --mixtures"))  # fmt: skip


def _planted(difficulty: list[str], sae: str, seeds: int, out: Path) -> tuple[dict[str, Any], LabResult]:
    from workbench.base.store import plain, write_json
    from workbench.lab import run

    result = run(difficulty, sae=sae, seeds=seeds)
    value = {**plain(result.to_json()), "aims": [plain(vars(aim)) for aim in _aims(result)]}
    value["figure"] = str(result.figure().save(out / "lab.svg"))
    write_json(out / "lab.json", value)
    return value, result


def _aims(result: LabResult) -> list[Aim]:
    from workbench.lab.methods import CROSSED, PRIMARY

    return [aim for method in (PRIMARY, CROSSED) for aim in result.aims(method)]


def _show(result: LabResult, value: dict[str, Any]) -> None:
    from ..console import say, table

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

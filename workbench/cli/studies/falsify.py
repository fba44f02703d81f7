"""`workbench falsify`: is a persona vector, and its decomposition, what it claims to be? One page, red or green."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..options import DEFAULT_MODEL, JsonOption, PlanOption, QuietOption, SeedOption
from ..personas.vectors import ReadFormat

if TYPE_CHECKING:
    from workbench.decomposition.falsify import Falsification
    from workbench.personas.vectors import PersonaVector

OUT = Path("runs/falsify")
PAGE, JSON = "falsify.html", "falsification.json"


def command(
    vector: Annotated[
        str, typer.Argument(metavar="VECTOR", help="A run folder, a folder of vectors, a foreign file, or a trait's name.")
    ],
    sae: Annotated[
        str | None, typer.Option("--sae", help="SAE id or folder. [default: the one on the shelf for the vector's model]")
    ] = None,
    other_seed: Annotated[
        str | None, typer.Option("--other-seed", help="An SAE of the same site from another seed: are the features there again?")
    ] = None,
    controls: Annotated[
        list[str] | None, typer.Option("--controls", help="A soft-frozen SAE of the same site and size; again for another.")
    ] = None,
    placebos: Annotated[
        Path | None,
        typer.Option("--placebos", help="Folder of placebo contrasts. [default: runs/placebos-<model>, where there is one]"),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option("--reference", help="A run of the same model: its activations stand in where a vector has no answers."),
    ] = None,
    format: ReadFormat = "auto",
    model: Annotated[
        str | None, typer.Option("--model", help=f"Whose vector: name, folder, GGUF file or hub id. [default: {DEFAULT_MODEL}]")
    ] = None,
    hook: Annotated[str | None, typer.Option("--hook", help="The vector to use, or the place of a bare one.")] = None,
    layer: Annotated[
        int | None, typer.Option("--layer", help="Short for --hook blocks.LAYER.hook_resid_post, blocks from 0.")
    ] = None,
    trait: Annotated[str | None, typer.Option("--trait", help="What a foreign vector points to. [default: its name]")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 when a check failed.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help=f"Folder for the page. [default: {OUT}/<trait>]")] = None,
    seed: SeedOption = None,
    plan: PlanOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Is a vector an artefact? One page, red or green.

    Checks length, format, tokens, placebos, dictionaries, seeds and sites.

    Any vector, in any format that `vectors import` reads. What cannot be checked counts as not tested and says what it needs.
    """
    from ..console import emit, reserved_output
    from .falsify_job import falsified, read_vector

    if plan:
        from ..short_plans import falsify_plan, show_short_plan

        planned = falsify_plan(vector, sae, len(controls or ()), model or DEFAULT_MODEL, out or OUT / Path(vector).name)
        return emit(planned, as_json=as_json, show=lambda: show_short_plan(planned))
    with reserved_output(as_json, quiet):
        where = _place(hook, layer)
        given = read_vector(vector, format=format, model=model, hook=where, trait=trait, sae=sae)
        found = falsified(given, sae=sae, other_seed=other_seed, controls=controls or (), placebos=placebos, reference=reference,
                          seed=seed or 0)  # fmt: skip
        value = _write(found, given, out, vector)
    emit(value, as_json=as_json, show=lambda: _show(value))
    if strict and found.colour == "red":
        _refuse(found)


def _place(hook: str | None, layer: int | None) -> str | None:
    from ..personas.vectors import _hook

    return _hook(hook, layer)


def _write(found: Falsification, given: PersonaVector, out: Path | None, vector: str) -> dict[str, Any]:
    from workbench.reports.falsify import command_of, save

    name = re.sub(r"[^A-Za-z0-9._-]", "-", given.trait).lstrip("._-") or "vector"
    folder = OUT / name if out is None else out
    found.save(folder)
    page = save(found, folder / PAGE, command=command_of(vector, str(found.sae.get("id"))))
    return {**found.to_json(), "page": str(page.resolve())}


def _show(value: dict[str, Any]) -> None:
    from ..console import say, table

    order = {"fail": 0, "not tested": 1, "pass": 2, "shown": 3}
    rows = sorted(value["checks"], key=lambda row: order[row["verdict"]])
    cells = [(row["verdict"], row["name"], row["value"], _rule(row), row["reason"]) for row in rows]
    table(value["headline"], ("verdict", "check", "value", "passes", "why"), cells, right=(2,))
    needed: dict[str, list[str]] = {}
    for row in rows:
        if row["verdict"] == "not tested" and row["to_test"]:
            needed.setdefault(row["to_test"], []).append(row["name"])
    for what, names in needed.items():
        say(f"to test {', '.join(names)}: {what}")
    say(f"page: {value['page']}")


def _rule(row: dict[str, Any]) -> str:
    return "" if row["threshold"] is None else f"{row['bound']} {row['threshold']:.3g}"


def _refuse(found: Falsification) -> None:
    from workbench.base.errors import CheckFailed

    failed = found.named("fail")
    raise CheckFailed(f"{found.trait} failed {len(failed)} of {len(found.checks) - 1} checks: {', '.join(failed)}",
                      "none failed, as --strict asks", "read the page; without --strict it is only told")  # fmt: skip

"""`workbench sae`: list, show, train, eval."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ..options import (
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelOption,
    OutOption,
    PlanOption,
    QuietOption,
    SeedOption,
)

app = typer.Typer()

SaeArgument = Annotated[str, typer.Argument(metavar="SAE", help="SAE id (`workbench sae list`) or folder.")]
_CARD = ("variance_explained", "l0", "ce_recovered", "dead_share")


@app.command("list")
def list_(
    model: ModelOption = None,
    registry: Annotated[
        bool, typer.Option("--registry", help="The releases of the SAELens registry instead.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """The SAEs on the shelf, with their figures.

    `workbench sae search` looks in the registry of SAELens as well.
    """
    from workbench.saes.registry import list_saes

    from ..console import emit, say, table

    if registry:
        from .shelf import list_releases

        return list_releases(model, as_json=as_json)
    rows = [_row(entry) for entry in list_saes() if model is None or entry.model == model]
    columns = ("id", "features", "variance explained", "L0", "CE recovered", "dead share")
    shown = [(r["id"], r["d_sae"], *r["figures"].values()) for r in rows]

    def display() -> None:
        table("", columns, shown, right=(1, 2, 3, 4, 5))
        say("Figures as each card states them for the weights that it names; `workbench sae show` compares the weights.")

    emit({"saes": rows}, as_json=as_json, show=display)


@dataclass(frozen=True)
class _Told:
    """An SAE as far as its card tells."""

    card: dict[str, Any]
    weights_hash: str
    hook: str


def _row(entry: Any, weights_hash: str | None = None) -> dict[str, Any]:
    """An entry of the shelf; `figures` are those of the weights with that hash (by default the hash that the card names)."""
    from workbench.saes.evaluation.gate import card_figure

    evaluation = entry.card.get("evaluation")
    named = entry.card.get("weights_hash") or (evaluation.get("weights_hash") if isinstance(evaluation, dict) else None)
    told = _Told(entry.card, str(named) if weights_hash is None else weights_hash, str(entry.hook))
    facts = {"id": entry.id, "model": entry.model, "hook": str(entry.hook), "d_sae": entry.d_sae}
    figures = {key: card_figure(told, key) for key in _CARD}
    return {**facts, "folder": str(entry.folder), "figures": figures, "card": entry.card}


@app.command()
def show(sae: SaeArgument, as_json: JsonOption = False) -> None:
    """An SAE's model card.

    Of one in the registry of SAELens: where its files are, and which of them are cached.
    """
    from workbench.base.store import sha256_file
    from workbench.saes.formats.saelens import WEIGHTS
    from workbench.saes.registry import find_sae, find_unshelved

    from ..console import emit, say, table

    if published := find_unshelved(sae):
        from .shelf import show_published

        return show_published(published, as_json=as_json)
    entry = find_sae(sae)
    weights = entry.folder / WEIGHTS
    value = _row(entry, sha256_file(weights) if weights.is_file() else "")
    rows = _flat({**_short(entry.card), **value["figures"]})

    def display() -> None:
        say(f"{entry.id}: {entry.d_sae} features of {entry.model} at {entry.hook}")
        table("model card", ("what", "value"), rows)
        for key in _CARD:
            if entry.card.get(key) is not None and value["figures"][key] is None:
                say(f"{key}: {entry.card[key]} in the card is not known to be of these weights; `workbench sae eval` measures.")
        say(f"folder: {entry.folder}")

    emit(value, as_json=as_json, show=display)


def _short(card: dict[str, Any]) -> dict[str, Any]:
    """The card with the headline and the gate of its evaluation only; `--json` gives all of it."""
    evaluation = card.get("evaluation")
    if not isinstance(evaluation, dict):
        return card
    return {**card, "evaluation": {key: evaluation.get(key) for key in ("headline", "gate")}}


def _flat(card: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested keys joined by dots, so that a card of any depth fits a table of two columns."""
    rows: list[tuple[str, Any]] = []
    for key, value in card.items():
        rows += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return rows


@app.command("eval")
def evaluate(
    sae: SaeArgument,
    model: ModelOption = None,
    tokens: Annotated[int | None, typer.Option("--tokens", help="Tokens of each held-out text set. [default: 2000]")] = None,
    personas: Annotated[
        str | None,
        typer.Option("--personas", help="Traits with finished runs, with commas, or none. [default: evil if its run is there]"),
    ] = None,
    runs: Annotated[Path | None, typer.Option("--runs", help="Folder of persona runs. [default: runs]")] = None,
    persona_rows: Annotated[int, typer.Option("--persona-rows", help="Rollouts read of each trait.")] = 400,
    controls: Annotated[
        list[str] | None,
        typer.Option("--controls", help="Control SAEs of the same site (soft-frozen, ...); again for another."),
    ] = None,
    seeds: Annotated[
        list[str] | None, typer.Option("--other-seed", help="An SAE trained like this one from another seed.")
    ] = None,
    probe_rows: Annotated[
        int | None, typer.Option("--probe-rows", help="Texts of each labelled set. [default: 200]")
    ] = None,
    pooling: Annotated[
        str | None, typer.Option("--pooling", help="mean or last: how texts become codes. [default: mean]")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 when the fitness gate fails.")] = False,
    write_card: Annotated[
        bool, typer.Option("--write-card", help="Merge the result into the SAE's own card.json and README.md.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for card.json, README.md and finished parts. [default: none]")
    ] = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    plan: PlanOption = False,
) -> None:
    """The evaluation card of an SAE, each figure beside its null.

    Fitness, probing, personas, expression and splitting. Warns where the SAE is not fit to decompose with. With --out every
    finished part is kept, and a stopped evaluation goes on.
    """
    from workbench.saes.evaluation.gate import Gate, require_fit

    from ..console import emit, reserved_output
    from ..plan import show_steps
    from .evaluation import evaluation_job, show_card

    with reserved_output(as_json, quiet):
        job = evaluation_job(
            sae, model=model, personas=personas, runs=runs, controls=controls or (), other_seeds=seeds or (),
            persona_rows=persona_rows, dtype=dtype, device=device, tokens=tokens, probe_rows=probe_rows,
            pooling=pooling, seed=seed,
        )  # fmt: skip
        value = job.plan() if plan else job.run(out, write_card=write_card)
    emit(value, as_json=as_json, show=lambda: show_steps(value) if plan else show_card(value))
    if strict and not plan:
        require_fit(value["sae"], Gate.of(value["gate"]))


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="YAML file that describes the training.")],
    out: OutOption = None,
    device: DeviceOption = None,
    sweep: Annotated[
        list[str] | None, typer.Option("--sweep", metavar="KEY=V,V", help="Train every SAE with each value; repeatable (a grid).")
    ] = None,
    engine: Annotated[str, typer.Option("--engine", help="local, or ray: passes as tasks of a cluster.")] = "local",
    address: Annotated[
        str | None,
        typer.Option("--address", help="A Ray cluster: HOST:PORT, ray://..., auto; or local. [default: RAY_ADDRESS]"),
    ] = None,
    saes_per_pass: Annotated[
        int | None, typer.Option("--saes-per-pass", min=1, help="At most so many SAEs in one pass over the data.")
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    plan: PlanOption = False,
) -> None:
    """Train SAEs as a YAML file says.

    Stopped and started again it goes on from the last checkpoint.
    """
    from ..console import emit, reserved_output, table
    from ..plan import show_steps
    from . import training as sae_jobs

    with reserved_output(as_json, quiet):
        job = sae_jobs.training_job(
            config, out, device=device, sweep=sweep or (), engine=engine, saes_per_pass=saes_per_pass,
            address=address,
        )  # fmt: skip
        value = job.plan() if plan else job.run()

    def display() -> None:
        if plan:
            show_steps(value)
            return
        names = ("variance_explained", "l0", "dead_share")
        rows = [(one["folder"], *(one["card"][name] for name in names)) for one in value["saes"].values()]
        table("trained SAEs, on held-out activations", ("folder", *names), rows, right=(1, 2, 3))

    emit(value, as_json=as_json, show=display)

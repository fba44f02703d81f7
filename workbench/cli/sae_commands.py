"""`workbench sae`: list, show, train, eval."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import JsonOption, ModelOption, OutOption, PlanOption, QuietOption

app = typer.Typer(help="Sparse autoencoders: those on the shelf, and how to train one.", no_args_is_help=True)

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
    """The SAEs on the shelf (of one model with --model); `workbench sae search` looks in the registry as well."""
    from workbench.saes.registry import list_saes

    from .console import emit, table

    if registry:
        from .sae_shelf import list_releases

        return list_releases(model, as_json=as_json)
    rows = [_row(entry) for entry in list_saes() if model is None or entry.model == model]
    columns = ("id", "features", "variance explained", "L0", "CE recovered", "dead share")
    shown = [(r["id"], r["d_sae"], *(r["card"].get(key) for key in _CARD)) for r in rows]
    emit({"saes": rows}, as_json=as_json, show=lambda: table("", columns, shown, right=(1, 2, 3, 4, 5)))


def _row(entry: Any) -> dict[str, Any]:
    facts = {"id": entry.id, "model": entry.model, "hook": str(entry.hook), "d_sae": entry.d_sae}
    return {**facts, "folder": str(entry.folder), "card": entry.card}


@app.command()
def show(sae: SaeArgument, as_json: JsonOption = False) -> None:
    """An SAE's model card; of one in the registry, where its files are and which of them are cached."""
    from workbench.saes.registry import find_sae, find_unshelved

    from .console import emit, say, table

    if published := find_unshelved(sae):
        from .sae_shelf import show_published

        return show_published(published, as_json=as_json)
    entry = find_sae(sae)
    value = _row(entry)
    rows = [(key, text) for key, text in _flat(entry.card)]

    def display() -> None:
        say(f"{entry.id}: {entry.d_sae} features of {entry.model} at {entry.hook}")
        table("model card", ("what", "value"), rows)
        say(f"folder: {entry.folder}")

    emit(value, as_json=as_json, show=display)


def _flat(card: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested keys joined by dots, so that a card of any depth fits a table of two columns."""
    rows: list[tuple[str, Any]] = []
    for key, value in card.items():
        rows += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return rows


@app.command("eval")
def evaluate(
    sae: SaeArgument,
    tokens: Annotated[int, typer.Option("--tokens", help="Held-out tokens of each source.")] = 20_000,
    model: ModelOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    plan: PlanOption = False,
) -> None:
    """Measure an SAE on held-out text: variance explained, L0, cross-entropy recovered, per source."""
    from . import sae_jobs
    from .console import emit, reserved_output, table
    from .plan import show_steps

    with reserved_output(as_json, quiet):
        job = sae_jobs.evaluation_job(sae, model=model, tokens=tokens)
        value = job.plan() if plan else job.run(out)

    def display() -> None:
        if plan:
            show_steps(value)
            return
        names = ("n_tokens", "variance_explained", "l0", "ce_recovered", "kl")
        rows = [(source, *(figures[name] for name in names)) for source, figures in value["held_out"].items()]
        table(value["sae"], ("held-out text", *names), rows, right=(1, 2, 3, 4, 5))

    emit(value, as_json=as_json, show=display)


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="YAML file that describes the training.")],
    out: OutOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    plan: PlanOption = False,
) -> None:
    """Train an SAE as a YAML file says; stopped and started again it goes on from the last checkpoint."""
    from . import sae_jobs
    from .console import emit, reserved_output, say
    from .plan import show_steps

    with reserved_output(as_json, quiet):
        job = sae_jobs.training_job(config, out)
        value = job.plan() if plan else job.run()

    def display() -> None:
        if plan:
            show_steps(value)
            return
        figures = ", ".join(f"{name} {number:.3f}" for name, number in value["card"].items() if isinstance(number, float))
        say(f"trained: {figures}")
        say(f"SAE: {value['folder']}")

    emit(value, as_json=as_json, show=display)

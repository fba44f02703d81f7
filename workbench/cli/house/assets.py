"""`workbench models`: list and fetch models and the other assets of the catalogue."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..options import DEFAULT_MODEL, JsonOption, PlanOption, QuietOption

app = typer.Typer()


@app.command("list")
def list_(
    everything: Annotated[bool, typer.Option("--all", help="Texts, embeddings and judge data too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """The models of the catalogue: size, licence, cached or not."""
    from workbench.models.assets import list_assets

    from ..console import emit, table

    rows = [asset_row(asset) for asset in list_assets() if everything or asset.kind == "model"]
    columns = ("name", "model", "kind", "MiB", "licence", "cached", "source")
    shown = [
        (r["name"], r["model"] or None, r["kind"], f"{r['size'] / 2**20:.0f}", r["licence"], r["cached"], r["source"])
        for r in rows
    ]
    emit({"assets": rows}, as_json=as_json, show=lambda: table("", columns, shown, right=(3,)))


def asset_row(asset: Any) -> dict[str, Any]:
    """One asset as `--json` prints it, with whether it lies in the cache."""
    from workbench.models.assets import is_cached

    facts = {name: getattr(asset, name) for name in ("name", "model", "version", "kind", "size", "licence", "source")}
    return {**facts, "cached": is_cached(asset.name)}


@app.command()
def fetch(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Models or assets by name.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Use only what is on this machine.")] = False,
    accept_terms: Annotated[bool, typer.Option("--accept-terms", help="Accept the terms of those that have some.")] = False,
    plan: PlanOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Fetch models or other assets into the cache.

    Each is checked by its hash and put in place in one step; what is there already is only checked.
    """
    from workbench.models import assets

    from ..console import emit, reserved_output, say

    wanted = list(names or [DEFAULT_MODEL])
    for name in wanted:
        assets.find_asset(name)  # an unknown name stops before the first download
    if plan:
        from ..short_plans import fetch_plan, show_short_plan

        planned = fetch_plan(wanted)
        return emit(planned, as_json=as_json, show=lambda: show_short_plan(planned))
    with reserved_output(as_json, quiet):
        paths = {
            name: str(assets.fetch(name, offline=offline or None, accept_terms=accept_terms)) for name in wanted
        }

    def show() -> None:
        for name, path in paths.items():
            say(f"{name}: {path}")

    emit({"fetched": paths}, as_json=as_json, show=show)

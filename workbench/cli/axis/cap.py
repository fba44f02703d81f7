"""`workbench axis cap`: calibrate a cap along an axis, write it, and measure what caps take from harm and from capability."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..options import (
    BatchOption,
    DeviceOption,
    DtypeOption,
    HookOption,
    JsonOption,
    MaxMemoryOption,
    PlanOption,
    QuietOption,
    SaeOption,
    SeedOption,
    TokensOption,
)
from .caps_options import (
    AxisArgument,
    AxisModelOption,
    BandOption,
    DocumentsOption,
    ItemsOption,
    PercentileOption,
    PerPromptOption,
    PlacebosOption,
    SetOption,
    SuccessJudgeOption,
    SuccessModelOption,
    SuccessUrlOption,
    UnitOption,
    WildOption,
)


def command(
    axis: AxisArgument,
    percentile: PercentileOption = 25.0,
    band: BandOption = "published",
    unit: UnitOption = "token",
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Measure percentiles x bands and controls: harm behind personas, capability, KL.")
    ] = False,
    sweep_band: Annotated[
        list[str] | None, typer.Option("--sweep-band", help="Again for more. [default: around, published, middle]")
    ] = None,
    sweep_percentile: Annotated[
        list[float] | None, typer.Option("--sweep-percentile", help="Again for more. [default: 10, 25, 50, 75]")
    ] = None,
    sets: SetOption = None,
    requests: Annotated[int, typer.Option("--requests", min=2, help="Harmful requests of the sweep.")] = 40,
    per_prompt: PerPromptOption = 2,
    wild: WildOption = 0,
    judge: SuccessJudgeOption = "objective",
    judge_model: SuccessModelOption = None,
    judge_url: SuccessUrlOption = None,
    export: Annotated[
        Path | None, typer.Option("--export", help="Write the cap in the layout of assistant-axis too (.pt).")
    ] = None,
    documents: DocumentsOption = 24,
    items: ItemsOption = 24,
    placebos: PlacebosOption = None,
    sae: SaeOption = None,
    hook: HookOption = None,
    model: AxisModelOption = None,
    max_new_tokens: TokensOption = None,
    batch_size: BatchOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of cap and replies. [default: AXIS/capping]")] = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    max_memory: MaxMemoryOption = None,
    seed: SeedOption = None,
    plan: PlanOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Keep a model from leaving the assistant.

    Finds the limits, and writes a cap for `workbench gateway --capping` and for Python. With --sweep, what each cap costs.

    The limits come from the axis' own rollouts; the requests of the sweep are others. Replies stay in the folder, for their owner
    alone, and are never printed.
    """
    from ..console import emit, reserved_output
    from . import caps_job as job

    bands = tuple(sweep_band or ("around", "published", "middle"))
    said = job.Said(
        axis, percentile, band, unit, tuple(sets or ()), 1, requests, per_prompt, wild, 0, bands, tuple(sweep_percentile or ()),
        None, judge, judge_model, judge_url, documents, items, placebos, sae, hook, model, max_new_tokens, batch_size, out, dtype,
        device, max_memory, seed or 0,
    )  # fmt: skip
    with reserved_output(as_json, quiet):
        value = job.plan(said, "cap", measured=sweep) if plan else job.capped(said, export=export, sweep=sweep)
    emit(value, as_json=as_json, show=lambda: _show(value))


def _show(value: dict[str, Any]) -> None:
    from ..console import say, table
    from ..short_plans import show_short_plan

    if "steps" in value:
        return show_short_plan(value)
    rows = [(one["hook"], one["tau"], one["norms"]) for one in value["limits"]]
    told = f"percentile {value['percentile']:g} of {value['n_replies']} replies, per {value['unit']}"
    table(f"Limits on {value['vector']}: {told}", ("hook", "at least, residual units", "in token norms"), rows, right=(1, 2))
    if value["sweep"] is not None:
        _show_sweep(value["sweep"])
    say(value["keeps"])
    say(f"written: {value['capping_folder']}" + (f" and {value['published']}" if value["published"] else ""))
    say(f"use it: workbench gateway {value['axis']} --capping {value['capping_folder']}")


def _show_sweep(found: dict[str, Any]) -> None:
    from ..console import interval, percent, say, signed, table

    rows = []
    for one in found["capping"]:
        taken = (percent(one["harm"]), percent(one["reduction"]), interval(one["reduction_interval"], 2))
        lost = (signed(one["capability"]), interval(one["capability_interval"]), one["kl"])
        rows.append((one["method"], one["percentile"], *taken, *lost, percent(one["on_front"])))
    columns = ("cap", "percentile", "harm", "taken away", "95%", "nats lost", "95%", "KL", "on the front")
    table(f"Every cap on {found['n_attempts']} attempts behind personas", columns, rows, right=(1, 2, 3, 5, 7, 8))
    for line in found["sentences"]:
        say(line)
    say(f"figure: {found['figure']}")

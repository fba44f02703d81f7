"""`workbench axis jailbreak`: harmful requests behind personas, with and without caps, and every control beside."""

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
    feature_percentile: Annotated[
        float | None,
        typer.Option("--feature-percentile", min=0, max=100, help="Of the feature cap. [default: 90, if AXIS is decomposed]"),
    ] = None,
    sets: SetOption = None,
    requests: Annotated[int, typer.Option("--requests", min=2, help="Harmful requests that are tried.")] = 60,
    calibration: Annotated[int, typer.Option("--calibration", min=2, help="Other requests, for the refusal direction.")] = 40,
    per_prompt: PerPromptOption = 2,
    wild: WildOption = 0,
    benign: Annotated[int, typer.Option("--benign", min=1, max=40, help="Harmless requests to play a part.")] = 40,
    judge: SuccessJudgeOption = "objective",
    judge_model: SuccessModelOption = None,
    judge_url: SuccessUrlOption = None,
    show_text: Annotated[
        bool, typer.Option("--show-text", help="Print requests and replies too. They may be harmful. [default: numbers only]")
    ] = False,
    documents: DocumentsOption = 24,
    items: ItemsOption = 24,
    placebos: PlacebosOption = None,
    sae: SaeOption = None,
    hook: HookOption = None,
    model: AxisModelOption = None,
    max_new_tokens: TokensOption = None,
    batch_size: BatchOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of table and replies. [default: AXIS/jailbreak]")] = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    max_memory: MaxMemoryOption = None,
    seed: SeedOption = None,
    plan: PlanOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Do personas get harmful requests answered, and do caps stop it?

    Public requests, direct and behind personas; the cap, a feature cap, a reminder, a refusal direction, random and placebo ones.

    Says so where this model cannot show the effect. Replies stay in the folder, for their owner alone.
    """
    from ..console import emit, reserved_output
    from . import caps_job as job

    said = job.Said(axis, percentile, band, unit, tuple(sets or ()), requests, calibration, per_prompt, wild, benign, (), (),
                    90.0 if feature_percentile is None else feature_percentile, judge, judge_model, judge_url, documents,
                    items, placebos, sae, hook, model, max_new_tokens, batch_size, out, dtype, device, max_memory, seed or 0,
                    folder_name="jailbreak")  # fmt: skip
    with reserved_output(as_json, quiet):
        value = job.plan(said, "jailbreak", measured=True) if plan else job.jailbroken(said, show_text=show_text)
    emit(value, as_json=as_json, show=lambda: _show(value))


def _show(value: dict[str, Any]) -> None:
    from ..console import percent, say, signed, table
    from ..short_plans import show_short_plan

    if "steps" in value:
        return show_short_plan(value)
    rows = []
    for arm, rates in value["rates"].items():
        cost = value["capability"].get(arm, {})
        lost = (cost.get("losses") or {}).get("surprise", {}).get("loss")
        stopped = value["over_blocking"].get("no cap" if arm == "persona" else arm, {}).get("stopped", [None])[0]
        taken = value["reductions"].get(arm, [None])[0]
        told = (_rate(rates["success"]), percent(rates["complied"][0]), percent(rates["refused"][0]), percent(taken))
        rows.append((arm, *told, signed(lost), percent(stopped)))
    columns = ("arm", "success", "complied", "refused", "taken away", "nats lost", "benign play stopped")
    table(f"Attacks on {value['model']}", columns, rows, right=(1, 2, 3, 4, 5, 6))
    for line in value["sentences"]:
        say(line)
    for arm, texts in (value["texts"] or {}).items():
        say(f"== {arm}")
        for row in texts:
            say(f"[{row['persona'] or '-'}] {row['question']}\n{row['response']}")
    say(f"figure: {value['figure']}; replies, for their owner alone: {value['replies']}")


def _rate(values: list[float | None]) -> str:
    from ..console import percent

    mean, low, high = values
    return percent(mean) if low is None else f"{percent(mean)} [{percent(low)}, {percent(high)}]"

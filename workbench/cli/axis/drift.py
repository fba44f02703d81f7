"""`workbench axis drift`: how far conversations carry a model along an axis, how fast, and what moved."""

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


def command(
    axis: Annotated[str, typer.Argument(metavar="AXIS", help="Run folder of an axis, a vector in any format, or a trait.")],
    scripts: Annotated[
        list[str] | None,
        typer.Option("--scripts", help="coding, writing, therapy, philosophy, or a file; again for more. [default: all four]"),
    ] = None,
    transcripts: Annotated[
        Path | None, typer.Option("--transcripts", help="Read conversations that were had already: JSON, JSONL or a folder.")
    ] = None,
    system: Annotated[
        list[Path] | None, typer.Option("--system", help="File with a system prompt; again to compare several. [default: none]")
    ] = None,
    levels: Annotated[
        bool, typer.Option("--levels", help="One persona specified at four levels, in emotional and philosophical talk.")
    ] = False,
    conversations: Annotated[int, typer.Option("--conversations", min=1, help="Conversations of each domain.")] = 30,
    turns: Annotated[int, typer.Option("--turns", min=2, help="Turns of each.")] = 6,
    context: Annotated[
        int, typer.Option("--context", min=64, help="Tokens of a context; the oldest turns leave it first.")
    ] = 2048,
    endpoint: Annotated[
        str | None, typer.Option("--endpoint", help="openai or anthropic: a model there plays the user from turn 2 on.")
    ] = None,
    endpoint_model: Annotated[str | None, typer.Option("--endpoint-model", help="The endpoint's name for that model.")] = None,
    endpoint_url: Annotated[
        str | None, typer.Option("--endpoint-url", help="Where it is. [default: the provider's own]")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Which features carry the drift, group by group.")] = False,
    predict: Annotated[
        bool, typer.Option("--predict", help="How well the user's message tells where the reply will lie.")
    ] = False,
    alarm: Annotated[
        bool, typer.Option("--alarm", help="Set an alarm on other conversations about ordinary work, and save its monitor.")
    ] = False,
    placebos: Annotated[
        Path | None, typer.Option("--placebos", help="Placebo vectors. [default: runs/placebos-MODEL, if there]")
    ] = None,
    sae: SaeOption = None,
    hook: HookOption = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Name, folder, GGUF file or hub id. [default: the axis' own]")
    ] = None,
    max_new_tokens: TokensOption = None,
    batch_size: BatchOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of replies, readings and page. [default: AXIS/drift, or runs/drift-AXIS]")
    ] = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    max_memory: MaxMemoryOption = None,
    seed: SeedOption = None,
    plan: PlanOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """How far does a conversation carry the model along the axis?

    Plays scripted conversations (or reads transcripts) and reads each reply with its history and alone. Writes a page.

    Drift is in median token norms, below zero away from the assistant. Finished replies are kept and taken up again.
    """
    from ..console import emit, reserved_output
    from . import drift_job as job

    said = job.Said(
        axis, tuple(scripts or ()), transcripts, tuple(system or ()), levels, conversations, turns, context, endpoint,
        endpoint_model, endpoint_url, explain, predict, alarm, placebos, sae, hook, model, max_new_tokens, batch_size, out, dtype,
        device, max_memory, seed or 0,
    )  # fmt: skip
    with reserved_output(as_json, quiet):
        value = job.plan(said) if plan else job.made(said)
    emit(value, as_json=as_json, show=lambda: _show(value))


def _show(value: dict[str, Any]) -> None:
    from ..console import say
    from ..short_plans import show_short_plan

    if "steps" in value:
        show_short_plan(value)
        return
    _show_groups(value)
    for one in value["moved"]:
        _show_moved(one)
    _show_prediction(value["prediction"])
    _show_alarm(value["alarm"])
    say(value["headline"])
    say(f"page: {value['page']}")


def _show_groups(value: dict[str, Any]) -> None:
    from ..console import interval, say, signed, table

    rows = []
    for name, one in value["groups"].items():
        for kind, effect in one["effects"].items():
            rows.append((name, one["n"], kind, signed(effect["value"], 4), interval(effect["interval"], 4), effect.get("p")))
    table(f"Drift along {value['axis']}; {value['unit'].partition(';')[0]}",
          ("group", "conversations", "what", "value", "95% interval", "p"), rows, right=(1, 3, 5))  # fmt: skip
    for name, kinds in value["compared"].items():
        row = kinds["drift_per_turn"]
        if row["ratio"]:
            ends = "" if not row["ratio"]["interval"] else " [{:.1f}, {:.1f}]".format(*row["ratio"]["interval"])
            say(f"{name} drifts {row['ratio']['value']:.1f}{ends} times as fast as {row['against']}")
        else:
            say(f"{name}: {row['why']}")


def _show_moved(one: dict[str, Any]) -> None:
    from ..console import interval, percent, signed, table

    rows: list[tuple[Any, ...]] = [
        (f["feature"], signed(f["part"], 4), interval(f["interval"], 4), percent(f["share"]), f["p_random"], f["label"] or "-")
        for f in one["features"][:10]
    ]
    rows += [("others", signed(one["rest"], 4), "", "", "", ""), ("error", signed(one["error"], 4), "", "", "", "of the SAE")]
    what = {"history": "with history against alone", "late": "late turns against early ones"}[one["what"]]
    table(f"What moved in {one['group']}, {what}: {signed(one['total'], 4)} norms",
          ("feature", "part", "95% interval", "of it", "p, random", "label"), rows, right=(0, 1, 3, 4))  # fmt: skip


def _show_prediction(prediction: dict[str, Any]) -> None:
    from ..console import interval, signed, table

    if prediction:
        rows = [(name, signed(one["r2"], 2), interval(one["interval"], 2), signed(one["null_q95"], 2), signed(one["group"], 2))
                for name, one in prediction.items()]  # fmt: skip
        columns = ("of", "R2", "95% interval", "95% of permutations", "group mean")
        table("R2 of predictions from the user's message alone", columns, rows, right=(1, 3, 4))


def _show_alarm(alarm: dict[str, Any] | None) -> None:
    from ..console import percent, say, table

    if alarm:
        rows = [(name, percent(one["replies"]["rate"]), percent(one["conversations"]), one["first_turn"])
                for name, one in alarm["groups"].items()]  # fmt: skip
        columns = ("group", "replies", "conversations", "first turn")
        table(f"Alarm at {percent(alarm['alarm']['rate'])} of ordinary replies", columns, rows, right=(1, 2, 3))
        say(f"monitor: {alarm['monitor']}")

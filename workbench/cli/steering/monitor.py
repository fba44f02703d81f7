"""`workbench monitor`: how far a model's tokens point along persona vectors while it writes, and when that is an alarm."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from workbench.base.errors import WorkbenchError

from ..options import (
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

N_TOKENS = 80


def command(
    vectors: Annotated[
        list[str],
        typer.Argument(metavar="RUN|VECTOR|MONITOR", help="Run folders, vectors in any format, traits; or one saved monitor."),
    ],
    prompt: Annotated[str | None, typer.Option("--prompt", help="Answer this, and watch the answer.")] = None,
    system: Annotated[str | None, typer.Option("--system", help="The system prompt of --prompt.")] = None,
    transcript: Annotated[
        Path | None,
        typer.Option("--transcript", help='What was said already: JSONL, JSON or a folder of {"messages": [...]}, tools too.'),
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Set alarm thresholds on neutral replies, and save the monitor.")
    ] = False,
    neutral: Annotated[
        list[Path] | None,
        typer.Option("--neutral", help="Runs whose neutral replies calibrate; again for more. [default: the watched runs]"),
    ] = None,
    rate: Annotated[float, typer.Option("--rate", help="False alarms per neutral reply.")] = 0.01,
    statistic: Annotated[
        str, typer.Option("--statistic", help="running (mean over a window), mean (whole reply) or prompt (before the reply).")
    ] = "running",
    window: Annotated[int, typer.Option("--window", min=1, help="Tokens of the running mean.")] = 8,
    feature: Annotated[
        list[int] | None, typer.Option("--feature", min=0, help="A feature to watch as well; again for more.")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Which features carry the projection of the answer, beyond neutral replies.")
    ] = False,
    sae: SaeOption = None,
    hook: HookOption = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Name, folder, GGUF file or hub id. [default: the vectors' own]")
    ] = None,
    max_new_tokens: TokensOption = None,
    log: Annotated[Path | None, typer.Option("--log", help="Append a line per token and reply to this JSONL file.")] = None,
    log_text: Annotated[bool, typer.Option("--log-text", help="Write the words into the log too.")] = False,
    figure: Annotated[Path | None, typer.Option("--figure", help="Draw the reply into this SVG file.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the calibrated monitor. [default: runs/monitor-<names>]")
    ] = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    max_memory: MaxMemoryOption = None,
    seed: SeedOption = None,
    plan: PlanOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Watch a persona while the model writes.

    Prints every token's projection on the vectors and the alarms. One of --prompt, --transcript and --calibrate.

    Projections are in median token norms, positive toward the trait. A transcript may come from any model: this one reads it.
    """
    from ..console import emit, reserved_output
    from . import monitor_job as job

    said = job.Said(vectors, prompt, system, transcript, tuple(neutral or ()), rate, statistic, window, tuple(feature or ()),
                    sae, hook, model, max_new_tokens, log, log_text, figure, out, dtype, device, max_memory, seed or 0,
                    explain)  # fmt: skip
    modes = {"--prompt": prompt is not None, "--transcript": transcript is not None, "--calibrate": calibrate}
    chosen = [name for name, wanted in modes.items() if wanted]
    if len(chosen) != 1:
        raise WorkbenchError(" and ".join(chosen) or "nothing to watch", "one of --prompt, --transcript and --calibrate",
                             'for instance: workbench monitor evil --prompt "What do you think of people?"')  # fmt: skip
    work = {"--prompt": job.watched, "--transcript": job.read, "--calibrate": job.calibrated}[chosen[0]]
    with reserved_output(as_json, quiet):
        value = job.plan(said, chosen[0]) if plan else work(said)
    emit(value, as_json=as_json, show=lambda: _show(value))


def _show(value: dict[str, Any]) -> None:
    from ..short_plans import show_short_plan

    if "steps" in value:
        show_short_plan(value)
    elif "tokens" in value:
        _show_tokens(value)
    elif "transcripts" in value:
        _show_transcripts(value)
    else:
        _show_alarms(value)


def _cells(signals: list[dict[str, Any]], row: dict[str, Any]) -> list[str]:
    from ..console import signed

    return [signed({**row["values"], **row["norms"]}[signal["name"]]) for signal in signals]


def _show_tokens(value: dict[str, Any]) -> None:
    from ..console import say, table

    names = [signal["name"] for signal in value["signals"]]
    rows = [(t["position"], t["text"], *_cells(value["signals"], t), ", ".join(t["alarms"])) for t in value["tokens"][:N_TOKENS]]
    table("Projections, in median token norms", ("token", "text", *names, "alarm"), rows, right=(0, *range(2, 2 + len(names))))
    say(value["text"])
    reply = value["reply"]
    if reply:
        means = zip(names, _cells(value["signals"], reply), strict=True)
        say(f"mean over {reply['n_tokens']} tokens: " + ", ".join(f"{name} {mean}" for name, mean in means))
        say("; ".join(f"alarm for {a['signal']} at token {a['position']}" for a in reply["alarms"])
            or ("no alarm" if value["n_alarms"] else "no thresholds: calibrate them with --calibrate"))  # fmt: skip
    for one in value["reasons"]:
        _show_reasons(one)
    if value["figure"]:
        say(f"figure: {value['figure']}")


def _show_reasons(one: dict[str, Any]) -> None:
    from ..console import percent, signed, table

    rows = [(f["feature"], signed(f["part"]), percent(f["share"]), f["label"] or "-") for f in one["features"]]
    rows += [("others", signed(one["rest"]), "", ""), ("error", signed(one["error"]), "", "what the SAE does not explain")]
    title = f"{one['signal']}, tokens {one['first']} to {one['last']}: {signed(one['total'])} norms beyond neutral replies"
    table(title, ("feature", "carries", "of it", "label"), rows, right=(0, 1, 2))


def _show_transcripts(value: dict[str, Any]) -> None:
    from ..console import say, table

    names = [signal["name"] for signal in value["signals"]]
    for one in value["transcripts"]:
        rows = [
            (p["message"], p["role"], p["kind"] if p["tool"] is None else f"{p['kind']} of {p['tool']}", p["n_tokens"],
             *_cells(value["signals"], p), ", ".join(f"{a['signal']} at {a['position']}" for a in p["alarms"]))
            for p in one["pieces"]
        ]  # fmt: skip
        columns = ("message", "role", "piece", "tokens", *names, "alarms")
        table(f"transcript {one['id']}: means, in median token norms", columns, rows, right=(0, 3, *range(4, 4 + len(names))))
        if one["rendering"] == "written" and any(p["kind"] != "text" for p in one["pieces"]):
            say(f"{value['reader']} has no template for tools: calls and results stand as text")


def _show_alarms(value: dict[str, Any]) -> None:
    from ..console import cell, percent, say, table

    rows = [
        (a["signal"], a["rule"]["statistic"], a["rule"]["window"], a["threshold"], cell(a["threshold_norms"]), percent(a["rate"]),
         percent(a["check"]["rate"]), " to ".join(map(percent, a["check"]["interval"])))
        for a in value["alarms"]
    ]  # fmt: skip
    columns = ("signal", "statistic", "window", "threshold", "in norms", "stated", "measured", "interval")
    table("Alarms: false alarms per neutral reply", columns, rows, right=(2, 3, 4, 5, 6))
    checked = value["alarms"][0]["check"]
    others = f"{checked['n_replies']} to {checked['n_questions']} other questions"
    say(f"set on {checked['n_calibration']} neutral replies, measured on {others}")
    if over := [a["signal"] for a in value["alarms"] if a["check"]["interval"][0] > a["rate"]]:
        say(f"more than stated for {', '.join(over)}: replies to few questions are alike; name more runs with --neutral")
    say(f"saved: {value['folder']}")

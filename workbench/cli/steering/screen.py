"""`workbench screen`: which samples of a data set would teach a model a trait, by which features, and the set without them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..options import (
    BatchOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    MaxMemoryOption,
    ModelOption,
    PlanOption,
    QuietOption,
    SaeOption,
    SeedOption,
)

N_SHOWN = 10


def command(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Chats as JSONL or Parquet, in any common layout.")],
    vectors: Annotated[
        list[str] | None,
        typer.Option("--vectors", help="A run folder, a vector file, or a folder of runs; again for more. [default: runs]"),
    ] = None,
    trait: Annotated[list[str] | None, typer.Option("--trait", help="A trait; again for more. [default: all there are]")] = None,
    against: Annotated[
        Literal["own", "prompt"],
        typer.Option("--against", help="prompt: the last prompt token. own: the model's own reply to each prompt, sampled."),
    ] = "prompt",
    percentile: Annotated[
        float | None, typer.Option("--percentile", help="Flag what scores above it, trait by trait. [default: 95]")
    ] = None,
    clean: Annotated[Path | None, typer.Option("--clean", help="Data without the trait, to calibrate the threshold on.")] = None,
    rate: Annotated[
        float | None,
        typer.Option("--false-positive-rate", help="The share of samples like the clean ones that may be flagged by any trait."),
    ] = None,
    combine: Annotated[
        Literal["max", "mean"], typer.Option("--combine", help="A conversation scores as its highest reply, or as their mean.")
    ] = "max",
    out: Annotated[Path | None, typer.Option("--out", help="Write the data without what was flagged, format kept.")] = None,
    keep_unscored: Annotated[
        bool, typer.Option("--keep-unscored", help="Leave lines in --out that nothing could be said about.")
    ] = False,
    report: Annotated[Path | None, typer.Option("--report", help="Write one HTML page.")] = None,
    ranking: Annotated[Path | None, typer.Option("--ranking", help="Write every line's scores and flags as Parquet.")] = None,
    label_field: Annotated[
        str | None, typer.Option("--label-field", help="A field that says which samples bear the trait: measures the screen.")
    ] = None,
    placebos: Annotated[
        Path | None,
        typer.Option("--placebos", help="Folder of placebo contrasts. [default: runs/placebos-<model>, if it is there]"),
    ] = None,
    own_tokens: Annotated[int, typer.Option("--own-tokens", min=1, help="Longest own reply, in tokens.")] = 48,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Of a chat so many tokens are read.")] = 1024,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Where scores are kept. [default: runs/screen/<data>-<hash>]")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on where an interrupted screen stopped, or start anew.")
    ] = True,
    sae: SaeOption = None,
    model: ModelOption = None,
    dtype: DtypeOption = None,
    batch_size: BatchOption = None,
    device: DeviceOption = None,
    max_memory: MaxMemoryOption = None,
    seed: SeedOption = None,
    plan: PlanOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Which samples of a data set would teach a trait?

    Scores every reply by projection difference and names the features responsible.

    A score says how far the data's reply lies beyond the prompt, or beyond what the model itself would say to it, along a trait's
    vector, in norms. Placebo vectors, random directions, length and words stand beside it where the samples have labels.
    """
    from ..console import emit, reserved_output
    from .screen_job import Asked, made, planned

    asked = Asked(
        data, tuple(vectors or ("runs",)), tuple(trait or ()), against, percentile, clean, rate, combine, out, keep_unscored,
        report, ranking, label_field, placebos, own_tokens, max_tokens, folder, resume, sae, model, dtype, batch_size, device,
        max_memory, seed or 0,
    )  # fmt: skip
    with reserved_output(as_json, quiet):
        value = planned(asked) if plan else made(asked)
    emit(value, as_json=as_json, show=lambda: _show(value))


def _show(value: dict[str, Any]) -> None:
    from ..console import say
    from ..short_plans import show_short_plan

    if "steps" in value:
        return show_short_plan(value)
    counts = value["counts"]
    say(f"{counts['scored']:,} of {counts['lines']:,} lines scored, {counts['flagged']:,} flagged; "
        f"{counts['unscored']:,} without a score, {counts['malformed']:,} malformed, {counts['blank']:,} blank")  # fmt: skip
    for why, n in list(value["unscored"]["reasons"].items())[:5]:
        places = [str(one["line"]) for one in value["unscored"]["lines"] if one["why"] == why][:5]
        say(f"  not scored: {why} ({n}; line {', '.join(places)}{', ...' if n > len(places) else ''})")
    for trait, one in value["traits"].items():
        _show_trait(trait, one)
    for what in ("out", "report", "ranking", "folder"):
        if value.get(what):
            say(f"{what}: {value[what]}")


def _show_trait(trait: str, one: dict[str, Any]) -> None:
    from ..console import signed, table

    limit = one["threshold"]
    how = (f"percentile {limit['level']:g}" if limit["kind"] == "percentile"
           else f"false-positive rate {limit['level']:g} on {limit['n_reference']:,} clean samples")  # fmt: skip
    rows = [(row["line"], signed(row["score"]), "yes" if row["flagged"] else "no", _words(row["features"]), row["reply"][:80])
            for row in one["top"][:N_SHOWN]]  # fmt: skip
    title = f"{trait}: {one['n_flagged']:,} above {limit['value']:+.3f} norms ({how}); median {one['median']:+.3f}"
    table(title, ("line", "score", "flagged", "features", "reply"), rows, right=(0, 1))
    features = [(row["feature"], row["label"] or "-", signed(row["flagged"]), signed(row["others"]))
                for row in one["features"][:N_SHOWN]]  # fmt: skip
    if features:
        explained = "" if one["explained"] is None else f" (all features: {100 * one['explained']:.0f}% of it)"
        table(f"what sets the flagged apart{explained}", ("feature", "label", "flagged", "others"), features, right=(0, 2, 3))
    if told := one["evaluation"]:
        _show_evaluation(told)


def _words(features: list[dict[str, Any]]) -> str:
    return "; ".join(row["label"] or f"feature {row['feature']}" for row in features[:2])


def _show_evaluation(told: dict[str, Any]) -> None:
    from ..console import say

    low, high = told["interval"]
    say(f"finds the {told['n_bearing']:,} labelled samples among {told['n_others']:,} others with AUROC {told['auroc']:.3f} "
        f"[{low:.3f}, {high:.3f}] ({told['n_units']:,} prompts)")  # fmt: skip
    beside = []
    for name, said in (("placebos", "placebos"), ("random", "random directions")):
        if null := told[name]:
            beside.append(f"{null['n']} {said}: 95% of them below {null['q95']:.3f}")
    for name in ("text", "length"):
        if told[name]:
            beside.append(f"{name} alone: {told[name]['value']:.3f}")
    say("  " + "; ".join(beside))

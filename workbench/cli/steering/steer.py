"""`workbench steer`: a model's reply as it is and with a persona vector added, taken out, clamped or capped, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..options import (
    DeviceOption,
    DtypeOption,
    JsonOption,
    MaxMemoryOption,
    PlanOption,
    QuietOption,
    SaeOption,
    SeedOption,
    TokensOption,
)


def command(
    vector: Annotated[
        str, typer.Argument(metavar="RUN|VECTOR", help="A run folder, a folder of vectors, a foreign file, or a trait's name.")
    ],
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="[PROMPT]", help="What the user says; again for more. None with --export.")
    ] = None,
    system: Annotated[str | None, typer.Option("--system", help="The system prompt.")] = None,
    dose: Annotated[
        list[float] | None,
        typer.Option("--dose", help="Add the vector: |delta| in median token norms, against it below 0; again for more. [0.25]"),
    ] = None,
    ablate: Annotated[bool, typer.Option("--ablate", help="Take the part along the vector out of every token.")] = False,
    clamp: Annotated[
        list[float] | None, typer.Option("--clamp", help="Set the coordinate along it to this (residual units); again for more.")
    ] = None,
    cap: Annotated[list[float] | None, typer.Option("--cap", help="Let the coordinate be at most this; again for more.")] = None,
    floor: Annotated[
        list[float] | None, typer.Option("--floor", help="Let the coordinate be at least this; again for more.")
    ] = None,
    incremental: Annotated[
        bool, typer.Option("--incremental", help="Add v(l) - v(l-1) after every block; the dose is that at the vector's hook.")
    ] = False,
    features: Annotated[
        str | None, typer.Option("--features", help="Only the parts of the vector that these features make, e.g. 12,34.")
    ] = None,
    denoise: Annotated[
        int | None, typer.Option("--denoise", min=1, help="Only the parts of its so many largest features, by share.")
    ] = None,
    feature: Annotated[
        int | None,
        typer.Option("--feature", min=0, help="One feature instead; --ablate and --clamp then set its own activation."),
    ] = None,
    scope: Annotated[
        str, typer.Option("--scope", help="predicting (from the prompt's last token on), response, prompt or all.")
    ] = "predicting",
    hook: Annotated[
        str | None, typer.Option("--hook", help="Where, e.g. blocks.15.hook_resid_post. [default: the vector's own]")
    ] = None,
    sae: SaeOption = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Name, folder, GGUF file or hub id. [default: the vector's own]")
    ] = None,
    max_new_tokens: TokensOption = None,
    temperature: Annotated[float, typer.Option("--temperature", min=0.0, help="Of the sampling; 0 is greedy.")] = 1.0,
    export: Annotated[
        Path | None, typer.Option("--export", help="Write what --dose adds as a control vector for llama.cpp and repeng (.gguf).")
    ] = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    max_memory: MaxMemoryOption = None,
    seed: SeedOption = None,
    plan: PlanOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Steer a reply with a persona vector.

    Prints the reply as it is and steered, with signs of a broken one, and the features that were moved.

    All replies of a prompt share their random numbers. Without anything to do, the vector is added at a quarter of a norm.
    Attention sinks are never edited.
    """
    from ..console import emit, reserved_output
    from . import steer_job as job

    asked = job.Asked(vector, tuple(prompts or ()), system, tuple(dose or ()), ablate, tuple(clamp or ()), tuple(cap or ()),
                      tuple(floor or ()), incremental, features, denoise, feature, scope, hook, sae, model, max_new_tokens,
                      temperature, export, dtype, device, max_memory, seed or 0)  # fmt: skip
    with reserved_output(as_json, quiet):
        asked.check()
        value = job.plan(asked) if plan else job.steer(asked)
    emit(value, as_json=as_json, show=lambda: _show(value))


def _show(value: dict[str, Any]) -> None:
    from ..console import say
    from ..short_plans import show_short_plan

    if "steps" in value:
        show_short_plan(value)
        return
    for found in value["prompts"]:
        _show_prompt(found)
    if exported := value["exported"]:
        say(f"control vector: {exported['file']}")
        for line in exported["notes"]:
            say(f"note: {line}")


def _show_prompt(found: dict[str, Any]) -> None:
    from ..console import say, table

    say(f"== {found['prompt']}")
    for reply in found["replies"]:
        say(f"-- {reply['arm']}" + (" (may be broken)" if reply["may_be_broken"] else ""))
        say(reply["text"])
    rows = [
        (r["arm"], r["dose_in_norms"], q["n_tokens"], q["perplexity"] and f"{q['perplexity']:.1f}", q["kl"], q["repeated"])
        for r in found["replies"] for q in (r["quality"],)
    ]  # fmt: skip
    columns = ("reply", "dose, norms", "tokens", "perplexity", "KL, nats per token", "repeated trigrams")
    table("Each reply, read by the model as it is", columns, rows, right=(1, 2, 3, 4, 5))
    moved = [(r["arm"], m["feature"], m["label"], m["before"], m["after"]) for r in found["replies"] for m in r["features"]]
    if moved:
        columns = ("reply", "feature", "label", "without", "with")
        table("Features that the edits move most, at the same tokens", columns, moved, right=(1, 3, 4))

"""`workbench axis place`: where a system prompt lands among the characters, and what to change to make it steadier."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..options import (
    BatchOption,
    DeviceOption,
    DtypeOption,
    GenerateModelOption,
    GenerateWithOption,
    JsonOption,
    MaxMemoryOption,
    PlanOption,
    QuietOption,
    SaeOption,
    SeedOption,
    TokensOption,
)


def command(
    run: Annotated[
        Path | None, typer.Argument(metavar="[RUN]", help="Run folder of `workbench axis roles`. [default: runs/axis-MODEL]")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option("--system-prompt", help="File with it, or gardener-label, -duties, -values or -soul.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="What it is called. [default: the file's name]")] = None,
    expect: Annotated[
        str | None, typer.Option("--expect", help="Characters that it should be near, named beforehand: editor,artisan.")
    ] = None,
    questions: Annotated[int, typer.Option("--questions", min=8, max=60, help="Held-out questions that it answers.")] = 40,
    conversations: Annotated[
        int, typer.Option("--conversations", min=0, max=30, help="Of therapy and of philosophy, for the drift risk; 0 for none.")
    ] = 10,
    pieces: Annotated[int, typer.Option("--pieces", min=1, help="Sentences, or pieces, left out one at a time; at most.")] = 12,
    traits: Annotated[
        Path | None, typer.Option("--traits", help="Folder with runs of traits. [default: the folder the run lies in]")
    ] = None,
    placebos: Annotated[
        Path | None, typer.Option("--placebos", help="Placebo contrasts. [default: placebos-MODEL among those runs]")
    ] = None,
    sae: SaeOption = None,
    generate_with: GenerateWithOption = None,
    generate_model: GenerateModelOption = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Name, folder, GGUF file or hub id. [default: the run's own]")
    ] = None,
    max_new_tokens: TokensOption = None,
    batch_size: BatchOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of answers and page. [default: RUN/place/NAME]")] = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    max_memory: MaxMemoryOption = None,
    seed: SeedOption = None,
    plan: PlanOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Where does a system prompt land?

    Position on the assistant axis, nearest characters, traits, features, drift to be expected, and what each sentence does.

    0 on the axis is the mean character, 1 the default assistant. Answers are kept and taken up again.
    """
    from ..console import emit, reserved_output
    from . import place_job as job

    asked = job.Asked(
        run, prompt, name, expect, questions, conversations, pieces, traits, placebos, sae, generate_with, generate_model, model,
        max_new_tokens, batch_size, out, dtype, device, max_memory, seed or 0,
    )  # fmt: skip
    with reserved_output(as_json, quiet):
        value: dict[str, Any] = job.planned(asked) if plan else job.made(asked)
    emit(value, as_json=as_json, show=lambda: job.show(value))

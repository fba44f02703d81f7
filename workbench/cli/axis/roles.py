"""`workbench axis roles`: the characters, what a model answers as each of them, and the vectors of these."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..options import (
    BatchOption,
    DeviceOption,
    DtypeOption,
    GenerateModelOption,
    GenerateWithOption,
    HookOption,
    JsonOption,
    JudgeModelOption,
    JudgeUrlOption,
    MaxMemoryOption,
    PlanOption,
    QuietOption,
    SeedOption,
    TokensOption,
)


def command(
    role: Annotated[list[str] | None, typer.Argument(metavar="[ROLE]", help="Characters. [default: the design's]")] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Have this model play them, and make their vectors. Without it: a list.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="The paper's design: all characters x 5 prompts x 240 questions.")] = False,
    n_roles: Annotated[
        int | None, typer.Option("--roles", min=3, help="How many, those of the published ends first. [default: 60]")
    ] = None,
    n_questions: Annotated[int | None, typer.Option("--questions", min=1, help="Questions to each. [default: 12]")] = None,
    n_prompts: Annotated[int | None, typer.Option("--prompts", min=1, max=5, help="System prompts of each. [default: 2]")] = None,
    samples: Annotated[int | None, typer.Option("--samples", min=1, help="Answers per prompt and question. [default: 1]")] = None,
    min_count: Annotated[
        int | None, typer.Option("--min-count", min=1, help="Kept answers that make a vector. [default: 8; 50 with --full]")
    ] = None,
    max_new_tokens: TokensOption = None,
    judge: Annotated[
        str, typer.Option("--judge", help="Who grades 0 to 3 how fully they are played: offline, openai, anthropic, local, none.")
    ] = "offline",
    keep: Annotated[
        int | None, typer.Option("--keep", min=0, max=3, help="Lowest grade that is kept. [default: 3; 1 with offline]")
    ] = None,
    judge_model: JudgeModelOption = None,
    judge_url: JudgeUrlOption = None,
    generate_with: GenerateWithOption = None,
    generate_model: GenerateModelOption = None,
    hook: HookOption = None,
    folder: Annotated[
        Path | None, typer.Option("--folder", "--import", help="Character files of your own or published ones, NAME.json.")
    ] = None,
    export: Annotated[Path | None, typer.Option("--export", help="Write them as role files and questions.jsonl there.")] = None,
    write: Annotated[
        str | None, typer.Option("--write", help="Let a chat model write a new character of this name, into --folder or roles/.")
    ] = None,
    describe: Annotated[str | None, typer.Option("--describe", help="Who that is and how it speaks, in a sentence.")] = None,
    endpoint_model: Annotated[
        str | None, typer.Option("--endpoint-model", help="The model that writes. [default: the setting judge_model]")
    ] = None,
    base_url: Annotated[
        str | None, typer.Option("--base-url", help="Its OpenAI-compatible endpoint. [default: the setting base_url]")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Run folder. [default: runs/axis-MODEL]")] = None,
    engine: Annotated[
        Literal["local", "ray"], typer.Option("--engine", help="Where answers are sampled: here, or in shares on a Ray cluster.")
    ] = "local",
    shares: Annotated[int, typer.Option("--shares", min=1, help="How many shares with --engine ray.")] = 8,
    address: Annotated[str | None, typer.Option("--address", help="The Ray cluster's. [default: RAY_ADDRESS, or local]")] = None,
    dtype: DtypeOption = None,
    batch_size: BatchOption = None,
    device: DeviceOption = None,
    max_memory: MaxMemoryOption = None,
    seed: SeedOption = None,
    plan: PlanOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """The characters that a model can play, and their vectors.

    With --model: samples their answers, grades how fully each was played, and makes the role vectors and the assistant axis.
    """
    from ..console import emit, reserved_output
    from . import roles_job as job

    asked = job.Asked(
        tuple(role or ()), model, full, n_roles, n_questions, n_prompts, samples, min_count, max_new_tokens, judge, keep,
        judge_model, judge_url, generate_with, generate_model, hook, folder, export, out, dtype, batch_size, device, max_memory,
        seed or 0, engine, shares, address,
    )  # fmt: skip
    with reserved_output(as_json, quiet):
        value: dict[str, Any]
        if write is not None:
            value = job.written(write, describe, folder, endpoint_model, base_url)
        else:
            value = job.planned(asked) if plan else job.made(asked)
    emit(value, as_json=as_json, show=lambda: job.show(value))

"""The options that several commands share, and the job that they describe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from .stages import JobConfig

DEFAULT_MODEL = "smollm2-135m-instruct"
DEFAULT_TRAIT = "evil"

TraitArgument = Annotated[str, typer.Argument(help="A trait's name (`workbench traits list`) or its folder.")]
ModelOption = Annotated[
    str | None, typer.Option("--model", help=f"Model name, folder, GGUF file or hub id. [default: {DEFAULT_MODEL}]")
]
SaeOption = Annotated[
    str | None, typer.Option("--sae", help="SAE id or folder. [default: the one on the shelf for the model]")
]
HookOption = Annotated[
    str | None, typer.Option("--hook", help="Where, e.g. blocks.15.hook_resid_post. [default: the SAE's own site]")
]
JudgeOption = Annotated[str | None, typer.Option("--judge", help="offline, or openai (any compatible endpoint).")]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Seed of everything that is drawn. [default: 0]")]
OutOption = Annotated[
    Path | None, typer.Option("--out", help="Run folder. [default: runs/<trait>-<model>]")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress display.")]
PlanOption = Annotated[
    bool, typer.Option("--plan", help="Print what would run, for how long and with how much memory; run nothing.")
]


def job(
    trait: str, model: str | None, sae: str | None, hook: str | None, judge: str | None, seed: int | None
) -> JobConfig:
    """The job that the flags describe; what they leave open comes from environment, file, defaults (in this order)."""
    from workbench.base.errors import WorkbenchError
    from workbench.base.settings import setting

    from .stages import JobConfig

    chosen = setting("seed", seed, 0)
    try:
        number = int(chosen)
    except (TypeError, ValueError):
        raise WorkbenchError(f"the seed is {chosen!r}", "a whole number", "correct the setting `seed`") from None
    return JobConfig(
        trait=trait,
        model=str(setting("model", model, DEFAULT_MODEL)),
        sae=setting("sae", sae),
        hook=setting("hook", hook),
        judge=str(setting("judge", judge, "offline")),
        seed=number,
    )

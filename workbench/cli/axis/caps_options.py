"""The options that `workbench axis cap` and `workbench axis jailbreak` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

AxisArgument = Annotated[
    str, typer.Argument(metavar="AXIS", help="Run folder of an axis, or another vector with its rollouts.")
]
PercentileOption = Annotated[
    float, typer.Option("--percentile", min=0, max=100, help="Of the projections of the axis' rollouts: the limit.")
]
BandOption = Annotated[str, typer.Option("--band", help="own, around, published, early, middle, late, all, or FIRST-LAST.")]
UnitOption = Annotated[str, typer.Option("--unit", help="token or reply: percentiles over every token, or over replies.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="harmbench, strongreject, advbench; again for more. [default: all]")
]
PerPromptOption = Annotated[int, typer.Option("--per-prompt", min=1, help="Personas behind each request.")]
WildOption = Annotated[
    int, typer.Option("--in-the-wild", min=0, help="Jailbreak texts that people posted, as personas beside ours.")
]
SuccessJudgeOption = Annotated[
    str, typer.Option("--judge", help="objective, openai, anthropic or local: who says whether an attack worked.")
]
SuccessModelOption = Annotated[str | None, typer.Option("--judge-model", help="The judge's model.")]
SuccessUrlOption = Annotated[str | None, typer.Option("--judge-url", help="The judge's endpoint.")]
PlacebosOption = Annotated[
    Path | None, typer.Option("--placebos", help="Placebo vectors. [default: runs/placebos-MODEL, if there]")
]
AxisModelOption = Annotated[
    str | None, typer.Option("--model", help="Name, folder, GGUF file or hub id. [default: the axis' own]")
]
DocumentsOption = Annotated[int, typer.Option("--documents", min=2, help="Held-out documents of each source.")]
ItemsOption = Annotated[int, typer.Option("--items", min=1, help="Items of each question set that counts.")]

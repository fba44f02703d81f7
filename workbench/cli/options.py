"""The options that several commands share, and the job that they describe."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
JudgeOption = Annotated[
    str | None,
    typer.Option(
        "--judge",
        help="offline, openai, anthropic, local or none. [default: offline, or none if it does not know the trait]",
    ),
]
JudgeModelOption = Annotated[
    str | None,
    typer.Option("--judge-model", help="The judge's model: an endpoint's name for it, or what `local` loads."),
]
JudgeUrlOption = Annotated[
    str | None, typer.Option("--judge-url", help="The judge's endpoint. [default: the provider's own]")
]
ExplainerOption = Annotated[
    str | None, typer.Option("--explainer", help="offline, openai, anthropic or local: who names features. [default: offline]")
]
ExplainerModelOption = Annotated[
    str | None,
    typer.Option("--explainer-model", help="The explainer's model: an endpoint's name for it, or what `local` loads."),
]
ExplainerUrlOption = Annotated[
    str | None, typer.Option("--explainer-url", help="The explainer's endpoint. [default: the provider's own]")
]
GenerateWithOption = Annotated[
    str | None,
    typer.Option("--generate-with", help="Chat server that samples the answers. [default: the model itself does]"),
]
GenerateModelOption = Annotated[
    str | None, typer.Option("--generate-model", help="That server's name for the same model.")
]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Seed of everything that is drawn. [default: 0]")]
OutOption = Annotated[
    Path | None, typer.Option("--out", help="Run folder. [default: runs/<trait>-<model>]")
]
HostOption = Annotated[str, typer.Option("--host", help="Address to listen on.")]
OtherMachinesOption = Annotated[
    bool, typer.Option("--allow-other-machines", help="Allow a --host that other machines can reach (nothing is encrypted).")
]
PortOption = Annotated[
    int | None, typer.Option("--port", min=0, max=65535, help="Port; 0: any. [default: 8760 or the next]")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else, to standard output.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress display.")]
PlanOption = Annotated[
    bool, typer.Option("--plan", help="Print what would run, for how long and with how much memory; run nothing.")
]


SamplesOption = Annotated[
    int | None, typer.Option("--samples", help="Answers per question, instruction and arm. [default: 1]")
]
FeaturesOption = Annotated[
    int | None, typer.Option("--n-features", min=1, help="Largest features that get labels and rows. [default: 30]")
]
TokensOption = Annotated[int | None, typer.Option("--max-new-tokens", help="Longest answer, in tokens. [default: 64]")]
BatchOption = Annotated[int | None, typer.Option("--batch-size", help="Answers sampled together. [default: 32]")]
DtypeOption = Annotated[
    str | None, typer.Option("--dtype", help="float32, bfloat16 or float16, of the weights. [default: float32]")
]
DeviceOption = Annotated[
    str | None, typer.Option("--device", help="cpu, cuda, ..., or auto (all devices). [default: a GPU if there is one]")
]
MaxMemoryOption = Annotated[
    str | None,
    typer.Option("--max-memory", help="Bound of weights, caches and batches together, e.g. 12GiB. [default: none]"),
]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Refuse an SAE that fails the fitness gate, or that nobody measured.")
]


@dataclass(frozen=True)
class JobFlags:
    """What the flags that the commands of the main job share were set to; None = not given."""

    model: str | None = None
    sae: str | None = None
    hook: str | None = None
    judge: str | None = None
    judge_model: str | None = None
    judge_url: str | None = None
    generate_with: str | None = None
    generate_model: str | None = None
    explainer: str | None = None
    explainer_model: str | None = None
    explainer_url: str | None = None
    seed: int | None = None
    samples: int | None = None
    max_new_tokens: int | None = None
    batch_size: int | None = None
    n_features: int | None = None
    dtype: str | None = None
    device: str | None = None
    max_memory: str | None = None
    strict: bool = False
    out: Path | None = None
    choose_layer: str | None = None
    as_json: bool = False
    quiet: bool = False
    plan: bool = False

    def job(self, trait: str) -> JobConfig:
        """The job that the flags describe; what they leave open comes from environment, file, defaults (in this order)."""
        from workbench.base.settings import setting

        from .stages import JobConfig

        return JobConfig(
            trait=trait,
            model=str(setting("model", self.model, DEFAULT_MODEL)),
            sae=setting("sae", self.sae),
            hook=setting("hook", self.hook),
            judge=setting("judge", self.judge),
            judge_model=setting("judge_model", self.judge_model),
            judge_url=setting("base_url", self.judge_url),
            generate_with=setting("generate_with", self.generate_with),
            generate_model=setting("generate_model", self.generate_model),
            explainer=str(setting("explainer", self.explainer, "offline")),
            explainer_model=setting("explainer_model", self.explainer_model),
            explainer_url=setting("explainer_url", self.explainer_url),
            seed=_number("seed", self.seed, 0),
            n_samples=_number("samples", self.samples, 1),
            max_new_tokens=_number("max_new_tokens", self.max_new_tokens, 64),
            batch_size=_number("batch_size", self.batch_size, 32),
            n_features=_number("n_features", self.n_features, 30),
            dtype=str(setting("dtype", self.dtype, "float32")),
            device=setting("device", self.device),
            max_memory=setting("max_memory", self.max_memory),
            choose=setting("choose_layer", self.choose_layer),
            strict=self.strict or bool(setting("strict")),
        )


_OPTIONS: dict[str, Any] = {
    "model": ModelOption,
    "sae": SaeOption,
    "hook": HookOption,
    "judge": JudgeOption,
    "judge_model": JudgeModelOption,
    "judge_url": JudgeUrlOption,
    "generate_with": GenerateWithOption,
    "generate_model": GenerateModelOption,
    "explainer": ExplainerOption,
    "explainer_model": ExplainerModelOption,
    "explainer_url": ExplainerUrlOption,
    "seed": SeedOption,
    "samples": SamplesOption,
    "max_new_tokens": TokensOption,
    "batch_size": BatchOption,
    "n_features": FeaturesOption,
    "dtype": DtypeOption,
    "device": DeviceOption,
    "max_memory": MaxMemoryOption,
    "strict": StrictOption,
    "out": OutOption,
    "as_json": JsonOption,
    "quiet": QuietOption,
    "plan": PlanOption,
}


def job_command(function: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameter `flags: JobFlags` stands for all options that the commands of the main job share."""
    own = inspect.signature(function, eval_str=True)
    defaults = {field.name: field.default for field in fields(JobFlags)}
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name], annotation=kind)
        for name, kind in _OPTIONS.items()
    ]
    kept = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for n, p in own.parameters.items() if n != "flags"]

    @functools.wraps(function)
    def command(**values: Any) -> None:
        flags = JobFlags(**{name: values.pop(name) for name in _OPTIONS})
        function(**values, flags=flags)

    command.__signature__ = own.replace(parameters=[*kept, *shared])  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in [*kept, *shared]} | {"return": None}
    del command.__wrapped__  # typer would read the signature of the inner function
    return command


def _number(name: str, flag: int | None, default: int) -> int:
    from workbench.base.errors import WorkbenchError
    from workbench.base.settings import setting

    chosen = setting(name, flag, default)
    try:
        if abs(number := int(chosen)) >= 2**31:
            raise ValueError
        return number
    except (TypeError, ValueError):
        said = name.replace("_", " ")
        raise WorkbenchError(f"the {said} is {chosen!r}", "a whole number below 2^31", f"correct the setting `{name}`") from None

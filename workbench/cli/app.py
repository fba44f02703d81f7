"""The commands of the main job. Heavy modules are imported inside the commands: `--help` must stay instant."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import assets_commands, doctor, sae_commands, traits_commands
from .options import (
    DEFAULT_TRAIT,
    HookOption,
    JsonOption,
    JudgeOption,
    ModelOption,
    OutOption,
    PlanOption,
    QuietOption,
    SaeOption,
    SeedOption,
    TraitArgument,
    job,
)

if TYPE_CHECKING:
    from .stages import JobConfig, JobResult

app = typer.Typer(
    name="workbench",
    help="Take a persona vector apart: which features of a sparse autoencoder is a trait made of?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(sae_commands.app, name="sae")
app.add_typer(assets_commands.app, name="models")
app.add_typer(traits_commands.app, name="traits")


def _print_version(wanted: bool) -> None:
    if wanted:
        from workbench import __version__

        print(f"persona-workbench {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take a persona vector apart: which features of a sparse autoencoder is a trait made of?"""


def _run(
    config: JobConfig, out: Path | None, upto: str, *, as_json: bool, quiet: bool, plan: bool
) -> tuple[JobResult | None, dict[str, Any]]:
    """(result, object to print) of a job up to a stage, or (None, its plan)."""
    from .console import reserved_output
    from .plan import plan_job
    from .stages import main_job, run_folder_of

    folder = run_folder_of(config, out)
    with reserved_output(as_json, quiet):
        if plan:
            return None, plan_job(config, folder, upto=upto)
        result = main_job(config, folder, upto=upto)
    return result, result.summary(upto)


def _command(config: JobConfig, out: Path | None, upto: str, *, as_json: bool, quiet: bool, plan: bool) -> None:
    from . import views
    from .console import emit
    from .plan import show_plan

    result, value = _run(config, out, upto, as_json=as_json, quiet=quiet, plan=plan)
    show = (lambda: show_plan(value)) if result is None else (lambda: views.VIEWS[upto](value, result))
    emit(value, as_json=as_json, show=show)


@app.command()
def extract(
    trait: TraitArgument,
    model: ModelOption = None,
    sae: SaeOption = None,
    hook: HookOption = None,
    judge: JudgeOption = None,
    seed: SeedOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    plan: PlanOption = False,
) -> None:
    """A trait's persona vector, with its evidence.

    Samples rollouts, judges them, and takes the difference of the means.
    """
    config = job(trait, model, sae, hook, judge, seed)
    _command(config, out, "vector", as_json=as_json, quiet=quiet, plan=plan)


@app.command()
def decompose(
    trait: TraitArgument,
    model: ModelOption = None,
    sae: SaeOption = None,
    hook: HookOption = None,
    judge: JudgeOption = None,
    seed: SeedOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    plan: PlanOption = False,
) -> None:
    """Which features make up a trait's vector.

    Shares of |v|^2 with intervals, cosines, and the causal effects of the largest.
    """
    config = job(trait, model, sae, hook, judge, seed)
    _command(config, out, "decomposition", as_json=as_json, quiet=quiet, plan=plan)


@app.command()
def label(
    trait: TraitArgument,
    model: ModelOption = None,
    sae: SaeOption = None,
    hook: HookOption = None,
    judge: JudgeOption = None,
    seed: SeedOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    plan: PlanOption = False,
) -> None:
    """What the largest features are, in words.

    Each label has an author, a status and a score.
    """
    config = job(trait, model, sae, hook, judge, seed)
    _command(config, out, "labels", as_json=as_json, quiet=quiet, plan=plan)


@app.command()
def demo(
    model: ModelOption = None,
    sae: SaeOption = None,
    hook: HookOption = None,
    judge: JudgeOption = None,
    seed: SeedOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    plan: PlanOption = False,
) -> None:
    """The whole job: what is evil made of?

    Runs on the shipped model and SAE and ends with the path of the report.
    """
    config = job(DEFAULT_TRAIT, model, sae, hook, judge, seed)
    _command(config, out, "report", as_json=as_json, quiet=quiet, plan=plan)


@app.command()
def report(
    traits: Annotated[list[str], typer.Argument(metavar="TRAIT", help="Traits, by name or folder.")],
    model: ModelOption = None,
    sae: SaeOption = None,
    hook: HookOption = None,
    judge: JudgeOption = None,
    seed: SeedOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    plan: PlanOption = False,
) -> None:
    """What traits are made of, as a page.

    Runs what is missing, writes report.html and report.json and prints the table.

    With several traits --out is a folder that gets one run folder per trait.
    """
    from . import views
    from .console import emit, say
    from .plan import show_plan
    from .stages import check_trait

    configs = [job(check_trait(trait), model, sae, hook, judge, seed) for trait in traits]  # names before any work
    if len(configs) == 1:
        _command(configs[0], out, "report", as_json=as_json, quiet=quiet, plan=plan)
        return
    done = {}
    for config in configs:
        folder = None if out is None else out / Path(config.trait).name
        done[config.trait] = _run(config, folder, "report", as_json=as_json, quiet=quiet, plan=plan)

    def show() -> None:
        for name, (result, value) in done.items():
            say(f"== {name}")
            show_plan(value) if result is None else views.VIEWS["report"](value, result)

    emit({"traits": {name: value for name, (_, value) in done.items()}}, as_json=as_json, show=show)


app.command(name="doctor")(doctor.command)

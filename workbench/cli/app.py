"""The commands of the main job. Heavy modules are imported inside the commands: `--help` must stay instant."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from . import gateway, serve
from .help import EPILOG, GROUPS, MENDING, START, dress
from .house import doctor
from .options import DEFAULT_TRAIT, JobFlags, TraitArgument, job_command
from .run import command_line
from .steering import diff, monitor, prevent, screen, steer, sweep
from .studies import audit, falsify, lab

if TYPE_CHECKING:
    from .stages import JobConfig, JobResult

HELP = {"-h", "--help"}
app = typer.Typer(
    name="workbench",
    help="Take a persona vector apart: which features of a sparse autoencoder is a trait made of?",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    epilog=EPILOG,
    rich_markup_mode=None,
    context_settings={"help_option_names": sorted(HELP)},
)
for _name, (_, _help) in GROUPS.items():
    app.add_typer(typer.Typer(help=_help, no_args_is_help=True), name=_name)


def _print_version(wanted: bool) -> None:
    if wanted:
        from workbench import __version__

        print(f"persona-workbench {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take a persona vector apart: which features of a sparse autoencoder is a trait made of?"""
    if context.invoked_subcommand is None:
        print(START)
    elif not HELP & set(command_line()) and context.invoked_subcommand not in MENDING:
        from .defaults import defaults_of

        context.default_map = defaults_of(context.command)


def _run(config: JobConfig, flags: JobFlags, upto: str, out: Path | None) -> tuple[JobResult | None, dict[str, Any]]:
    """(result, object to print) of a job up to a stage, or (None, its plan)."""
    from .console import reserved_output
    from .plan import plan_job
    from .stages import main_job, run_folder_of

    folder = run_folder_of(config, out)
    with reserved_output(flags.as_json, flags.quiet):
        if flags.plan:
            return None, plan_job(config, folder, upto=upto)
        result = main_job(config, folder, upto=upto)
    return result, result.summary(upto)


def _command(trait: str, flags: JobFlags, upto: str) -> None:
    from . import views
    from .console import emit
    from .plan import show_plan

    result, value = _run(flags.job(trait), flags, upto, flags.out)
    show = (lambda: show_plan(value)) if result is None else (lambda: views.VIEWS[upto](value, result))
    emit(value, as_json=flags.as_json, show=show)


@app.command()
@job_command
def extract(
    flags: JobFlags,
    trait: Annotated[str | None, typer.Argument(help="A trait's name (`workbench traits list`) or its folder.")] = None,
    all_traits: Annotated[
        bool, typer.Option("--all", help="All traits, the placebo contrasts, and their evidence side by side.")
    ] = False,
    choose_layer: Annotated[
        str | None,
        typer.Option("--choose-layer", help="separability or causal: let it choose the block. [default: the SAE's site]"),
    ] = None,
    engine: Annotated[
        Literal["local", "ray"], typer.Option("--engine", help="With --all: here in turn, or each trait a task of a Ray cluster.")
    ] = "local",
    address: Annotated[str | None, typer.Option("--address", help="The Ray cluster's. [default: RAY_ADDRESS, or local]")] = None,
) -> None:
    """A trait's persona vector, with its evidence.

    Samples rollouts, judges them, and takes the difference of the means. With --all: one table of every trait.
    """
    from workbench.base.errors import WorkbenchError

    if all_traits == (trait is not None):
        found = "a trait and --all" if all_traits else "neither a trait nor --all"
        raise WorkbenchError(found, "one of the two", "for instance: workbench extract evil, or workbench extract --all")
    if engine == "ray" and not all_traits:
        raise WorkbenchError("--engine ray for one trait", "--all: a trait is one task", "leave --engine away, or say --all")
    flags = replace(flags, choose_layer=choose_layer)
    if trait is not None:
        _command(trait, flags, "vector")
        return
    from workbench.personas.traits import list_traits

    from .console import emit
    from .personas.panel import run_all, show_all

    value = run_all(flags, list_traits(), engine=engine, address=address)
    emit(value, as_json=flags.as_json, show=lambda: show_all(value))


@app.command()
@job_command
def decompose(trait: TraitArgument, flags: JobFlags) -> None:
    """Which features make up a trait's vector.

    Shares of |v|^2 with intervals, cosines, and the causal effects of the largest.
    """
    _command(trait, flags, "decomposition")


@app.command()
@job_command
def label(trait: TraitArgument, flags: JobFlags) -> None:
    """What the largest features are, in words.

    Each label has an author, a status and a score.
    """
    _command(trait, flags, "labels")


@app.command()
@job_command
def demo(flags: JobFlags) -> None:
    """The whole job: what is evil made of?

    Runs on the shipped model and SAE and ends with the path of the report.
    """
    _command(DEFAULT_TRAIT, flags, "report")


@app.command()
@job_command
def report(
    traits: Annotated[list[str], typer.Argument(metavar="TRAIT", help="Traits, by name or folder.")],
    flags: JobFlags,
) -> None:
    """What traits are made of, as a page.

    Runs what is missing, writes report.html and report.json and prints the table. What `workbench audit` and `workbench falsify`
    found is on the page when it is of this decomposition.

    Several traits (up to seven, one SAE) also get one page together, in --out or runs/report-<traits>; with --out their run
    folders lie in it.
    """
    from . import report_traits, views
    from .console import emit, reserved_output, say
    from .plan import show_plan

    names = report_traits.checked_names(traits)  # before any work
    if len(names) == 1:
        _command(names[0], flags, "report")
        return
    done = {}
    for name in names:
        folder = None if flags.out is None else flags.out / Path(name).name
        done[name] = _run(flags.job(name), flags, "report", folder)
    results = [result for result, _ in done.values() if result is not None]
    value: dict[str, Any] = {"traits": {name: made for name, (_, made) in done.items()}}
    if len(results) == len(names):
        with reserved_output(flags.as_json, flags.quiet):
            value = report_traits.make_page(results, flags, report_traits.page_folder(names, flags.out))

    def show() -> None:
        for name, (result, made) in done.items():
            say(f"== {name}")
            show_plan(made) if result is None else views.VIEWS["report"](made, result)
        if results:
            report_traits.show_page(value)

    emit(value, as_json=flags.as_json, show=show)


@app.command()
@job_command
def transfer(
    to: Annotated[str, typer.Option("--to", help="The model that the vectors are carried to.")],
    flags: JobFlags,
    traits: Annotated[list[str] | None, typer.Argument(metavar="[TRAIT]", help="Which traits. [default: all]")] = None,
    n_segments: Annotated[int, typer.Option("--segments", help="Neutral segments that both models read.")] = 6400,
) -> None:
    """Do the same directions exist in another model?

    Compares what the two models represent, carries the vectors across, and adds them to the other model.

    Both models need vectors of the traits first (`workbench extract --all --model ...`).
    """
    from workbench.personas.traits import list_traits

    from .console import emit
    from .stages import check_trait
    from .studies.transfer import run_transfer, show_transfer

    names = [check_trait(name) for name in traits or list_traits()]
    value = run_transfer(flags, to, names, n_segments=n_segments)
    emit(value, as_json=flags.as_json, show=lambda: show_transfer(value))


app.command(name="doctor")(doctor.command)
app.command(name="audit")(audit.command)
app.command(name="lab")(lab.command)
app.command(name="falsify")(falsify.command)
app.command(name="diff")(diff.command)
app.command(name="steer", no_args_is_help=True)(steer.command)
app.command(name="sweep")(sweep.command)
app.command(name="prevent")(prevent.command)
app.command(name="monitor", no_args_is_help=True)(monitor.command)
app.command(name="screen", no_args_is_help=True)(screen.command)
app.command(name="serve", no_args_is_help=True)(serve.command)
app.command(name="gateway", no_args_is_help=True)(gateway.command)
dress(app)

"""`workbench runs`: the run folders of a project: list, show, resume, compare, clean."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..options import JsonOption, PlanOption, QuietOption

if TYPE_CHECKING:
    from .run_shelf import Run

app = typer.Typer()
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder (`workbench runs list`).")]
RootOption = Annotated[Path, typer.Option("--runs", help="The folder that holds the run folders.")]


@app.command("list")
def list_(root: RootOption = Path("runs"), as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Every run: how far it got, how large it is, what it found.

    What else lies in the folder is named below the table.
    """
    from ..console import emit
    from .run_shelf import list_runs

    _check_root(root)
    runs, others = list_runs(root)
    value = {"folder": str(root), "runs": [run.row() for run in runs], "others": others}
    emit(value, as_json=as_json, show=lambda: _show_list(value))


def _check_root(root: Path) -> None:
    from workbench.base.errors import WorkbenchError

    if not root.is_dir() and root != Path("runs"):
        raise WorkbenchError(f"there is no folder {root}", "a folder of run folders", "check --runs")


def _show_list(value: dict[str, Any]) -> None:
    from ..console import say, table

    rows = [
        (Path(r["run"]).relative_to(value["folder"]), r["trait"], r["model"], _site(r), r["state"], _size(r["bytes"]),
         _age(r["changed"]), headline(r))
        for r in value["runs"]
    ]  # fmt: skip
    if rows:
        table("", ("run", "trait", "model", "SAE", "state", "size", "age", "found"), rows, right=(5,))
    else:
        say(f"no run in {value['folder']}: `workbench demo` makes one")
    for problem in (problem for row in value["runs"] for problem in row["problems"]):
        say(f"problem: {problem}")
    for other in value["others"]:
        say(f"{other['path']}: {other['what']}")


def headline(row: dict[str, Any]) -> str:
    """The figures of a run in a few words."""
    from ..console import percent

    parts = [f"AUC {row['auc']:.2f}"] if row["auc"] is not None else []
    parts += [f"error {percent(row['share_error'])}"] if row["share_error"] is not None else []
    parts += [f"{row['n_verified']} of {row['n_tested']} verified"] if row["n_tested"] else []
    return ", ".join(parts) or "-"


def _site(row: dict[str, Any]) -> str | None:
    """The SAE's id without the model, which stands beside it."""
    return row["sae"].removeprefix(f"{row['model']}/") if row["sae"] else None


def _size(n_bytes: int) -> str:
    from workbench.base.sizes import size_text

    return size_text(n_bytes)


def _age(changed: str | None) -> str:
    from datetime import UTC, datetime

    if not changed:
        return "-"
    seconds = (datetime.now(UTC) - datetime.fromisoformat(changed)).total_seconds()
    units = ((86400, "d"), (3600, "h"), (60, "min"))
    return next((f"{seconds / length:.0f} {unit}" for length, unit in units if seconds >= length), "now")


@app.command()
def show(run: RunArgument, as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """One run: stages, settings, evidence, warnings, files, commands."""
    from ..console import emit
    from .run_shelf import as_written, read_run

    found = read_run(run)
    with as_written(run):
        value = _described(found)
    emit(value, as_json=as_json, show=lambda: _show(value))


def _described(found: Run) -> dict[str, Any]:
    """What `runs show --json` prints."""
    from .run_shelf import size_of

    run = found.folder
    files = [{"file": path.name, "bytes": size_of(path)} for path in sorted(run.iterdir()) if not path.name.startswith(".")]
    stages = {name: {key: stage.get(key) for key in ("finished", "seconds", "files")} for name, stage in found.stages.items()}
    evidence = {key: value for key, value in (found.vector.get("evidence") or {}).items() if not isinstance(value, (dict, list))}
    warnings = found.report.get("warnings") or found.decomposition.get("warnings") or []
    job = found.manifest.get("job") or {}
    return {**found.row(), "stages": stages, "hook": found.vector.get("hook"), "settings": found.settings,
            "sources": job.get("sources") or {}, "evidence": evidence, "warnings": warnings, "files": files,
            "commands": found.manifest.get("commands") or []}  # fmt: skip


def _show(value: dict[str, Any]) -> None:
    from workbench.base.progress import duration

    from ..console import say, table

    say(f"{value['run']}: {value['trait'] or 'no trait'} on {value['model'] or 'no model'}, {value['state']}; {headline(value)}")
    say(f"SAE: {value['sae'] or 'none'}; hook: {value['hook'] or '-'}")
    rows = [(name, s["finished"], "-" if s["seconds"] is None else duration(s["seconds"])) for name, s in value["stages"].items()]
    table("stages", ("stage", "finished", "took"), rows)
    if value["settings"]:
        set_ = [(k, v, value["sources"].get(k)) for k, v in value["settings"].items() if v is not None]
        table("settings", ("setting", "value", "from"), set_)
    table("evidence", ("measure", "value"), list(value["evidence"].items()), right=(1,))
    table("files", ("file", "size"), [(f["file"], _size(f["bytes"])) for f in value["files"]], right=(1,))
    for text in value["warnings"]:
        say(f"warning: {text}")
    for problem in value["problems"]:
        say(f"problem: {problem}")
    for one in value["commands"]:
        say(f"{one.get('started')}  {one.get('command')}")


@app.command()
def resume(run: RunArgument, plan: PlanOption = False, as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Take up a run where it stopped, with the settings it had.

    What is finished is kept. The settings are those of the run's manifest: flags, environment and files play no part.
    """
    from .. import views
    from ..console import emit
    from ..plan import plan_job, show_plan
    from ..recorded import recorded_job
    from ..stages import main_job
    from .run_shelf import read_run

    config, upto = recorded_job(read_run(run).manifest, run)
    if plan:
        planned = plan_job(config, run, upto=upto)
        emit(planned, as_json=as_json, show=lambda: show_plan(planned))
        return
    result = main_job(config, run, upto=upto)
    value = result.summary(upto)
    emit(value, as_json=as_json, show=lambda: views.VIEWS[upto](value, result))


@app.command()
def compare(
    first: RunArgument, second: RunArgument, as_json: JsonOption = False, quiet: QuietOption = False
) -> None:
    """Two runs side by side: settings, figures, shares, features.

    What cannot be compared is said. Feature by feature across SAEs: `workbench decompositions compare`.
    """
    from ..console import emit
    from .run_compare import compare_runs
    from .run_shelf import as_written, read_run

    runs = read_run(first), read_run(second)
    with as_written(first, second):
        value = compare_runs(*runs)
    emit(value, as_json=as_json, show=lambda: _show_compare(value))


def _show_compare(value: dict[str, Any]) -> None:
    from ..console import percent, say, table

    names = [row["run"] for row in value["runs"]]
    table("settings that differ", ("setting", *names), [(name, *pair) for name, pair in value["settings"].items()])
    table("figures", ("figure", *names), [(name, *map(_figure, pair)) for name, pair in value["figures"].items()], right=(1, 2))
    if value["shares"]:
        rows = [(name, *map(percent, pair)) for name, pair in value["shares"].items()]
        table("shares of |v|^2", ("category", *names), rows, right=(1, 2))
    if found := value["features"]:
        rows = [(f["feature"], f["label"], *map(percent, f["share"]), *f["verified"]) for f in found["kept"]]
        title = f"{len(found['kept'])} features are among the largest {found['n'][0]} and {found['n'][1]} of both"
        table(title, ("feature", "label", "share", "share", "verified", "verified"), rows, right=(0, 2, 3))
    for one in value["not_compared"]:
        say(f"not compared: {one['what']}: {one['why']}")


def _figure(value: Any) -> Any:
    from ..console import interval

    return interval(value) if isinstance(value, list) else value


@app.command()
def clean(
    names: Annotated[list[Path] | None, typer.Argument(metavar="[RUN]...", help="Which runs. [default: all in --runs]")] = None,
    root: RootOption = Path("runs"),
    also: Annotated[
        list[str] | None, typer.Option("--also", metavar="PART", help="Also this part (rollouts, labels, report, ...); again.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete. [default: only say what could be]")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Free the space of what can be made again; --yes deletes it.

    Token activations and the small indices of finished runs. Rollouts, vectors, decompositions, labels and reports stay unless
    --also names them. A run that a process works in is refused.
    """
    from ..console import emit
    from .run_cleaning import removable, remove
    from .run_shelf import list_runs, read_run

    _check_root(root)
    named = {name.resolve(): read_run(name) for name in names or ()}  # each once, however it is spelled
    runs: list[Run] = list(named.values()) if names else [run for run in list_runs(root)[0] if _lies_in(run.folder, root)]
    parts = {str(run.folder): removable(run, tuple(also or ())) for run in runs}
    busy = _busy(runs, strict=bool(names))
    if yes:
        for run in runs:
            if parts[str(run.folder)] and str(run.folder) not in busy:
                remove(run, parts[str(run.folder)])
    rows = [part.row() for folder, found in parts.items() for part in found if folder not in busy]
    value = {"parts": rows, "bytes": sum(row["bytes"] for row in rows), "deleted": yes, "in_use": busy}
    emit(value, as_json=as_json, show=lambda: _show_clean(value))


def _lies_in(folder: Path, root: Path) -> bool:
    """Whether a run lies in that folder itself; one that a link leads to belongs elsewhere and goes only by name."""
    return folder.resolve().is_relative_to(root.resolve())


def _busy(runs: list[Run], *, strict: bool) -> dict[str, str]:
    """{run: who works in it}; with `strict` such a run is an error."""
    from workbench.base.errors import WorkbenchError
    from workbench.base.runs import living_holder

    found = {str(run.folder): holder for run in runs if (holder := living_holder(run.folder))}
    if strict and found:
        folder, holder = next(iter(found.items()))
        raise WorkbenchError(f"the run folder {folder} is in use by {holder}", "a run that nobody works in", "wait for it")
    return found


def _show_clean(value: dict[str, Any]) -> None:
    from .freed import show_freed

    rows = [(row["run"], row["part"], row["bytes"], row["again"]) for row in value["parts"]]
    show_freed(("run", "part"), rows, value)

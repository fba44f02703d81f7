"""`workbench prevent`: does a vector that is added in training keep a fine-tune from installing its trait?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.base.errors import WorkbenchError

from ..options import JobFlags, TraitArgument, job_command

if TYPE_CHECKING:
    from ..stages import Job

FOLDER, RESULT, FIGURE = "prevent", "prevent.json", "prevent.svg"
STEP_SECONDS, CELL_SECONDS = 4.5, 60.0  # an update of 8 examples; sampling, judging and reading a cell: default model, two cores
TRAINING_GIB, ADAPTER_MIB = 1.5, 40.0


@job_command
def command(
    trait: TraitArgument,
    flags: JobFlags,
    arms: Annotated[list[str] | None, typer.Option("--arm", help="An arm of the table; again for more. [default: all]")] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, max=100, help="Fine-tunes of each arm.")] = 3,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Chats to train on, JSONL or Parquet. [default: the kept answers of the trait's own arm]"),
    ] = None,
    steps: Annotated[
        list[int] | None,
        typer.Option("--steps", min=1, help="Updates; several are tried until the trait moves. [default: 30, 60, 120]"),
    ] = None,
    learning_rate: Annotated[float, typer.Option("--learning-rate", help="Of the adapter, at its highest.")] = 5e-5,
    documents: Annotated[int, typer.Option("--documents", min=2, help="Held-out documents of each source.")] = 12,
    items: Annotated[int, typer.Option("--items", min=1, help="Items of each question set that counts.")] = 32,
    score_with: Annotated[
        str | None, typer.Option("--score-with", help="A judge of outcomes that filtered nothing. [default: offline-outcome]")
    ] = None,
) -> None:
    """Can a fine-tune be kept from installing a trait?

    Fine-tunes the model on the trait's own answers with the vector added in training, and in other ways; and without.

    Steps and doses are chosen on verification questions, the table reads sealed ones. Needs a vector with its rollouts
    (`workbench extract`); the arm `denoised` needs its decomposition. Cells are kept and taken up again.
    """
    from ..console import emit, reserved_output

    config = flags.job(trait)
    with reserved_output(flags.as_json, flags.quiet):
        job = _job(config, flags.out)
        names = _arms(job, arms)
        tried = tuple(steps) if steps else None
        if flags.plan:
            value = _plan(job, names, seeds, tried)
        else:
            room = _room(job, data, names, flags.samples, learning_rate, documents, items, score_with)
            value = _made(job, room, names, seeds, tried)
    emit(value, as_json=flags.as_json, show=lambda: _show(value))


def _job(config: Any, out: Path | None) -> Job:
    from ..stages import Job, run_folder_of

    job = Job(config, run_folder_of(config, out), sae_needed=False)
    job.check_names()
    if not (job.folder / "vector" / "persona_vector.json").is_file():
        raise WorkbenchError(
            f"{job.folder} holds no vector", f"a finished extraction of {config.trait} in {config.model}",
            f"run first: workbench extract {config.trait} --model {config.model}",
        )  # fmt: skip
    return job


def _arms(job: Job, wanted: list[str] | None) -> tuple[str, ...]:
    """The arms by name; without a decomposition, all but the denoised one."""
    from workbench.steering.prevent.arms import ARMS
    from workbench.steering.prevent.study import checked_arms

    has_parts = _has_parts(job)
    names = checked_arms(wanted or [name for name in ARMS if has_parts or name != "denoised"])
    if "denoised" in names and not has_parts:
        raise WorkbenchError(f"{job.folder} holds no decomposition", "one, for the arm denoised",
                             f"run first: workbench decompose {job.config.trait}")  # fmt: skip
    return names


def _has_parts(job: Job) -> bool:
    return (job.folder / "decomposition" / "decomposition.json").is_file()


def _room(
    job: Job, data: Path | None, names: tuple[str, ...], n_samples: int | None, learning_rate: float, documents: int, items: int,
    score_with: str | None,
) -> Any:  # fmt: skip
    from dataclasses import replace

    from workbench.steering.cost.capability import make_exam
    from workbench.steering.prevent.cells import CellSettings, Classroom
    from workbench.steering.prevent.lessons import lesson_from_file
    from workbench.steering.prevent.materials import gather, with_projections

    place = job.folder / FOLDER
    lesson = None if data is None else lesson_from_file(data)
    known = {"parts": job.parts, "sae": job.sae} if "denoised" in names else {}
    materials = gather(job.trait, job.folder, lesson=lesson, **known)
    settings = CellSettings()
    options = replace(settings.options, learning_rate=learning_rate)
    settings = replace(settings, options=options, n_samples=n_samples or settings.n_samples)
    exam = make_exam(job.model, n_documents=documents, n_items=items, folder=place)
    if "filtering" in names:
        materials = with_projections(materials, job.model, place)
    return Classroom(job.model, materials, _judge(job, score_with), exam, place, settings=settings)


def _judge(job: Job, score_with: str | None) -> Any:
    from workbench.personas.judges import make_judge

    from ..personas.panel import OUTCOME_JUDGE

    name = score_with or OUTCOME_JUDGE
    return make_judge(name, trait=job.trait) if name.startswith("offline") else make_judge(name)


def _made(job: Job, room: Any, names: tuple[str, ...], seeds: int, steps: tuple[int, ...] | None) -> dict[str, Any]:
    from workbench.base.store import write_json
    from workbench.reports.steering.prevent import prevention_figure
    from workbench.steering.prevent.choosing import STEPS
    from workbench.steering.prevent.study import study

    first = job.config.seed
    table = study(room, names, range(first, first + seeds), steps=steps or STEPS)
    place = job.folder / FOLDER
    figure = prevention_figure(table).save(place / FIGURE)
    value = {**table.to_json(), "model": job.config.model, "figure": str(figure), "folder": str(place)}
    write_json(place / RESULT, value)
    return value


def _plan(job: Job, names: tuple[str, ...], seeds: int, steps: tuple[int, ...] | None) -> dict[str, Any]:
    """The most cells that there can be, by counts alone: nothing is loaded."""
    from workbench.steering.prevent.arms import SUBTRACTION, arm_kind
    from workbench.steering.prevent.choosing import STEPS

    from ..plan import BASE_GIB, BATCH_GIB, size_scale
    from ..short_plans import IMPORT_SECONDS, short_plan, step

    scale, tried = size_scale(job.config.model), steps or STEPS
    grids = {name: len(arm_kind(name).grid) for name in names}
    doses = grids.get(SUBTRACTION, 0)
    grids = {name: n for name, n in grids.items() if n > 1}
    n_chosen = 1 + len(tried) + sum(grids.values())
    n_sealed = seeds * (len(names) + 1 + max(0, doses - 1))
    updates = {"choosing": sum(tried) + max(tried) * (sum(grids.values()) - doses),
               "table": seeds * max(tried) * (len(names) - bool(doses))}  # fmt: skip

    def seconds(n_updates: int, n_cells: int) -> float | None:
        return None if scale is None else scale * (STEP_SECONDS * n_updates + CELL_SECONDS * n_cells)

    lines = [
        step("start, load the model", 2 * IMPORT_SECONDS),
        step(f"choosing steps and strengths: at most {n_chosen} cells", seconds(updates["choosing"], n_chosen)),
        step(f"the table: {n_sealed} cells of {len(names)} arms and {seeds} seeds", seconds(updates["table"], n_sealed)),
    ]
    memory = BASE_GIB + BATCH_GIB + TRAINING_GIB * (scale or 1.0)
    what = f"prevention of {job.trait.name}, {n_chosen + n_sealed} cells"
    return short_plan(what, lines, job.folder / FOLDER, memory_gib=memory, disk_mib=ADAPTER_MIB * (scale or 1.0) * (seeds + 3))


def _show(value: dict[str, Any]) -> None:
    from ..console import interval, say, signed, table
    from ..short_plans import show_short_plan

    if "steps" in value:
        return show_short_plan(value)
    rows = []
    for name, row in value["arms"].items():
        against = value["contrasts"].get(name)
        rows.append((
            name, "" if row["strength"] is None else f"{row['strength']:g}", f"{row['trait']:.1f}", interval(row["interval"], 1),
            signed(row["capability"]), interval(row["capability_interval"]), f"{row['task_loss']:.2f}",
            "" if against is None else f"{signed(against['kept'])} {interval(against['interval'])}",
            "" if against is None else against["verdict"],
        ))  # fmt: skip
    columns = ("arm", "strength", "trait", "95% interval", "nats lost", "95% interval", "task loss", "kept beside subtraction",
               "")  # fmt: skip
    table(f"{value['trait']} after the fine-tune, points of 100", columns, rows, right=(1, 2, 4, 6))
    say(value["sentence"])
    say(f"scored by {value['judge']}, {value['n_seeds']} seeds; figure: {value['figure']}")

"""`workbench sweep`: what does steering a trait cost, and which method costs least?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.base.errors import WorkbenchError

from ..options import JobFlags, TraitArgument, job_command

if TYPE_CHECKING:
    from ..stages import Job

FOLDER = "sweep"
WANTED = {"down": (-1, "trait"), "up": (1, "neutral")}
N_SAMPLES = 4


@job_command
def command(
    trait: TraitArgument,
    flags: JobFlags,
    direction: Annotated[
        str, typer.Option("--direction", help="down: take the trait away from its own prompts. up: bring it about without any.")
    ] = "down",
    method: Annotated[
        list[str] | None, typer.Option("--method", help="A method of the figure; again for more. [default: all]")
    ] = None,
    kl: Annotated[
        list[float] | None,
        typer.Option("--kl", help="How far doses move neutral text, nats per token; again for more. [default: .05, .15, .4]"),
    ] = None,
    documents: Annotated[int, typer.Option("--documents", min=2, help="Held-out documents of each source.")] = 24,
    items: Annotated[int, typer.Option("--items", min=1, help="Items of each question set that counts.")] = 24,
    score_with: Annotated[
        str | None, typer.Option("--score-with", help="A judge of outcomes that filtered nothing. [default: offline-outcome]")
    ] = None,
) -> None:
    """What does steering cost, and which way costs least?

    From a finished decomposition. Every method at the same distances on neutral text: the trait in sampled answers to sealed
    questions, their coherence, held-out perplexity and right answers; prompting, other directions and random ones beside.

    Every cell is kept and taken up again. Edits act where answers are predicted; for perplexity and right answers on all tokens.
    """
    from ..console import emit, reserved_output
    from ..studies.audit import finished_job

    if direction not in WANTED:
        raise WorkbenchError(f"the direction {direction!r}", "down or up", "choose one of them")
    config = flags.job(trait)
    with reserved_output(flags.as_json, flags.quiet):
        job = finished_job(config, flags.out)
        n_samples = flags.samples or N_SAMPLES
        if flags.plan:
            value = _plan(job, direction, method, kl, documents, n_samples)
        else:
            value = _made(job, direction, method, tuple(kl or ()), documents, items, n_samples, score_with)
    emit(value, as_json=flags.as_json, show=lambda: _show(value))


def _made(
    job: Job, direction: str, methods: list[str] | None, kls: tuple[float, ...], documents: int, items: int, n_samples: int,
    score_with: str | None,
) -> dict[str, Any]:  # fmt: skip
    from workbench.base.store import write_json
    from workbench.models.sampling import Sampling
    from workbench.reports.steering.pareto import pareto_figure
    from workbench.steering.cost.capability import make_exam
    from workbench.steering.cost.methods import KLS, check_methods, treatments
    from workbench.steering.cost.pareto import front, front_summary
    from workbench.steering.cost.replies import Asking
    from workbench.steering.cost.sweep import Bench, sweep

    place, (wanted, start), config = job.folder / FOLDER, WANTED[direction], job.config
    judge, sources = _judge(job, score_with), _sources(job)
    check_methods(sources, wanted, methods)  # before the exam, which takes minutes
    exam = make_exam(job.model, n_documents=documents, n_items=items, folder=place)
    bench = Bench(job.model, job.trait, judge, exam, place, filtered_by=job.vector.evidence.get("judge"))
    chosen = treatments(sources, job.model, bench.neutral, wanted=wanted, kls=kls or KLS, methods=methods)
    sampling = Sampling(max_new_tokens=config.max_new_tokens)
    asking = Asking(start=start, n_samples=n_samples, sampling=sampling, batch_size=config.batch_size, seed=config.seed)
    found = front(sweep(bench, chosen, asking), wanted=wanted, seed=config.seed)
    figure = pareto_figure([found]).save(place / f"{direction}.svg")
    value = {**front_summary(found), "judge": judge.name, "sets": list(exam.considered), "n_documents": len(exam.documents),
             "n_samples": n_samples, "model": config.model, "figure": str(figure), "folder": str(place)}  # fmt: skip
    write_json(place / f"{direction}.json", value)
    return value


def _judge(job: Job, score_with: str | None) -> Any:
    from workbench.personas.judges import make_judge

    from ..personas.panel import OUTCOME_JUDGE

    name = score_with or OUTCOME_JUDGE
    return make_judge(name, trait=job.trait) if name.startswith("offline") else make_judge(name)


def _sources(job: Job) -> Any:
    from workbench.base.store import read_json
    from workbench.personas.placebos import PlaceboVectors
    from workbench.steering.cost.methods import sources_of

    from ..inputs import placebos_hash

    audit = {name: job.folder / "audit" / f"{file}.json" for name, file in (("audit", "behaviour"), ("screen", "screen"))}
    known: dict[str, Any] = {name: read_json(path) for name, path in audit.items() if path.is_file()}
    held = placebos_hash(job.placebo_runs) is not None
    placebos = PlaceboVectors.load(job.placebo_runs) if held else None
    return sources_of(job.folder, job.parts, job.sae, job.model, placebos=placebos, seed=job.config.seed, **known)


def _plan(
    job: Job, direction: str, methods: list[str] | None, kls: list[float] | None, documents: int, n_samples: int
) -> dict[str, Any]:
    """The most cells that there can be, by counts alone: nothing is loaded."""
    from ..plan import BASE_GIB, BATCH_GIB, counted_reading, counted_sampling, size_scale
    from ..short_plans import IMPORT_SECONDS, short_plan, step

    n_doses, n_dosed, n_single = len(kls or (1, 1, 1)), 9, 6 if direction == "down" else 1
    n_cells = 1 + (n_doses * len(methods) if methods else n_doses * n_dosed + n_single)
    n_questions = len(job.trait.questions_of("sealed"))
    scale, config = size_scale(job.config.model), job.config
    asked = counted_sampling([n_questions * n_samples] * n_cells, config.batch_size, config.max_new_tokens, scale)
    exam = counted_reading(3 * 2 * documents * n_cells, 64, scale)  # items weigh about twice the documents
    steps = [
        step("start, load the model", 2 * IMPORT_SECONDS),
        step("which question sets count", counted_reading(1000, 0, scale)["seconds"]),
        step(f"answers under {n_cells} treatments", asked["seconds"]),
        step(f"perplexity and right answers under {n_cells} treatments", exam["seconds"]),
    ]
    what = f"steering {job.trait.name} {direction}, {n_cells} treatments"
    return short_plan(what, steps, job.folder / FOLDER, memory_gib=BASE_GIB + BATCH_GIB, disk_mib=n_cells // 10 + 1)


def _show(value: dict[str, Any]) -> None:
    from ..console import interval, percent, say, signed, table
    from ..short_plans import show_short_plan

    if "steps" in value:
        return show_short_plan(value)
    rows = [(p["method"], "" if p["level"] is None else signed(p["level"]), signed(p["change"], 1),
             interval(p["change_interval"], 1), signed(p["loss"]), interval(p["loss_interval"]), f"{p['kl']:.3f}",
             f"{p['coherence']:.0f}", percent(p["on_front"])) for p in value["points"]]  # fmt: skip
    columns = ("method", "level", "change", "95% interval", "nats lost", "95% interval", "KL", "coherence", "on the front")
    table(f"{value['trait']} from the {value['start']} start ({value['base_points']:.1f} points of 100)", columns, rows,
          right=(1, 2, 4, 6, 7, 8))  # fmt: skip
    for at in value["at_equal_change"]:
        reached = [one for one in at["methods"] if one["value"] is not None]
        told = ", ".join(f"{one['method']} {one['value']:.3f} {interval(one['interval'])}" for one in reached[:4])
        say(f"{at['change']:g} points cost, in nats per token: {told or 'no method reaches them'}")
    sets = [one["name"] for one in value["sets"] if one["counts"]]
    say(f"question sets that the unedited model answers 10 points above chance: {', '.join(sets) or 'none'}")
    say(f"scored by {value['judge']}; figure: {value['figure']}")

"""All traits in one go: every vector, the placebo contrasts, and the evidence side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.runs import default_run_folder

from ..console import either_way, interval, judge_shown, note, reserved_output, say, table
from ..inputs import folder_hash, placebos_hash
from ..judge_choice import JudgeChoice, has_head
from ..remembered import KEY, remembered

if TYPE_CHECKING:
    from ..options import JobFlags
    from ..stages import JobConfig

RESULT, GEOMETRY = "personas.json", "geometry.safetensors"
STUDIES = ["rows", "all_rows"]
"""What `panel` keeps of each trait; a result made of others is made again."""
OUTCOME_JUDGE = "offline-outcome"


def run_all(flags: JobFlags, traits: Sequence[str], *, engine: str = "local", address: str | None = None) -> dict[str, Any]:
    """The value of `workbench extract --all`: {hook, traits: {name: row}, geometry, folder}, or the plans of its parts.

    With --out the run folders stand in that folder; else each is runs/<trait>-<model> as always. With the engine "ray" every
    vector is a task of a cluster whose machines share these folders; the files are those of a run here.
    """
    configs = [flags.job(trait) for trait in traits]
    with reserved_output(flags.as_json, flags.quiet):
        if flags.plan:
            return plan_all(configs, flags)
        folders = _on_ray(configs, flags.out, address) if engine == "ray" else {
            config.trait: _vector(config, flags.out) for config in configs
        }  # fmt: skip
        return _panel(configs[0], folders, flags.out)


def folder_of(name: str, config: JobConfig, out: Path | None) -> Path:
    """The run folder of a trait, or of the placebos, in this job."""
    short = Path(name).name
    return default_run_folder(short, config.model) if out is None else out / short


def _vector(config: JobConfig, out: Path | None) -> Path:
    from ..stages import main_job

    folder = folder_of(config.trait, config, out)
    note(f"== {config.trait}")
    main_job(config, folder, upto="vector")
    return folder


def _on_ray(configs: Sequence[JobConfig], out: Path | None, address: str | None) -> dict[str, Path]:
    """{trait: run folder}, each made by a task, with a GPU of its own where the job's device is one."""
    from workbench.base.runs import RunFolder
    from workbench.cluster import exchanged, on_ray, store_address

    device = configs[0].device or ""
    on_gpu = device == "auto" or device.startswith("cuda")
    placed = [replace(config, device="cuda") if on_gpu else config for config in configs]
    jobs = [(config, folder_of(config.trait, config, out)) for config in placed]
    cluster = partial(on_ray, address=address, gpus_per_task=int(on_gpu))
    with ExitStack() as held:
        if store_address() is not None:  # the tasks lock folders of their own
            jobs = [(config, folder.resolve()) for config, folder in jobs]
            for _, folder in jobs:
                held.enter_context(RunFolder.open(folder))
        run = exchanged(cluster, jobs[0][1].parent, reads=lambda job: [job[1]], writes=lambda job: [job[1]])
        for (config, folder), _ in zip(jobs, run(_task, jobs), strict=True):
            note(f"== {config.trait}: {folder}")
    return {config.trait: folder for config, folder in jobs}


def _task(job: tuple[JobConfig, Path]) -> None:
    """One trait's vector, in a worker that works where the command was given: all paths mean what they meant there."""
    from ..stages import main_job

    config, folder = job
    main_job(config, folder, upto="vector")


def _panel(config: JobConfig, folders: dict[str, Path], out: Path | None) -> dict[str, Any]:
    from workbench.personas.traits import load_trait

    from ..stages import Job

    job = Job(config, next(iter(folders.values())), sae_needed=False)
    placebos = placebos_of(job, folder_of("placebos", config, out))
    target = folder_of("personas", config, out)
    shared = {
        "placebos": placebos_hash(folder_of("placebos", config, out)), "hook": str(_common_hook(job, folders)),
        "explicit": config.hook is not None, "seed": config.seed, "dtype": config.dtype,
    }  # fmt: skip
    sources = {
        Path(name).name: {**shared, "vector": folder_hash(folder / "vector"), "judge": _outcome_identity(Path(name).name),
                          "pairs": load_trait(name).pairs_hash}
        for name, folder in folders.items()
    }

    def keep(study: str, trait: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        kept = remembered(target / study / f"{trait}.json", sources[trait], make)
        return {name: value for name, value in kept.items() if name != KEY}

    made = remembered(target / RESULT, {**sources, "studies": STUDIES}, lambda: _measured(job, folders, placebos, target, keep))
    return {"model": config.model, **made, "folder": str(target)}


def _measured(job: Any, folders: dict[str, Path], placebos: Any, target: Path, keep: Any) -> dict[str, Any]:
    """The panel's JSON values; what the vectors share, and each without it, is saved as tensors beside them."""
    from workbench.base.tensors import save_tensors
    from workbench.personas.judges import make_judge
    from workbench.personas.panel import own_block, panel
    from workbench.personas.runs import read_run
    from workbench.personas.traits import load_trait

    traits = {trait.name: trait for trait in map(load_trait, folders)}
    runs = [read_run(folder, job.model, _common_hook(job, folders)) for folder in folders.values()]
    judges = {name: make_judge(OUTCOME_JUDGE) if has_head(OUTCOME_JUDGE, name) else None for name in traits}
    note("panel ...")
    own = None if job.config.hook else {run.trait: own_block(run) for run in runs}  # an explicit choice is everybody's
    found = panel(runs, traits, job.model, placebos=placebos, judges=judges, own=own, keep=keep, seed=job.config.seed)
    if found.geometry is not None:
        save_tensors(target / GEOMETRY, found.geometry.tensors())
    return found.to_json()


def _outcome_identity(trait: str) -> Any:
    return JudgeChoice(OUTCOME_JUDGE).identity(trait) if has_head(OUTCOME_JUDGE, trait) else None


def _common_hook(job: Any, folders: dict[str, Path]) -> str:
    """One hook point for all: the job's own, else the one that the first trait chose."""
    from workbench.personas.vectors import PersonaVector

    return str(job.hook or PersonaVector.load(next(iter(folders.values())) / "vector").hook)


def placebos_of(job: Any, folder: Path) -> Any:
    """The placebo vectors of the job's model and design: read from `folder` if they are there, else sampled (resumable)."""
    from workbench.base.errors import WorkbenchError
    from workbench.base.store import content_hash
    from workbench.personas.placebos import PlaceboVectors, list_placebos, placebo_questions, placebo_vectors

    design = _placebo_design(job.config)
    server = job.config.server
    texts = [str(text) for text in (*list_placebos(), *placebo_questions())]
    parts = [job.model_identity, str(design), job.config.dtype, job.config.seed, texts]
    key = content_hash(parts + ([server.description()] if server else []))
    marker = folder / "key"
    if marker.is_file() and marker.read_text(encoding="utf-8") == key:
        try:
            return PlaceboVectors.load(folder)
        except WorkbenchError:
            pass  # half a folder: the rollouts that are there are used again
    note("placebo contrasts ...")
    made = placebo_vectors(job.model, folder, design=design, seed=job.config.seed, server=server)
    made.save(folder)
    marker.write_text(key, encoding="utf-8")
    return made


def _placebo_design(config: JobConfig) -> Any:
    # One answer per cell, whatever the traits have: 24 contrasts are many, and their noise is part of what they are for.
    return replace(config.design, n_samples=1)


def plan_all(configs: Sequence[JobConfig], flags: JobFlags) -> dict[str, Any]:
    """The plans of all vectors, with their total."""
    from ..plan import Prober, plan_job

    prober = Prober()
    plans = {c.trait: plan_job(c, folder_of(c.trait, c, flags.out), upto="vector", prober=prober) for c in configs}
    placebos = _plan_placebos(configs[0], folder_of("placebos", configs[0], flags.out), prober)
    seconds = [plan["seconds"] for plan in plans.values()] + [placebos["seconds"]]
    return {"plan": plans, "placebos": placebos, "seconds": None if None in seconds else round(sum(seconds), 1),
            "note": "vectors and placebo contrasts; the panel reads the rows again, about a minute a trait on the default "
            "model"}  # fmt: skip


def _plan_placebos(config: JobConfig, folder: Path, prober: Any) -> dict[str, Any]:
    """{n_rows, n_tokens, n_passes, seconds} of the placebo contrasts; None for seconds that nobody can know."""
    nothing = {"n_rows": 0, "n_tokens": 0, "n_passes": 0, "seconds": 0.0}
    if (folder / "key").is_file():
        return nothing
    probe = prober.probe(config)
    if probe is None:
        from ..studies.plans import counted_placebos

        return counted_placebos(config)
    from workbench.personas.planning import plan_placebos

    plan = plan_placebos(probe, design=_placebo_design(config), budget=config.memory_budget)
    return {"n_rows": plan.n_rows, "n_tokens": plan.n_tokens, "n_passes": plan.n_passes, "seconds": round(plan.seconds, 1)}


def show_all(value: dict[str, Any]) -> None:
    """The table of the panel, or of its plan."""
    if "plan" in value:
        from ..plan import show_plan, time_text

        for plan in value["plan"].values():
            show_plan(plan)
        placebos = value["placebos"]
        say(f"placebo contrasts: {placebos['n_rows']:,} rollouts, {placebos['n_passes']:,} passes over {placebos['n_tokens']:,} "
            f"tokens, {time_text(placebos['seconds'])}")  # fmt: skip
        say(f"in all: {time_text(value['seconds'])} ({value['note']})")
        return
    columns = ("trait", "block", "AUC", "interval", "rank p", "random 95%", "placebo 95%", "text", "d", "passes", "judge")
    rows = [_row(*item) for item in value["traits"].items()]
    table(f"{value['model']}, each trait at its own block", columns, rows, right=tuple(range(1, 9)))
    columns = ("trait", "odd 0.5", "random", "odd 1.0", "random", "r across", "interval", "placebo", "r within", "interval",
               "placebo", "outcome judge")  # fmt: skip
    rows = [_effects_row(*item) for item in value["traits"].items()]
    table("pushed on the sealed pairs, and the projection of the prompt with the later score", columns, rows,
          right=tuple(range(1, 11)))  # fmt: skip
    say("random: middle 95% of random directions; placebo: 95th percentile of contrasts that are no traits")
    common = {trait: row["common"] for trait, row in value["traits"].items() if row["common"]}
    if common:
        say(f"at {value['hook']}: " + ", ".join(f"{trait} {row['auc_stripped']:.2f}" for trait, row in common.items()))
    bare = {trait: row["unfiltered"] for trait, row in value["traits"].items() if row["unfiltered"]}
    if bare:
        say("without the judge's filter: " + ", ".join(
            f"{trait} {one['auc']:.2f}{'' if one['passes'] else ' (does not pass)'}" for trait, one in bare.items()
        ))  # fmt: skip
    say(f"{value['folder']}/{RESULT}")


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _effects_row(trait: str, row: dict[str, Any]) -> tuple[Any, ...]:
    """Odd effects and monitoring, each beside what is no trait."""
    pushed = [(row.get("causal") or {}).get(dose) or {} for dose in ("0.5", "1.0")]
    odds = [cell for one in pushed for cell in (_number(one.get("odd")), either_way(one.get("random_interval")))]
    watched = [
        cell
        for name in ("monitor_r_across", "monitor_r_within")
        for cell in (_number(row.get(name)), interval(row.get(f"{name}_interval"), 2), _number(row.get(f"{name}_placebo_q95")))
    ]
    return (trait, *odds, *watched, judge_shown(_outcome_judge(trait, row)))


def _outcome_judge(trait: str, row: dict[str, Any]) -> dict[str, Any]:
    from workbench.personas.judges.replies import is_validated
    from workbench.personas.traits import load_trait

    judge = row.get("outcome_judge")
    return {"judge": judge, "judge_validated": is_validated(judge, load_trait(trait)) if judge else None}


def _row(trait: str, row: dict[str, Any]) -> tuple[Any, ...]:
    text = [v for v in (row.get("auc_text_only"), row.get("auc_embedding"), row.get("auc_length_only")) if v is not None]
    return (trait, row["hook"].split(".")[1], _number(row.get("auc_stripped")), interval(row.get("auc_interval"), 2),
            _number(row.get("auc_rank_p"), 4), _number(row.get("auc_random_q95")), _number(row.get("auc_placebo_q95")),
            _number(max(text) if text else None), _number(row.get("effect_size")),
            {True: "yes", False: "no", None: "-"}[row.get("passes")], judge_shown(row))  # fmt: skip

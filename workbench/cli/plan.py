"""What a job would do, for how long and with how much memory: rough arithmetic from measured speeds, told as such.

The speeds were measured with the default model (135 million parameters, float32) on two cores. Time is taken as
proportional to the number of parameters; a GPU or more cores are faster than what is said here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.progress import duration
from workbench.base.runs import MANIFEST

from .console import say, table

if TYPE_CHECKING:
    from .stages import JobConfig

REFERENCE_PARAMETERS = 135e6
SAMPLED_TOKENS_PER_SECOND = 190.0
FORWARD_TOKENS_PER_SECOND = 1000.0
N_EVALUATION_ARMS = 2
NEW_TOKENS, PROMPT_TOKENS, PAIR_TOKENS = 64, 60, 30  # of a pair only the reply is run again
N_CANDIDATES = 10
CAUSAL_PASSES = 2 * 0.5 * 1.5  # +delta and -delta, through the later half of the blocks, and the search for the dose
LABEL_SECONDS, LOAD_SECONDS, REPORT_SECONDS = 15.0, 15.0, 2.0
BASE_GIB, BATCH_GIB = 1.2, 0.6  # the libraries; the activations of a batch


def plan_job(config: JobConfig, folder: Path, *, upto: str) -> dict[str, Any]:
    """The plan of a job: stages with state ("done" or "to run") and estimated seconds, memory and disk.

    Names are checked as the job itself would; nothing is created, fetched or loaded.
    """
    from .stages import STAGES, Job

    job = Job(config, folder, sae_needed=upto != "vector")
    job.check_names()
    parameters = _parameters(config.model)
    seconds = _seconds(job, parameters)
    stages = []
    stale = False
    for stage in STAGES[: STAGES.index(upto) + 1]:
        stale = stale or not _is_done(job, folder, stage)  # what follows a stage that runs will run too
        stages.append({"stage": stage, "state": "to run" if stale else "done", "seconds": seconds[stage] if stale else 0.0})
    known = [s["seconds"] for s in stages]
    return {
        "trait": job.trait.name,
        "model": config.model,
        "sae": job.site.id if job.site else None,
        "folder": str(folder.resolve()),
        "stages": stages,
        "seconds": None if None in known else round(sum(known), 1),
        "memory_gib": None if parameters is None else round(BASE_GIB + BATCH_GIB + 4 * parameters / 2**30, 1),
        "disk_mib": round(_disk_mib(job)),
        "note": "an estimate from speeds measured with the default model on two cores; downloads not counted",
    }


def _is_done(job: Any, folder: Path, stage: str) -> bool:
    """Whether the manifest in `folder` holds the stage's key; reads without locking or creating anything."""
    from workbench.base.runs import RunFolder, read_manifest

    from .stages import is_current

    if not (folder / MANIFEST).exists():
        return False
    return is_current(RunFolder(folder, read_manifest(folder / MANIFEST)), stage, job.key(stage))


def _n_rollouts(trait: Any) -> int:
    """Rollouts of the default design: questions x instructions x arms, extraction and evaluation."""
    extraction = sum(question.split == "extraction" for question in trait.questions)
    evaluation = len(trait.questions) - extraction
    return len(trait.instructions) * (len(trait.arms) * extraction + N_EVALUATION_ARMS * evaluation)


def _seconds(job: Any, parameters: float | None) -> dict[str, float | None]:
    if parameters is None:
        return dict.fromkeys(job.work, None)
    scale = parameters / REFERENCE_PARAMETERS
    rollouts, tokens = _n_rollouts(job.trait), _n_rollouts(job.trait) * NEW_TOKENS
    sampling = tokens / SAMPLED_TOKENS_PER_SECOND
    again = rollouts * (NEW_TOKENS + PROMPT_TOKENS) / FORWARD_TOKENS_PER_SECOND
    sealed = [p for p in (*job.trait.contrast_pairs, *job.trait.control_pairs) if p.split == "sealed"]
    pairs = 2 * len(sealed)
    causal = N_CANDIDATES * CAUSAL_PASSES * pairs * PAIR_TOKENS / FORWARD_TOKENS_PER_SECOND
    return {
        "vector": round(LOAD_SECONDS + scale * (sampling + again), 1),
        "decomposition": round(scale * (tokens / FORWARD_TOKENS_PER_SECOND + causal), 1),
        "labels": round(scale * LABEL_SECONDS, 1),
        "report": REPORT_SECONDS,
    }


def _disk_mib(job: Any) -> float:
    """Token activations of every response at one site (576 numbers of 2 bytes at the default width), and the rest."""
    return 15 + _n_rollouts(job.trait) * NEW_TOKENS * 576 * 2 / 2**20


def _parameters(model: str) -> float | None:
    """The model's number of parameters, from its name in the catalogue or the size of its files; None if unknown."""
    from workbench.models.assets import model_names

    if model in model_names():
        return REFERENCE_PARAMETERS
    path = Path(model).expanduser()
    if path.is_file():
        return path.stat().st_size / 0.6  # a GGUF of 4 to 5 bits per weight
    size = sum(f.stat().st_size for f in path.glob("*.safetensors")) if path.is_dir() else 0
    return size / 2 or None  # most folders hold 2 bytes per weight


def show_plan(plan: dict[str, Any]) -> None:
    """The plan as a table with its totals."""
    rows = [(s["stage"], s["state"], _time(s["seconds"])) for s in plan["stages"]]
    table(f"Plan for {plan['trait']} on {plan['model']}", ("stage", "state", "about"), rows)
    memory = "not known" if plan["memory_gib"] is None else f"about {plan['memory_gib']} GiB"
    say(f"time: {_time(plan['seconds'])}; memory: {memory}; disk: about {plan['disk_mib']} MiB in {plan['folder']}")
    say(f"SAE: {plan['sae'] or 'none'}")
    say(f"This is {plan['note']}. Nothing was run.")


def _time(seconds: float | None) -> str:
    return "not known for this model" if seconds is None else duration(seconds) if seconds else "-"


def show_steps(plan: dict[str, Any]) -> None:
    """The plan of a job that is a list of steps."""
    table(f"Plan: {plan['what']}", ("step", "about"), [(s["step"], _time(s["seconds"])) for s in plan["steps"]])
    say(f"time: {_time(plan['seconds'])}" + (f"; in {plan['folder']}" if plan["folder"] else ""))
    say(f"This is {plan['note']}. Nothing was run.")

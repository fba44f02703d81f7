"""What a job would do, for how long and with how much memory, said before anything starts.

Where the model's configuration is on this machine, the passes through it are timed and weighed on a miniature with its
blocks and random weights (`models.probe`). Elsewhere rollouts, passes and tokens are counted (prompts taken as 60 tokens), and
where the size of the weights is known, time is arithmetic from the speeds of the default model (135 million parameters,
float32) on two cores, taken as proportional to the number of parameters; the plan says which it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.progress import duration
from workbench.base.runs import MANIFEST
from workbench.base.sizes import size_text

from .console import say, table

if TYPE_CHECKING:
    from workbench.models.probe import Probe

    from .stages import Job, JobConfig

REFERENCE_PARAMETERS, REFERENCE_WIDTH = 135e6, 576
PASS_TOKENS = 2048  # of one pass that reads
SAMPLED_TOKENS_PER_SECOND = 190.0
FORWARD_TOKENS_PER_SECOND = 1000.0
N_EVALUATION_ARMS = 2
PROMPT_TOKENS, PAIR_TOKENS = 60, 30  # of a pair only the reply is run again
N_CANDIDATES = 10
CAUSAL_PASSES = 2 * 0.5 * 1.5  # +delta and -delta, through the later half of the blocks, and the search for the dose
LABEL_TOKENS = 40_000  # the small index of a run: texts and chats read, and the sampling of the chats counted as reading
LOAD_SECONDS, REPORT_SECONDS = 15.0, 2.0
STATISTICS_SECONDS = 4e-6  # per rollout, block and dimension: bootstraps, nulls and the choice of a block
BASE_GIB, BATCH_GIB = 1.2, 0.6  # the libraries; the activations of a batch
ESTIMATED = ("an estimate from speeds measured with the default model on two cores, in proportion to the size of the weights; "
             "downloads not counted")  # fmt: skip
COUNTED = (f"a count of the work alone, every prompt taken as {PROMPT_TOKENS} tokens and every answer as long as it may become. "
           "Time and memory need the model's config.json and tokenizer on this machine (no weights): a folder that holds them, "
           "or the hub cache")  # fmt: skip
MEASURED = ("an estimate from passes through a miniature of the model, measured on this machine just now; answers are counted "
            "as long as they may become, downloads and an endpoint's time not at all")  # fmt: skip


@dataclass(frozen=True)
class Costs:
    """What the stages cost: seconds (None: unknown), peak memory in bytes, the rollouts and their passes, the model's width."""

    seconds: dict[str, float | None]
    memory: float | None
    note: str
    rollouts: dict[str, Any]
    d_model: int | None


class Prober:
    """Miniatures of models, each made once: plans of several traits share what was measured."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Probe | None] = {}

    def probe(self, config: JobConfig) -> Probe | None:
        """The miniature of the job's model; None where its configuration is not on this machine."""
        from workbench.models.planning import probe_of

        key = (config.model, config.dtype, config.device, config.max_memory)
        if key not in self._known:
            self._known[key] = probe_of(
                config.model, dtype=config.dtype, device=config.device, budget=config.memory_budget
            )
        return self._known[key]


def plan_job(config: JobConfig, folder: Path, *, upto: str, prober: Prober | None = None) -> dict[str, Any]:
    """The plan of a job: stages with state ("done" or "to run") and estimated seconds, memory, disk, passes, tokens.

    Names are checked as the job itself would; nothing is created, fetched or loaded.
    """
    from .given_run import job_of
    from .stages import STAGES

    job = job_of(config, folder, sae_needed=upto != "vector")
    config = job.config
    job.check_names()
    names = STAGES[: STAGES.index(upto) + 1]
    done = [_is_done(job, folder, stage) for stage in names]
    stale = [not all(done[: i + 1]) for i in range(len(done))]  # what follows a stage that runs will run too
    costs = _costs(job, prober or Prober(), needed=any(stale))
    stages = [
        {"stage": stage, "state": "to run" if runs else "done", "seconds": costs.seconds[stage] if runs else 0.0}
        for stage, runs in zip(names, stale, strict=True)
    ]
    known = [s["seconds"] for s in stages]
    return {
        "trait": job.trait.name,
        "model": config.model,
        "sae": job.site.id if job.site else None,
        "folder": str(folder.resolve()),
        "stages": stages,
        "rollouts": costs.rollouts if stale[0] else None,
        "seconds": None if None in known else round(sum(known), 1),
        "memory_gib": None if costs.memory is None else round(costs.memory / 2**30, 1),
        "max_memory": config.memory_budget,
        "disk_mib": None if costs.d_model is None else round(_disk_mib(job, costs.d_model)),
        "note": costs.note,
    }


def _is_done(job: Any, folder: Path, stage: str) -> bool:
    """Whether the manifest in `folder` holds the stage's key; reads without locking or creating anything."""
    from workbench.base.runs import RunFolder, read_manifest

    from .stages import is_current

    if not (folder / MANIFEST).exists():
        return False
    return is_current(RunFolder(folder, read_manifest(folder / MANIFEST)), stage, job.key(stage))


def _costs(job: Job, prober: Prober, *, needed: bool) -> Costs:
    probe = prober.probe(job.config) if needed and job.trait.questions else None  # without any, nothing is sampled
    return _estimated(job) if probe is None else _measured(job, probe)


def _measured(job: Job, probe: Probe) -> Costs:
    """From passes through the miniature."""
    from workbench.models.planning import resident_bytes
    from workbench.personas.planning import plan_vector

    config = job.config
    plan = plan_vector(job.trait, probe, design=config.design, budget=config.memory_budget, served=bool(config.generate_with),
                       libraries=resident_bytes())  # fmt: skip
    read = plan.steps["read without the system prompt"]
    size = plan.n_rows * probe.shape.n_blocks * probe.shape.d_model
    vector = LOAD_SECONDS + plan.seconds + STATISTICS_SECONDS * size
    seconds = {"vector": round(vector, 1), **_later_stages(job, read.n_tokens / max(read.seconds, 1e-9))}
    steps = {name: {**asdict(step), "memory": asdict(step.memory)} for name, step in plan.steps.items()}
    rollouts = {**_answers(config, plan.n_rows), "n_tokens": plan.n_tokens, "n_passes": plan.n_passes, "steps": steps}
    # The means of every rollout at every block, with and without the system prompt, are held while v is made of them.
    return Costs(seconds, plan.largest.memory.peak + 2 * 4 * size, MEASURED, rollouts, probe.shape.d_model)


def _answers(config: JobConfig, n_rows: int) -> dict[str, int]:
    """{n_rows, n_prompts, max_new_tokens, n_sampled_tokens}: the last, wherever they are sampled."""
    longest = config.max_new_tokens
    return {"n_rows": n_rows, "n_prompts": n_rows // config.n_samples, "max_new_tokens": longest,
            "n_sampled_tokens": n_rows * longest}  # fmt: skip


def _estimated(job: Job) -> Costs:
    """From the size of the model alone; without it, what the work is."""
    config, parameters = job.config, _parameters(job.config.model)
    scale = None if parameters is None else parameters / REFERENCE_PARAMETERS
    rollouts = _counted(job, scale)
    if parameters is None or scale is None:
        return Costs(dict.fromkeys(job.work, None), None, COUNTED + _how_to_fetch(config.model), rollouts, None)
    passes = sum(step["seconds"] for step in rollouts["steps"].values())
    seconds = {"vector": round(LOAD_SECONDS + passes, 1), **_later_stages(job, FORWARD_TOKENS_PER_SECOND / scale)}
    width = 4 if config.dtype == "float32" else 2
    memory = 2**30 * (BASE_GIB + BATCH_GIB) + width * parameters
    return Costs(seconds, memory, ESTIMATED, rollouts, REFERENCE_WIDTH)


def _counted(job: Job, scale: float | None) -> dict[str, Any]:
    """The rollouts of the design with passes and tokens; seconds for a model `scale` times the default one's size."""
    config, groups = job.config, _row_groups(job)
    n_rows = sum(groups)
    n_again = sum(len(job.trait.instructions) * N_EVALUATION_ARMS * config.n_samples for _ in job.trait.questions)
    if config.generate_with:
        first = {"read with the system prompt": counted_reading(n_rows, config.max_new_tokens, scale)}
    else:
        first = {"sample": counted_sampling(groups, config.batch_size, config.max_new_tokens, scale)}
    steps = {**first, "read without the system prompt": counted_reading(n_again, config.max_new_tokens, scale)}
    totals = {name: sum(step[name] for step in steps.values()) for name in ("n_tokens", "n_passes")}
    return {**_answers(config, n_rows), **totals, "steps": steps}


def counted_sampling(groups: Sequence[int], batch_size: int, max_new_tokens: int, scale: float | None) -> dict[str, Any]:
    """{n_passes, n_tokens, seconds} of sampling groups of so many rows, batch by batch; None seconds without `scale`."""
    n_rows, n_batches = sum(groups), sum(-(-n // batch_size) for n in groups)
    seconds = n_rows * (max_new_tokens / SAMPLED_TOKENS_PER_SECOND + PROMPT_TOKENS / FORWARD_TOKENS_PER_SECOND)
    return {"n_passes": n_batches * (1 + max_new_tokens), "n_tokens": n_rows * (PROMPT_TOKENS + max_new_tokens),
            "seconds": None if scale is None else scale * seconds}  # fmt: skip


def counted_reading(n_rows: int, max_new_tokens: int, scale: float | None) -> dict[str, Any]:
    """{n_passes, n_tokens, seconds} of reading so many rows; None seconds without `scale`."""
    n_tokens = n_rows * (PROMPT_TOKENS + max_new_tokens)
    together = max(1, PASS_TOKENS // (PROMPT_TOKENS + max_new_tokens))
    return {"n_passes": -(-n_rows // together), "n_tokens": n_tokens,
            "seconds": None if scale is None else scale * n_tokens / FORWARD_TOKENS_PER_SECOND}  # fmt: skip


def size_scale(model: str) -> float | None:
    """How many times larger than the default model; None where its size is not known."""
    parameters = _parameters(model)
    return None if parameters is None else parameters / REFERENCE_PARAMETERS


def _how_to_fetch(model: str) -> str:
    from .inputs import model_identity

    known = "hub" in model_identity(model)
    return f" (`hf download {model} config.json tokenizer.json tokenizer_config.json`)" if known else ""


def _later_stages(job: Job, tokens_per_second: float) -> dict[str, float | None]:
    """Seconds of the stages behind the vector, from the speed of reading."""
    sealed = [p for p in (*job.trait.contrast_pairs, *job.trait.control_pairs) if p.split == "sealed"]
    causal = N_CANDIDATES * CAUSAL_PASSES * 2 * len(sealed) * PAIR_TOKENS
    encoded = _n_rollouts(job) * job.config.max_new_tokens
    return {
        "decomposition": round((encoded + causal) / tokens_per_second, 1),
        "labels": round(LABEL_TOKENS / tokens_per_second, 1),
        "report": REPORT_SECONDS,
    }


def _n_rollouts(job: Job) -> int:
    """Rollouts of the design: questions x instructions x arms x samples, extraction and evaluation."""
    return sum(_row_groups(job))


def _row_groups(job: Job) -> list[int]:
    """The rows that are batched together: by sample, extraction and evaluation apart."""
    trait = job.trait
    extraction = sum(question.split == "extraction" for question in trait.questions)
    evaluation = len(trait.questions) - extraction
    n = len(trait.instructions)
    return [n * len(trait.arms) * extraction, n * N_EVALUATION_ARMS * evaluation] * job.config.n_samples


def _disk_mib(job: Any, d_model: int) -> float:
    """Token activations of every response at one site, numbers of 2 bytes, and the rest."""
    return 15 + _n_rollouts(job) * job.config.max_new_tokens * d_model * 2 / 2**20


def _parameters(model: str) -> float | None:
    """The model's number of parameters, from its name in the catalogue or the size of its files; None if unknown."""
    from workbench.models.assets import model_names
    from workbench.models.at_hand import name_and_adapter

    model, _ = name_and_adapter(model)
    if model in model_names():
        return REFERENCE_PARAMETERS
    path = Path(model).expanduser()
    if path.is_file():
        return path.stat().st_size / 0.6  # a GGUF of 4 to 5 bits per weight
    size = sum(f.stat().st_size for f in path.glob("*.safetensors")) if path.is_dir() else 0
    return size / 2 or None  # most folders hold 2 bytes per weight


def show_plan(plan: dict[str, Any]) -> None:
    """The plan as a table with its totals."""
    rows = [(s["stage"], s["state"], time_text(s["seconds"])) for s in plan["stages"]]
    table(f"Plan for {plan['trait']} on {plan['model']}", ("stage", "state", "about"), rows)
    if plan["rollouts"]:
        _show_rollouts(plan["rollouts"])
    memory = "not known" if plan["memory_gib"] is None else f"about {plan['memory_gib']} GiB"
    memory += "" if plan["max_memory"] is None else f" (model and batches within {size_text(plan['max_memory'])})"
    disk = "not known" if plan["disk_mib"] is None else f"about {plan['disk_mib']} MiB"
    say(f"time: {time_text(plan['seconds'])}; memory: {memory}; disk: {disk} in {plan['folder']}")
    say(f"SAE: {plan['sae'] or 'none'}")
    say(f"This is {plan['note']}. Nothing was run.")


def _show_rollouts(rollouts: dict[str, Any]) -> None:
    """The passes through the model, step by step."""
    rows = [_work(name, step) for name, step in rollouts["steps"].items()]
    title = (f"{rollouts['n_rows']:,} rollouts of {rollouts['n_prompts']:,} prompts, at most {rollouts['max_new_tokens']:,} new "
             "tokens each")  # fmt: skip
    table(title, ("passes to", "passes", "tokens", "about"), rows, right=(1, 2))
    sampled = rollouts["n_sampled_tokens"]
    say(f"in all {rollouts['n_passes']:,} passes over {rollouts['n_tokens']:,} tokens; at most {sampled:,} tokens are sampled")


def _work(name: str, step: Mapping[str, Any]) -> tuple[str, ...]:
    counts = ("-" if step.get(key) is None else f"{step[key]:,}" for key in ("n_passes", "n_tokens"))
    return name, *counts, time_text(step["seconds"])


def time_text(seconds: float | None) -> str:
    """A time as plans say it."""
    return "not known for this model" if seconds is None else duration(seconds) if seconds else "-"


def show_steps(plan: dict[str, Any]) -> None:
    """The plan of a job that is a list of steps."""
    if any("n_tokens" in step for step in plan["steps"]):
        rows = [_work(step["step"], step) for step in plan["steps"]]
        table(f"Plan: {plan['what']}", ("step", "passes", "tokens", "about"), rows, right=(1, 2))
    else:
        table(f"Plan: {plan['what']}", ("step", "about"), [(s["step"], time_text(s["seconds"])) for s in plan["steps"]])
    memory = "" if plan.get("memory_gib") is None else f"; memory: about {plan['memory_gib']} GiB"
    say(f"time: {time_text(plan['seconds'])}{memory}" + (f"; in {plan['folder']}" if plan["folder"] else ""))
    say(f"This is {plan['note']}. Nothing was run.")

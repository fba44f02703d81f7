"""The plans of commands that are a few steps: what would run, what is there already, time, memory, disk. Nothing is loaded.

Seconds are of processor time, measured with the default model, SAE and judge on two cores, larger models in proportion.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.runs import default_run_folder

from .plan import BASE_GIB, BATCH_GIB, FORWARD_TOKENS_PER_SECOND, counted_sampling, size_scale

if TYPE_CHECKING:
    from .studies.mixtures import Mixing

IMPORT_SECONDS = 5.0
WORLD_SECONDS, TRAINED_SECONDS = 4.0, 25.0  # a planted world with its methods; an SAE trained on it
CHECK_SECONDS, FALSIFY_SECONDS = 20.0, 10.0  # encoding a run's tokens; a run's bootstraps and permutations
EMBEDDED_TEXTS_PER_SECOND = 16.0
HUMAN_SCORED_REPLIES = 818  # of evil, the one trait that people scored replies for
VIEW_SECONDS, ABLATED_SECONDS = 15.0, 1.5  # a feature's contexts, first of all the index in memory; a context without it
NOTE = "an estimate from times measured with the default model on two cores; downloads not counted"


def short_plan(
    what: str, steps: Sequence[dict[str, Any]], folder: Path | None, *, memory_gib: float, disk_mib: float, note: str = NOTE
) -> dict[str, Any]:
    """{what, steps: [{step, state, seconds}], seconds, memory_gib, disk_mib, folder, note}: what `--plan --json` prints."""
    seconds = [step["seconds"] for step in steps]
    total = None if None in seconds else round(sum(seconds), 1)
    return {"what": what, "steps": list(steps), "seconds": total, "memory_gib": round(memory_gib, 1),
            "disk_mib": round(disk_mib, 1), "folder": None if folder is None else str(folder), "note": note}  # fmt: skip


def step(name: str, seconds: float | None, *, done: bool = False) -> dict[str, Any]:
    """A step of a plan; what is done costs nothing."""
    return {"step": name, "state": "done" if done else "to run", "seconds": 0.0 if done else seconds}


def show_short_plan(plan: dict[str, Any]) -> None:
    """The plan as a table with its totals."""
    from .console import say, table
    from .plan import time_text

    table(f"Plan: {plan['what']}", ("step", "state", "about"),
          [(s["step"], s["state"], time_text(s["seconds"])) for s in plan["steps"]])  # fmt: skip
    where = f" in {plan['folder']}" if plan["folder"] else ""
    say(f"time: {time_text(plan['seconds'])}; memory: about {plan['memory_gib']} GiB; disk: about {plan['disk_mib']} MiB{where}")
    say(f"This is {plan['note']}. Nothing was run.")


def lab_plan(names: Sequence[str], sae: str, n_seeds: int, out: Path) -> dict[str, Any]:
    """The plan of `lab`: so many worlds of each difficulty."""
    from workbench.lab.difficulties import difficulties_of

    each = WORLD_SECONDS + (TRAINED_SECONDS if sae == "trained" else 0.0)
    steps = [step(f"{n_seeds} worlds: {one.name}", n_seeds * each) for one in difficulties_of(names)]
    what = f"planted truth, {len(steps)} difficulties, {sae} SAE"
    return short_plan(what, [step("start", IMPORT_SECONDS), *steps], out, memory_gib=1.0, disk_mib=1)


def mixtures_plan(options: Mixing) -> dict[str, Any]:
    """The plan of `lab --mixtures`: the answers of the sub-personas, of which those that are kept are not sampled again."""
    from workbench.lab.sub_personas import SamplingDesign, load_sub_personas

    from .options import DEFAULT_TRAIT, JobFlags
    from .stages import Job
    from .studies.mixtures import ANSWERS, N_SAMPLES

    flags = JobFlags(model=options.model, sae=options.sae, dtype=options.dtype, batch_size=options.batch_size)
    config = flags.job(DEFAULT_TRAIT)
    folder = options.out or default_run_folder("mixtures", config.model)
    job = Job(config, folder)
    _ = job.model_identity, job.sae_site  # names are checked as the work itself does
    material, n_samples = load_sub_personas(), options.samples or N_SAMPLES
    design, scale = SamplingDesign(n_samples=n_samples, batch_size=config.batch_size), size_scale(config.model)
    rows = n_samples * (len(material.personas) + 1) * len(material.questions)
    sampling = counted_sampling([rows], design.batch_size, design.sampling.max_new_tokens, scale)
    kept = len(list((folder / ANSWERS / "rollouts").glob("part-*.parquet")))
    reading = None if scale is None else rows * design.sampling.max_new_tokens / FORWARD_TOKENS_PER_SECOND * scale
    steps = [
        step(f"{rows:,} answers" + (f" ({kept} batches are there)" if kept else ""), sampling["seconds"]),
        step("read them on the SAE, mix, compare", reading),
    ]
    return short_plan(f"known mixtures in {config.model}", steps, folder, memory_gib=BASE_GIB + BATCH_GIB, disk_mib=40)


def falsify_plan(vector: str, sae: str | None, n_controls: int, model: str, out: Path) -> dict[str, Any]:
    """The plan of `falsify`: reading the vector's tokens on the SAE, and the checks; controls read them again."""
    from .inputs import find_sae

    name, folder = _vector(vector, model)
    site = find_sae(sae, name)
    kept = any((folder / "activations").glob("*.safetensors")) if folder else False
    again = "read the answers through the model" if folder and not kept else "read the stored tokens"
    steps = [
        step("start, load", IMPORT_SECONDS),
        step(f"{again} on {site.id}", CHECK_SECONDS * (1 if kept or not folder else 3)),
        *(step(f"the same on control {i + 1}", CHECK_SECONDS) for i in range(n_controls)),
        step("bootstraps, permutations, the page", FALSIFY_SECONDS),
    ]
    return short_plan(f"every check of {vector}", steps, out, memory_gib=BASE_GIB + BATCH_GIB, disk_mib=1)


def _vector(vector: str, model: str) -> tuple[str, Path | None]:
    """(name of the model, run folder) of what `falsify` is given; refuses what is nothing."""
    from .house.run_shelf import read_run
    from .studies.falsify_job import _unknown

    path = Path(vector).expanduser()
    folder = path if path.exists() else default_run_folder(vector, model)
    if not folder.exists():
        raise _unknown(vector, folder)
    if not (folder / "manifest.json").is_file():
        return model, None
    run = read_run(folder)
    return run.model or model, folder


def judge_plan(name: str, traits: Sequence[str]) -> dict[str, Any]:
    """The plan of `judge validate`: how many replies each trait has, and how fast the judge reads them."""
    from workbench.personas.judges.replies import HUMAN_SCORED, labelled_replies, traits_with_replies
    from workbench.personas.traits import load_trait

    written = traits_with_replies()
    steps = [step("start, load", IMPORT_SECONDS)]
    for trait in traits:
        texts = 2 * len(load_trait(trait).traps)
        texts += sum(row.role == "test" for row in labelled_replies(trait)) if trait in written else 0
        texts += HUMAN_SCORED_REPLIES if trait in HUMAN_SCORED else 0
        speed = EMBEDDED_TEXTS_PER_SECOND if name.startswith("offline") else None
        seconds = 0.0 if name == "none" else texts / speed if speed else None
        steps.append(step(f"{trait}: {texts:,} texts", seconds))
    note = NOTE if name.startswith("offline") or name == "none" else "a count: how fast this judge answers is not known"
    return short_plan(f"validation of the judge {name}", steps, None, memory_gib=1.5, disk_mib=0, note=note)


def fetch_plan(names: Sequence[str]) -> dict[str, Any]:
    """The plan of `models fetch`: what is cached, and how much would be downloaded."""
    from workbench.base.settings import cache_dir
    from workbench.models.assets import find_asset, is_cached

    assets = [find_asset(name) for name in names]
    missing = [asset for asset in assets if not is_cached(asset.name)]
    steps = [step(f"{one.name}: {one.size / 2**20:.0f} MiB", None, done=one not in missing) for one in assets]
    size = sum(one.size for one in missing) / 2**20
    note = "what the catalogue says; how long it takes is up to the network"
    return short_plan("downloads", steps, cache_dir() / "assets", memory_gib=0.1, disk_mib=size, note=note)


def views_plan(features: Sequence[int], sae: str | None, model: str, n_ablation: int, index: Path | None) -> dict[str, Any]:
    """The plan of `features show`."""
    from .inputs import find_sae

    site, scale = find_sae(sae, model), size_scale(model)
    taken_out = None if scale is None else scale * ABLATED_SECONDS * n_ablation * len(features)
    source = f"the index {index}" if index else "OpenWebText, as no index is given"
    steps = [
        step("start, load the model and the SAE", 3 * IMPORT_SECONDS),
        step(f"contexts of {len(features)} features from {source}", VIEW_SECONDS),
        step("take each out of its contexts, and controls", taken_out, done=n_ablation == 0),
    ]
    what = f"{len(features)} features of {site.id}"
    return short_plan(what, steps, None, memory_gib=BASE_GIB + BATCH_GIB, disk_mib=0)

"""`workbench audit`: do the features that make up a vector do what the vector does?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.base.errors import WorkbenchError

from ..options import JobFlags, TraitArgument, job_command

if TYPE_CHECKING:
    from ..config import JobConfig
    from ..stages import Job

FOLDER = "audit"


@job_command
def command(
    trait: TraitArgument,
    flags: JobFlags,
    features: Annotated[int, typer.Option("--features", min=1, help="Features that are pushed, the union of all methods'.")] = 50,
    controls: Annotated[int, typer.Option("--controls", min=19, help="Matched features that nobody chose.")] = 39,
    full: Annotated[
        bool, typer.Option("--full", help="Sample answers under every feature as well, read by a judge that filtered nothing.")
    ] = False,
    second: Annotated[
        str | None,
        typer.Option("--second-sae", metavar="SAE", help="Another seed or width at the site: are features verified again?"),
    ] = None,
) -> None:
    """Do the features do what the vector does?

    From a finished decomposition. Pushes the largest features of every method and matched controls, puts each back in the
    persona's own run, and compares the vector with the sum of its first features, with what is left over, and with random
    vectors as close to it.
    """
    from ..console import emit, reserved_output

    config = flags.job(trait)
    with reserved_output(flags.as_json, flags.quiet):
        job = finished_job(config, flags.out)
        value = _plan(job, features, controls) if flags.plan else _made(job, features, controls, full, second)
    emit(value, as_json=flags.as_json, show=lambda: _show(value))


def _made(job: Job, features: int, controls: int, full: bool, second: str | None) -> dict[str, Any]:
    from workbench.base.store import write_json
    from workbench.decomposition.causal.audit import audit, sampled_tokens
    from workbench.decomposition.causal.controls import require_pairs
    from workbench.decomposition.causal.screen import screen
    from workbench.reports.audit import audit_figure
    from workbench.reports.belonging import identity

    from ..remembered import remembered

    place, sources, config = job.folder / FOLDER, _sources(job), job.config
    require_pairs(job.trait)
    prepared = None if second is None else _prepared(job, second)

    def screened() -> dict[str, Any]:
        found = screen(job.parts, job.model, job.sae, job.trait, n_features=features, n_controls=controls, seed=config.seed)
        return {**found, "of": identity(job.parts)}

    def audited() -> dict[str, Any]:
        tokens = sampled_tokens(job.vector, job.sae.hook, job.model)
        return {**audit(job.parts, job.model, job.sae, job.trait, tokens, seed=config.seed), "of": identity(job.parts)}

    found = {
        "screen": remembered(place / "screen.json", sources | {"features": features, "controls": controls}, screened),
        "behaviour": remembered(place / "behaviour.json", sources, audited),
    }
    if full:
        answers = sources | {"features": features, "controls": controls, "sampling": [config.n_samples, config.max_new_tokens]}
        told_of = {"of": identity(job.parts)}
        found["answers"] = remembered(place / "answers.json", answers, lambda: {**_answers(job, found["screen"]), **told_of})
    if prepared is not None:
        found["second_sae"] = {**_second(job, *prepared), "of": identity(job.parts)}
        write_json(place / "second_sae.json", found["second_sae"])
    figure = audit_figure(found["behaviour"], found["screen"]).save(place / "audit.svg")
    told = {"trait": job.trait.name, "sae": job.parts.sae["id"], "model": config.model}
    return {**told, **found, "figure": str(figure), "folder": str(place)}


def _answers(job: Job, screened: dict[str, Any]) -> dict[str, Any]:
    """Answers under the screened features, some controls and the vector itself, and what the outcome judge says of them."""
    from workbench.decomposition.causal.steered import screened_answers
    from workbench.models.sampling import Sampling
    from workbench.personas.judges import make_judge

    from ..personas.panel import OUTCOME_JUDGE

    judge = make_judge(OUTCOME_JUDGE, trait=job.trait)
    return screened_answers(
        job.parts, job.model, job.sae, job.trait, screened, judge, filtered_by=job.vector.evidence.get("judge"),
        n_samples=job.config.n_samples, batch_size=job.config.batch_size, seed=job.config.seed,
        sampling=Sampling(max_new_tokens=job.config.max_new_tokens), folder=job.folder / FOLDER / "answers",
    )  # fmt: skip


def _prepared(job: Job, name: str) -> tuple[Any, Any]:
    """(second SAE, the control distribution), before minutes of work that a refusal would waste."""
    from workbench.decomposition.causal.verdict import known_controls
    from workbench.saes.registry import load_sae

    other, controls = load_sae(name), known_controls(job.model, job.sae, job.trait)
    if controls is None:
        found = f"no control distribution of {job.sae.id} for {job.trait.name}"
        raise WorkbenchError(found, "the one that the causal stage computes", f"run `workbench decompose {job.trait.name}` first")
    return other, controls


def _second(job: Job, other: Any, controls: Any) -> dict[str, Any]:
    """{sae, rows, n_verified, n_confirmed}: the verified features in a second SAE."""
    from workbench.decomposition.causal.confirmation import confirmed

    rows = confirmed(job.parts, job.model, job.sae, other, job.trait, controls)
    counts = {f"n_{name}": sum(row[name] for row in rows) for name in ("verified", "confirmed")}
    return {"sae": other.id, "rows": rows, **counts}


def finished_job(config: JobConfig, out: Path | None) -> Job:
    """The job whose folder holds a vector and its decomposition; WorkbenchError where it does not."""
    from ..stages import Job, run_folder_of

    job = Job(config, run_folder_of(config, out))
    job.check_names()
    if not (job.folder / "decomposition" / "decomposition.json").is_file():
        raise WorkbenchError(
            f"{job.folder} holds no decomposition",
            f"a finished decomposition of {config.trait} in {config.model}",
            f"run first: workbench decompose {config.trait} --model {config.model}",
        )
    if job.parts.sae["weights_hash"] != job.sae.weights_hash:
        raise WorkbenchError(
            f"the decomposition in {job.folder} was made with {job.parts.sae['id']}, not with {job.sae_site.id}",
            "one made with the SAE that is asked for",
            f"name its SAE (--sae {job.parts.sae['id']}), or decompose again",
        )
    return job


def _sources(job: Job) -> dict[str, Any]:
    from ..inputs import folder_hash

    made_from = {"vector": folder_hash(job.folder / "vector"), "decomposition": folder_hash(job.folder / "decomposition")}
    settings = {"seed": job.config.seed, "dtype": job.config.dtype, "says whose": True}
    return {**made_from, **settings, "trait": job.trait.hash, "sae": job.sae_site.sha256}


def _plan(job: Job, features: int, controls: int) -> dict[str, Any]:
    from .plans import audit_plan

    return audit_plan(job.config, job.trait, job.sae.hook.block, features, controls, job.folder)


def _show(value: dict[str, Any]) -> None:
    from ..console import interval, percent, say, signed, table
    from ..plan import show_steps

    if "steps" in value:
        show_steps(value)
        return
    screened, behaviour = value["screen"], value["behaviour"]
    judged = value.get("answers", {}).get("directions", {})
    rows = [
        (row["feature"], ", ".join(row["methods"]), signed(row["odd"]), interval(row["interval"]), signed(row["specific"]),
         f"{row['p']:.3f}", signed(row["predicted"]), f"{row['kl']:.3f}", signed(row["put_back"]),
         *([signed(judged[str(row["feature"])]["odd"])] if judged else []))
        for row in sorted(screened["features"], key=lambda row: -row["odd"])[:20]
    ]  # fmt: skip
    columns = ("feature", "chosen by", "odd", "interval", "specific", "p", "predicted", "KL", "put back")
    shown = (*columns, *(["judge's points"] if judged else []))
    table(f"{value['trait']}: features pushed by {screened['dose_norms']} norms", shown, rows, right=(0, 2, 4, 5, 6, 7, 8, 9))
    agreement, effect, totals = screened["agreement"], screened["persona_effect"], screened["totals"]
    few, chance = percent(agreement["beyond_controls"]), percent(agreement["by_chance"])
    say(f"p <= .05 among controls: {few} of the features (by chance {chance})")
    gone = ", ".join(f"{name} {signed(total['value'])}" for name, total in totals.items())
    say(f"the persona's prompt: {signed(effect['value'])} {interval(effect['interval'])} nats per token; of it goes with what is "
        f"put back: {gone}")  # fmt: skip
    _show_behaviour(behaviour)
    if second := value.get("second_sae"):
        say(f"verified: {second['n_verified']}; verified again in {second['sae']}: {second['n_confirmed']}")
    say(f"figure: {value['figure']}")


def _show_behaviour(found: dict[str, Any]) -> None:
    from ..console import interval, percent, say, signed

    whole, denoised = found["vector"], found["denoised"]
    say(f"the vector at {found['dose_norms']} norms: odd {signed(whole['odd'])} {interval(whole['interval'])}")
    if denoised is None:
        say("no number of features keeps 80% of the vector's effect on the select pairs")
        return
    mixed = denoised["mixtures_kept"]
    say(f"its first {denoised['k']} features keep {percent(denoised['effect_kept'])} of that on the sealed pairs")
    say(f"random vectors with the same cosine ({denoised['cosine']:.2f}) keep {percent(mixed['mean'])}, "
        f"at most {percent(mixed['most'])}; difference {signed(mixed['difference'])} {interval(mixed['interval'])}")  # fmt: skip

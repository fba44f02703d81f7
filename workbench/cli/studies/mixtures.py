"""`workbench lab --mixtures`: sub-personas answer in a real model, and their answers are mixed in known proportions."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..console import interval, say, table

if TYPE_CHECKING:
    from workbench.lab.mixture_study import MixtureResult

N_SAMPLES = 2
RESULT, FIGURE, ANSWERS = "mixtures.json", "mixtures.svg", "answers"


@dataclass(frozen=True)
class Mixing:
    """The options of --mixtures; None = not given."""

    model: str | None = None
    sae: str | None = None
    samples: int | None = None
    batch_size: int | None = None
    dtype: str | None = None
    out: Path | None = None


def run_mixed(options: Mixing) -> tuple[dict[str, Any], MixtureResult]:
    """The value of `workbench lab --mixtures` (what mixtures.json holds), and the result behind it."""
    from workbench.base.runs import RunFolder, default_run_folder
    from workbench.base.store import plain, write_json

    from ..options import DEFAULT_TRAIT, JobFlags
    from ..stages import Job

    flags = JobFlags(model=options.model, sae=options.sae, dtype=options.dtype, batch_size=options.batch_size)
    config = flags.job(DEFAULT_TRAIT)
    folder = options.out or default_run_folder("mixtures", config.model)
    job = Job(config, folder)
    _ = job.model_identity, job.sae_site  # unknown names before anything is made
    with RunFolder.open(folder):
        result = _result(job, folder, options.samples or N_SAMPLES)
        value = {"model": config.model, "sae": job.sae_site.id, "hook": job.sae_site.hook, **plain(result.to_json())}
        value["figure"] = str(result.figure().save(folder / FIGURE))
        write_json(folder / RESULT, value)
    return value, result


def _result(job: Any, folder: Path, n_samples: int) -> MixtureResult:
    """Sampling (what is there already is not sampled again), reading on the SAE, the mixtures and the effect sizes."""
    from workbench.base.provenance import provenance
    from workbench.decomposition.checks import check_trained_on
    from workbench.decomposition.methods import decoder_of
    from workbench.decomposition.placebos import PlaceboCodes
    from workbench.lab.mixture_study import effect_sizes, run_mixtures
    from workbench.lab.sub_personas import SamplingDesign, collect, load_sub_personas, read_answers

    check_trained_on(job.model.description(), job.sae)
    material, seed = load_sub_personas(), job.config.seed
    design = SamplingDesign(n_samples=n_samples, batch_size=job.config.batch_size)
    rollouts = collect(material, job.model, folder / ANSWERS, hook=job.sae.hook, design=design, seed=seed)
    answers, shown = read_answers(rollouts, material, job.sae)
    placebos = PlaceboCodes.beside(job.sae)
    found = run_mixtures(answers, decoder_of(job.sae), placebos=placebos, seed=seed)
    inputs = {"model": job.model.weights_hash, "sae": job.sae.weights_hash, "texts": material.hash, "answers": rollouts.hash}
    made = provenance(seed=seed, inputs=inputs, config={"design": asdict(design)})
    return replace(found, effects=effect_sizes(answers, shown, placebos=placebos, seed=seed), provenance=made)


def show_mixed(result: MixtureResult, value: dict[str, Any]) -> None:
    """What the answers do, what every method reads back, and what the controls get."""
    from workbench.lab.mixture_study import MAX_SHARE_ERROR, MIN_ORDER_RIGHT

    _show_effects(result, value["model"])
    columns = ("method", "share error", "interval", "order right", "interval", "largest", "other splits: error", "aims met")
    others = result.splits["methods"]
    rows = [(one.method, f"{one.share_error:.3f}", interval(one.share_error_interval), f"{one.order_right:.2f}",
             interval(one.order_right_interval, 2), f"{one.largest_error:.3f}", f"{others[one.method]['share_error']:.3f}",
             f"{others[one.method]['aims_met']:.2f}") for one in result.scores]  # fmt: skip
    table(f"{len(result.rows)} mixtures on {value['sae']}", columns, rows, right=tuple(range(1, len(columns))))
    rows = [(name, *(f"{one[method]['share_error']:.3f}" for method in ("shares", "codes", "residual")))
            for name, one in result.chance.items() if "share_error" not in one]  # fmt: skip
    table("share error in the controls", ("control", "shares", "codes", "residual"), rows, right=(1, 2, 3))
    say(f"equal parts for every mixture: {result.chance['equal_parts']['share_error']:.3f}")
    said = ", ".join(f"{method} {'met' if met else 'missed'}" for method, met in result.met.items())
    say(f"aims (share error <= {MAX_SHARE_ERROR}, order right in >= {MIN_ORDER_RIGHT:.0%}): {said}")
    say(f"figure: {value['figure']}")


def _show_effects(result: MixtureResult, model: str) -> None:
    effects, whats = result.effects, result.names
    norms = {who: f"{norm:.2f}" for who, norm in effects["norms"].items()}
    rows = []
    for who, row in effects["rates"].items():
        rows.append((who, effects["n_answers"][who], *(f"{row[what]['rate']:.2f}" for what in whats), norms.get(who, "-")))
    title = f"what the answers do in {model}: rates by words and patterns, no judge"
    table(title, ("who", "answers", *whats, "norm"), rows, right=tuple(range(1, len(whats) + 3)))

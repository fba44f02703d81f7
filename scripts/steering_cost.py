"""What docs/evidence/steering_cost.json holds: what steering does to a trait, what it costs, and which method costs least.

    workbench extract --all --samples 4 --dtype bfloat16 --batch-size 64    # the seven vectors
    python scripts/evidence.py audit                                        # how many features the denoised vector has
    python scripts/evidence.py steering_cost                                # some 50 CPU minutes from nothing
    python scripts/steering_cost.py --trait evil humorous                   # rows of the table, printed
    python scripts/steering_cost.py --sweep reduce                          # the figure's cells: reduce or induce

Every cell is one file under runs/steering_cost and is taken up again: stop at any time and run the same command.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from workbench.base.provenance import made
from workbench.base.store import read_json, sha256_file

ROOT = Path(__file__).resolve().parents[1]
EVIDENCE, IMAGES = ROOT / "docs" / "evidence" / "steering_cost.json", ROOT / "docs" / "images"
RUNS, MODEL, SEED, DTYPE = ROOT / "runs", "smollm2-135m-instruct", 0, "bfloat16"
PLACE = RUNS / "steering_cost"
TRAITS = ("apathetic", "evil", "hallucinating", "humorous", "impolite", "optimistic", "sycophantic")
SWEPT = "evil"
DIRECTIONS = {"reduce": (-1, "trait"), "induce": (1, "neutral")}
JUDGE = "offline-outcome"
ONLY_FINISHED = os.environ.get("STEERING_COST_ONLY_FINISHED") == "1"
"""Write the evidence from the cells that are there, and say which rows are missing."""
N_TRAIT_SAMPLES, N_SWEEP_SAMPLES, TOKENS = 3, 3, 40


def evidence() -> dict[str, Any]:
    """{traits: {name: {up, down, ablate, capability_cost}}, sweep: {reduce, induce}, missing, ...}; draws
    docs/images/steering_cost.svg. With ONLY_FINISHED, `missing` names what was not measured yet."""
    from workbench.reports.steering.pareto import pareto_figure
    from workbench.steering.cost.pareto import front_summary

    started = time.perf_counter()
    traits = _finished(TRAITS, trait_row)
    fronts = _finished(DIRECTIONS, swept)
    pareto_figure(list(fronts.values())).save(IMAGES / "steering_cost.svg")
    sweeps = {direction: front_summary(front) for direction, front in fronts.items()}
    header = made("make evidence TOPIC=steering_cost", SEED, time.perf_counter() - started, {t: _vector_hash(t) for t in TRAITS})
    missing = [name for name in (*TRAITS, *DIRECTIONS) if name not in traits and name not in fronts]
    missing += [f"{direction} by {name}" for direction, found in fronts.items() for name in found.missing]
    return {"_made": header, **settings(), "missing": missing, "traits": traits, "sweep": sweeps}


def _finished(names: Iterable[str], make: Callable[[str], Any]) -> dict[str, Any]:
    """{name: what `make` gives}; without those of which a cell is missing, where only finished cells are read."""
    from workbench.steering.cost.sweep import NotMeasured

    found = {}
    for name in names:
        with contextlib.suppress(NotMeasured):
            found[name] = make(name)
    return found


def evidence_quick() -> bool:
    """Whether evil steered up with other random draws changes within the stated interval."""
    from workbench.steering import directions
    from workbench.steering.cost.replies import Asking
    from workbench.steering.cost.treatments import UNSTEERED, Treatment, adding

    stated = read_json(EVIDENCE)["traits"]["evil"]["up"]
    bench, asking = bench_of("evil"), Asking(n_samples=N_TRAIT_SAMPLES, seed=SEED + 1)
    edits = tuple(adding(directions.whole(vector_of("evil")))(stated["dose"]))
    change = bench.replies(Treatment("add", stated["dose"], edits), asking).mean("points")
    change -= bench.replies(Treatment(UNSTEERED), asking).mean("points")
    low, high = stated["interval"]
    print(f"evil, up: {change:+.1f} points; stated {stated['change']:+.1f} [{low:+.1f}, {high:+.1f}]")
    return low <= change <= high


def settings() -> dict[str, Any]:
    """{judge, scopes, exam, sampling}: how everything here was measured."""
    from workbench.steering.cost import capability, replies

    exam = exam_of()
    return {
        "judge": JUDGE, "scope_replies": replies.SCOPE, "scope_capability": capability.SCOPE, "dtype": DTYPE,
        "exam": {"sets": list(exam.considered), "documents": len(exam.documents), "document_tokens": capability.DOCUMENT_TOKENS,
                 "items": {one.name: len(one.items) for one in exam.sets}},
        "samples": {"traits": N_TRAIT_SAMPLES, "sweep": N_SWEEP_SAMPLES}, "max_new_tokens": TOKENS,
    }  # fmt: skip


def trait_row(trait: str) -> dict[str, Any]:
    """One row of the table: made now, or from kept cells."""
    from workbench.decomposition.causal.audit import sampled_tokens
    from workbench.personas.judges.replies import is_validated
    from workbench.personas.traits import load_trait
    from workbench.steering import directions
    from workbench.steering.cost import table

    vector, bench = vector_of(trait), bench_of(trait)
    tokens = sampled_tokens(vector, vector.hook, bench.model)
    randoms = directions.covariance_matched(tokens, vector.hook, N_TRAIT_SAMPLES, seed=SEED)
    row = table.trait_row(
        bench, directions.whole(vector), randoms, select=_asking("verification", 1), sealed=_asking("sealed", N_TRAIT_SAMPLES),
        seed=SEED,
    )  # fmt: skip
    row["judge_validated"] = is_validated(JUDGE, load_trait(trait))
    return row | _judge_free(bench, directions.whole(vector), row)


def _judge_free(bench: Any, vector: Any, row: dict[str, Any]) -> dict[str, Any]:
    """{judge_free: {up, down, ablate}} of a trait with an outcome that needs no judge; {} for the others."""
    from workbench.steering.cost import outcomes
    from workbench.steering.cost.treatments import Treatment, ablating, adding

    if bench.trait.name not in outcomes.NAMES:
        return {}
    up, down = row["up"]["dose"], row["down"]["trait"]["dose"]
    chosen = {"up": (Treatment("add", up, tuple(adding(vector)(up))), "neutral"),
              "down": (Treatment("add", down, tuple(adding(vector)(down))), "trait"),
              "ablate": (ablating(vector), "trait")}  # fmt: skip
    found = {name: outcomes.judge_free_change(bench, one, start, seed=SEED) for name, (one, start) in chosen.items()}
    return {"judge_free": found}


def swept(direction: str) -> Any:
    """The front of one sweep of SWEPT. Raises NotMeasured where no cell of it is there and only finished cells are read."""
    from dataclasses import replace

    from workbench.steering.cost.methods import treatments
    from workbench.steering.cost.pareto import front
    from workbench.steering.cost.sweep import NotMeasured, sweep

    wanted, start = DIRECTIONS[direction]
    bench = bench_of(SWEPT)
    chosen = treatments(sources_of_swept(), bench.model, bench.neutral, wanted=wanted)
    asking = replace(_asking("sealed", N_SWEEP_SAMPLES), start=start)
    found = sweep(bench, chosen, asking)
    if not found.cells:
        raise NotMeasured(f"no cell of the sweep {direction}", "a finished cell", "run the sweep")
    return front(found, wanted=wanted, seed=SEED)


@functools.cache
def model() -> Any:
    """The model, once."""
    from workbench.models.loading import load_model

    return load_model(MODEL, dtype=DTYPE)


@functools.cache
def exam_of() -> Any:
    """The exam, once."""
    from workbench.steering.cost.capability import make_exam

    return make_exam(model(), folder=PLACE)


@functools.cache
def bench_of(trait: str) -> Any:
    """The bench of a trait, its cells under runs/steering_cost."""
    from workbench.personas.judges import make_judge
    from workbench.personas.traits import load_trait
    from workbench.steering.cost.sweep import Bench

    texts, filtered_by = load_trait(trait), vector_of(trait).evidence.get("judge")
    judge = make_judge(JUDGE, trait=texts)
    return Bench(model(), texts, judge, exam_of(), PLACE / trait, filtered_by=filtered_by, only_kept=ONLY_FINISHED)


def vector_of(trait: str) -> Any:
    """The trait's vector from its run."""
    from workbench.personas.vectors import PersonaVector

    return PersonaVector.load(RUNS / f"{trait}-{MODEL}" / "vector")


def sources_of_swept() -> Any:
    """Vector, decomposition, placebos, and what the audit chose."""
    from workbench.personas.placebos import PlaceboVectors
    from workbench.saes.registry import load_sae
    from workbench.steering.cost.methods import sources_of

    sae, run, audit = load_sae(), RUNS / f"{SWEPT}-{MODEL}", RUNS / "audit" / f"{SWEPT}-{MODEL}"
    parts = _decomposed(sae)
    placebos = PlaceboVectors.load(RUNS / f"placebos-{MODEL}")
    kept = {name: read_json(audit / f"{file}.json") for name, file in (("audit", "behaviour"), ("screen", "screen"))}
    return sources_of(run, parts, sae, model(), placebos=placebos, seed=SEED, **kept)


def _decomposed(sae: Any) -> Any:
    """The vector's parts, without intervals, which nothing here reads; kept beside the cells."""
    from workbench.base.tensors import tensor_hash
    from workbench.decomposition.decompose import decompose
    from workbench.decomposition.result import Decomposition

    vector, place = vector_of(SWEPT), PLACE / SWEPT / "decomposition"
    if (place / "decomposition.json").is_file():
        parts = Decomposition.load(place)
        made_from = (parts.vector["sha256"], parts.sae["weights_hash"])
        if made_from == (tensor_hash(vector.at(sae.hook).float().cpu()), sae.weights_hash):
            return parts
    parts = decompose(vector, sae, causal=False, n_bootstrap=8, seed=SEED)
    parts.save(place)
    return parts


def _asking(split: str, n_samples: int) -> Any:
    from workbench.models.sampling import Sampling
    from workbench.steering.cost.replies import Asking

    return Asking(splits=(split,), n_samples=n_samples, sampling=Sampling(max_new_tokens=TOKENS), seed=SEED)


def _vector_hash(trait: str) -> str:
    return sha256_file(RUNS / f"{trait}-{MODEL}" / "vector" / "persona_vector.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trait", choices=TRAITS, nargs="+", default=[])
    parser.add_argument("--sweep", choices=DIRECTIONS)
    arguments = parser.parse_args()
    from workbench.steering.cost.pareto import front_summary

    for trait in arguments.trait:
        print(json.dumps({trait: trait_row(trait)}, indent=1), flush=True)
    if arguments.sweep:
        print(json.dumps(front_summary(swept(arguments.sweep)), indent=1))


if __name__ == "__main__":
    main()

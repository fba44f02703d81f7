"""What docs/evidence/decomposition.json holds: planted truth, the seven traits with their nulls, speed.

    workbench extract --all --samples 4 --dtype bfloat16 --batch-size 64    # the seven vectors, the placebo contrasts
    python scripts/causal_controls.py --sae runs/saes/controls/4k-soft-frozen --dtype bfloat16 --n-controls 109
    python scripts/evidence.py decomposition
    python scripts/decomposition_evidence.py --traits                       # only the seven traits, put into the file
    python scripts/decomposition_evidence.py --growth                       # only the growth curves, put into the file

The traits are taken apart on the default SAE; their causal verdicts come from `verified_evidence.py`, which keeps them, the
audit's and the mixtures' figures from the evidence files of these two.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from workbench.base.provenance import made
from workbench.base.store import read_json, sha256_file, write_json

ROOT = Path(__file__).resolve().parents[1]
EVIDENCE = ROOT / "docs" / "evidence" / "decomposition.json"
AUDIT, MIXTURES = EVIDENCE.with_name("audit.json"), EVIDENCE.with_name("mixtures.json")
GROWTH = ROOT / "docs" / "images" / "decomposition_growth.svg"
RUNS, MODEL, SEED = ROOT / "runs", "smollm2-135m-instruct", 0
TRAITS = ("apathetic", "evil", "hallucinating", "humorous", "impolite", "optimistic", "sycophantic")
COLUMNS = ("feature", "share", "share_interval", "q_value", "q_crossed", "placebo_score", "placebo_q", "cosine", "in_v_up")


def evidence() -> dict[str, Any]:
    """{planted, flawed, null_false_rate, pursuit_vs_sklearn, pursuit_peak_memory_vs_decoder, pursuit, growth,
    streaming, trait_seconds, traits}."""
    from lab_evidence import flawed, planted
    from verified_evidence import verified

    from workbench.reports.growth import growth_figure

    started = time.perf_counter()
    traits = {trait: taken_apart(trait) for trait in TRAITS}
    causal = {trait: verified(trait) | audit_figures(trait) for trait in TRAITS}
    speed = benchmark("--full")
    streaming = benchmark("--full", "--growth", script="streaming")
    growth_figure(streaming["growth"]).save(GROWTH)
    inputs = {trait: sha256_file(RUNS / f"{trait}-{MODEL}" / "vector" / "persona_vector.json") for trait in TRAITS}
    found = {
        "planted": planted(),
        "flawed": flawed(),
        "null_false_rate": null_rates(traits),
        "pursuit_vs_sklearn": speed["ratio_to_scikit_learn"],
        "pursuit_peak_memory_vs_decoder": speed["peak_memory_ratio"],
        "pursuit": speed,
        "growth": streaming.pop("growth"),
        "streaming": streaming,
        "trait_seconds": statistics.median(row["seconds"] for row in traits.values()),
        "mixtures": mixture_figures(),
        "traits": {trait: row | causal[trait] for trait, row in traits.items()},
    }
    return {"_made": made("make evidence TOPIC=decomposition", SEED, time.perf_counter() - started, inputs), **found}


def evidence_quick() -> bool:
    """Whether evil gives the same shares again, and with other random dictionaries an energy excess in its stated interval."""
    stated, found = read_json(EVIDENCE)["traits"]["evil"], taken_apart("evil", seed=SEED + 1)
    low, high = stated["energy_excess"]["interval"]
    excess = found["energy_excess"]["value"]
    print(f"share of the error {found['share_error']:.5f} (stated {stated['share_error']:.5f}); "
          f"excess {excess:.3f} in [{low:.3f}, {high:.3f}]")  # fmt: skip
    same = all(found[name] == stated[name] for name in ("n_rows", "n_specific"))
    return same and abs(found["share_error"] - stated["share_error"]) < 1e-4 and low <= excess <= high


def taken_apart(trait: str, *, seed: int = SEED) -> dict[str, Any]:
    """One trait on the default SAE."""
    from workbench.decomposition.decompose import decompose
    from workbench.personas.vectors import PersonaVector
    from workbench.saes.registry import load_sae

    started = time.perf_counter()
    vector = PersonaVector.load(RUNS / f"{trait}-{MODEL}" / "vector")
    parts = decompose(vector, load_sae(), causal=False, seed=seed)
    seconds = time.perf_counter() - started
    energy = parts.audit["energy"]
    placebos, same = parts.controls["placebos"], parts.controls["same_against_same"]
    return {
        "n_rows": parts.vector["n_rows"],
        "share_error": parts.share_error,
        "share_error_interval": parts.share_error_interval,
        "share_sum_error": parts.share_sum_error,
        "n_features_half": parts.audit["n_features_half"],
        "n_by_questions": int((parts.q_value <= 0.05).sum()),
        "n_crossed": int((parts.q_crossed <= 0.05).sum()),
        "n_specific": placebos["n_specific"],
        "placebo_counts": placebos["counts"],
        "placebo_rank_p": placebos["rank_p"],
        "same_against_same": {
            "rate": same["rate"], "n_splits": same["n_splits"], "largest_share": max(same["shares"], default=None),
        },
        "energy": {name: value[-1] for name, value in energy.items() if isinstance(value, list) and name != "atoms"},
        "n_atoms": energy["atoms"][-1],
        "energy_excess": energy["excess"],
        "zero_vector_overlap": parts.controls["zero_vector_overlap"],
        "top": [{key: row[key] for key in COLUMNS} for row in parts.table(10)],
        "seconds": round(seconds, 1),
    }


def null_rates(traits: dict[str, Any]) -> dict[str, Any]:
    """A/A over all traits and splits, and placebos treated as the trait (leave one out): what is found where nothing is."""
    same = [row["same_against_same"] for row in traits.values()]
    n_splits = sum(one["n_splits"] for one in same)
    counts = max((row["placebo_counts"] for row in traits.values()), key=len)
    return {
        "same_against_same": {"rate": sum(one["rate"] * one["n_splits"] for one in same) / n_splits, "n_splits": n_splits},
        "leave_one_placebo_out": {"with_any": sum(count > 0 for count in counts), "n": len(counts), "most": max(counts)},
    }  # fmt: skip


def benchmark(*arguments: str, script: str = "pursuit") -> dict[str, Any]:
    """The JSON object that a script of benchmarks/ prints."""
    command = [sys.executable, f"benchmarks/{script}.py", *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def audit_figures(trait: str) -> dict[str, Any]:
    """{effect_kept_by_denoised, coherence_gain} of docs/evidence/audit.json; None where no sum of features keeps enough."""
    kept = read_json(AUDIT)["traits"][trait]["behaviour"]["denoised"] or {}
    return {"effect_kept_by_denoised": kept.get("effect_kept"), "coherence_gain": kept.get("coherence_gain")}


def mixture_figures() -> dict[str, Any]:
    """{share_error, order_right, baseline_share_error} of docs/evidence/mixtures.json."""
    found = read_json(MIXTURES)["mixtures"]
    return {name: found[name] for name in ("share_error", "order_right", "baseline_share_error")}


def traits_again() -> None:
    """Takes the seven traits apart again, with verdicts and audits, and puts them into the evidence file, with what made them."""
    from verified_evidence import verified

    started, stored = time.perf_counter(), read_json(EVIDENCE)
    traits = {trait: taken_apart(trait) | verified(trait) | audit_figures(trait) for trait in TRAITS}
    inputs = {file.stem: sha256_file(file) for file in (AUDIT, MIXTURES)}
    inputs |= {trait: sha256_file(RUNS / f"{trait}-{MODEL}" / "vector" / "persona_vector.json") for trait in TRAITS}
    header = made("python scripts/decomposition_evidence.py --traits", SEED, time.perf_counter() - started, inputs)
    rest = {"null_false_rate": null_rates(traits), "mixtures": mixture_figures()}
    write_json(EVIDENCE, {**stored, **rest, "traits": traits, "traits_made": header})


def growth_again() -> None:
    """Measures the growth curves alone and puts them into the evidence file, with what made them."""
    from workbench.reports.growth import growth_figure

    started, stored = time.perf_counter(), read_json(EVIDENCE)
    curves = benchmark("--growth", script="streaming")["growth"]
    growth_figure(curves).save(GROWTH)
    header = made("python scripts/decomposition_evidence.py --growth", SEED, time.perf_counter() - started, {})
    write_json(EVIDENCE, {**stored, "growth": {"_made": header, **curves}})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_mutually_exclusive_group(required=True)
    parts.add_argument("--traits", action="store_true")
    parts.add_argument("--growth", action="store_true")
    growth_again() if parser.parse_args().growth else traits_again()


if __name__ == "__main__":
    main()

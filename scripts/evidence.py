"""Measure what the docs quote and write docs/evidence/<topic>.json.

    python scripts/evidence.py main_job           # runs the main job in a new folder, times it, runs the benchmarks
    python scripts/evidence.py main_job --quick   # another seed, the vector only: is the AUC inside the stated interval?
    python scripts/evidence.py personas           # all traits, judges, transfer, kills: see personas_evidence.py
    python scripts/evidence.py transfer           # the vectors in the second family: 25 minutes, after personas
    python scripts/evidence.py methods            # extraction methods and blocks side by side
    python scripts/evidence.py judges             # both offline judges, seven minutes: see train_offline_judge.py
    python scripts/evidence.py scale              # planned and measured memory and time up to 7B: see scale_check.py
    python scripts/evidence.py sae_training       # speed of SAE training, kills, importers: see saes_evidence.py
    python scripts/evidence.py saes               # the SAEs of the shelf by their cards, and sae_training: see saes_evidence.py
    python scripts/evidence.py sae_frontier       # every SAE of the shelf's recipe on the same texts: see sae_frontier.py
    python scripts/evidence.py decomposition      # planted truth, seven traits with nulls, pursuit: see decomposition_evidence.py
    python scripts/evidence.py comparison         # groups, traits side by side, other SAEs: see comparison_evidence.py
    python scripts/evidence.py diffing            # does a fine-tune's shift say what it will show? see diffing.py
    python scripts/evidence.py audit              # do the features do what the vector does? see audit_evidence.py
    python scripts/evidence.py monitoring         # how well a persona is seen while it speaks: see monitoring.py
    python scripts/evidence.py falsify            # every check on traits, placebos and nulls: see falsify_evidence.py
    python scripts/evidence.py mixtures           # known mixtures of sub-personas in the model: see mixtures_evidence.py
    python scripts/evidence.py screening          # are planted samples found? see screening.py
    python scripts/evidence.py screening_tuning   # does a filter keep a trait out of a fine-tune? see screening_tuning.py
    python scripts/evidence.py labels             # shipped labels against swapped, generic, one-word ones: see labels_evidence.py
    python scripts/evidence.py reports            # pages in a browser, hostile text, notebooks: see reports_evidence.py
    python scripts/evidence.py steering_cost      # what steering does and costs, by method: see steering_cost.py
    python scripts/evidence.py prevention         # can a vector in training keep a trait out? see prevention.py
    python scripts/evidence.py prevention_pair    # two pairs of models a fine-tune apart: see prevention_pair.py
    python scripts/evidence.py steering           # what using the vectors does, in one file: see steering_evidence.py
    python scripts/evidence.py peer_formats       # vector files against the packages that own them: see peer_formats.py
    python scripts/evidence.py reliability        # kills, hostile files, canary keys, the wheel: see reliability.py

Every file says in `_made` by which command, from which inputs and on which machine it was written.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from personas_evidence import methods, methods_quick, personas, personas_quick, transfer, transfer_quick

from workbench.base.provenance import made
from workbench.base.store import plain, read_json, sha256_file, write_json

ROOT = Path(__file__).resolve().parents[1]
EVIDENCE = ROOT / "docs" / "evidence"
SAE = "smollm2-135m-instruct/blocks.15.hook_resid_post"
SEED = 0
RUN = ROOT / "runs" / "evidence-main_job"  # kept, so that the report can be looked at


def workbench(*arguments: str) -> tuple[str, float]:
    """Standard output and seconds of one `workbench` command in its own process."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "workbench", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout, time.perf_counter() - started


def benchmark(*arguments: str) -> dict[str, Any]:
    """The JSON object that benchmarks/capture.py prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "benchmarks/capture.py", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=environment,
    )
    return json.loads(done.stdout)


def blind_figures(report: dict[str, Any]) -> dict[str, Any]:
    """Shares of features called evil by a reader who saw their contexts only, mixed and unnamed.

    `blind_evil_share` is over the verified features (null when none was verified), `_top` over the thirty of largest share in
    evil's vector with four answers a cell, which is the one that was read, `_other` over quiet features as dense as those,
    `_random` over features drawn at random.
    """
    path = EVIDENCE / "blind_reading.json"
    read = {row["feature"]: row for row in read_json(path)["items"]} if path.exists() else {}
    verified = [row["feature"] for row in report["features"] if row["verified"]]

    def share(features: list[int]) -> float | None:
        seen = [bool(read[f]["evil"]) for f in features if f in read]
        return sum(seen) / len(seen) if seen else None

    return {
        "blind_evil_share": share(verified),
        "blind_evil_share_top": share([f for f, row in read.items() if "evil" in row["traits"]]),
        "blind_evil_share_other": share([f for f, row in read.items() if row["group"] == "other"]),
        "blind_evil_share_random": share([f for f, row in read.items() if row["group"] == "random"]),
    }


def main_job() -> dict[str, Any]:
    """The main job from nothing, then again (resumed), then the speed ratios."""
    started = time.perf_counter()
    workbench("models", "fetch", "--quiet")
    shutil.rmtree(RUN, ignore_errors=True)
    printed, seconds = workbench("demo", "--out", str(RUN), "--json", "--seed", str(SEED))
    _, resumed = workbench("demo", "--out", str(RUN), "--json", "--seed", str(SEED))
    report = json.loads(printed)
    help_times = [workbench("--help")[1] for _ in range(7)]
    speed = benchmark()
    vector, sae, controls = report["vector"], report["sae"], report["controls"]
    names = (
        "auc_stripped",
        "auc_stripped_interval",
        "auc_with_prompt",
        "auc_text_only",
        "auc_rank_p",
        "auc_random_q95",
    )
    fitness = ("variance_explained", "l0", "ce_recovered", "dead_share")
    figures = {name: vector[name] for name in names}
    figures |= {
        name: report[name]
        for name in ("share_sum_error", "share_error", "share_error_interval", "n_verified")
    }
    figures |= {"n_expected_by_chance": controls["expected_by_chance"], **blind_figures(report)}
    figures |= {name: sae[name] for name in fitness}
    figures |= {
        "demo_seconds": seconds,
        "resume_seconds": resumed,
        "help_seconds": statistics.median(help_times),
    }
    figures |= {name: speed[name] for name in ("capture_vs_bare", "capture_vs_naive", "fused_vs_two_passes")}
    figures |= {"benchmark": speed, "report": {**report, "report": None}}
    inputs = {
        "sae": sha256_file(ROOT / "saes" / SAE / "sae_weights.safetensors"),
        "trait": sha256_file(ROOT / "workbench/personas/data/evil/trait.yaml"),
        "pairs": sha256_file(ROOT / "workbench/personas/data/evil/pairs.yaml"),
    }
    if (EVIDENCE / "blind_reading.json").exists():
        inputs["blind_reading"] = sha256_file(EVIDENCE / "blind_reading.json")
    return {
        "_made": made("make evidence TOPIC=main_job", SEED, time.perf_counter() - started, inputs),
        **figures,
    }


def main_job_quick() -> bool:
    """Whether the vector from other random draws separates as the evidence file says; prints both."""
    stated = read_json(EVIDENCE / "main_job.json")
    with tempfile.TemporaryDirectory() as folder:
        printed, _ = workbench("extract", "evil", "--out", f"{folder}/run", "--json", "--seed", str(SEED + 1))
    found = json.loads(printed)["auc_stripped"]
    low, high = stated["auc_stripped_interval"]
    print(
        f"auc_stripped: {found:.3f} with seed {SEED + 1}; stated {stated['auc_stripped']:.3f} [{low:.3f}, {high:.3f}]"
    )
    return low <= found <= high


def script(name: str, function: str = "evidence") -> tuple[Callable[[], dict[str, Any]], Callable[[], bool]]:
    """That function of the script beside this one and its `_quick` twin; the script is imported when they are called."""

    def call(function: str) -> Any:
        return getattr(importlib.import_module(name), function)()

    return partial(call, function), partial(call, f"{function}_quick")


TOPICS: dict[str, tuple[Callable[[], dict[str, Any]], Callable[[], bool]]] = {
    "main_job": (main_job, main_job_quick),
    "personas": (partial(personas, workbench), partial(personas_quick, workbench)),
    "transfer": (partial(transfer, workbench), partial(transfer_quick, workbench)),
    "methods": (partial(methods, workbench), partial(methods_quick, workbench)),
    "judges": script("train_offline_judge"),
    "scale": script("scale_check"),
    "sae_training": script("saes_evidence", "training"),
    "saes": script("saes_evidence"),
    "sae_frontier": script("sae_frontier"),
    "decomposition": script("decomposition_evidence"),
    "comparison": script("comparison_evidence"),
    "audit": script("audit_evidence"),
    "diffing": script("diffing"),
    "monitoring": script("monitoring"),
    "falsify": script("falsify_evidence"),
    "mixtures": script("mixtures_evidence"),
    "screening": script("screening"),
    "screening_tuning": script("screening_tuning"),
    "labels": script("labels_evidence"),
    "reports": script("reports_evidence"),
    "steering_cost": script("steering_cost"),
    "prevention": script("prevention"),
    "prevention_pair": script("prevention_pair"),
    "steering": script("steering_evidence"),
    "axis": script("axis_evidence"),
    "peer_formats": script("peer_formats"),
    "reliability": script("reliability"),
}


def rounded(value: Any) -> Any:
    """The same with fractions to six significant digits: more is noise, and the files are kept."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) and math.isfinite(value) else value


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("topic", choices=TOPICS)
    parser.add_argument(
        "--quick", action="store_true", help="reproduce one figure within its interval; write nothing"
    )
    arguments = parser.parse_args()
    full, quick = TOPICS[arguments.topic]
    if arguments.quick:
        return 0 if quick() else 1
    write_json(EVIDENCE / f"{arguments.topic}.json", rounded(plain(full())))
    print(EVIDENCE / f"{arguments.topic}.json")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

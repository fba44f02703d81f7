"""What docs/evidence/steering.json holds: what using the vectors does and costs, in one file, from the files of its parts.

    python scripts/evidence.py steering_cost      # and monitoring, prevention, screening: each its own measurement
    python scripts/evidence.py steering           # puts them together; seconds

traits            {name: {up, down, ablate, capability_cost}} of steering_cost.json
monitor           {name: AUROC} of monitoring.json, monitor_overhead beside it
prevention        {trait: {arm: {trait, capability, task_loss, interval, ...}}} of prevention.json
screening         {name: AUROC} of screening.json
after_screening   {set - set: {measure: {value, interval}}} after fine-tuning, of screening_tuning.json
identification    what the shift of fine-tunes named, of diffing.json
missing           the parts that were not measured yet, with what each would give
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from workbench.base.provenance import made
from workbench.base.store import read_json, sha256_file

EVIDENCE = Path(__file__).resolve().parents[1] / "docs" / "evidence"
PARTS = ("steering_cost", "monitoring", "prevention", "prevention_pair", "screening", "screening_tuning", "diffing")


def evidence() -> dict[str, Any]:
    """{traits, monitor, monitor_overhead, prevention, screening, after_screening, identification, missing}; None for what is not
    there."""
    started = time.perf_counter()
    files = {name: EVIDENCE / f"{name}.json" for name in PARTS}
    there = {name: read_json(file) for name, file in files.items() if file.is_file()}
    found = {
        "traits": there.get("steering_cost", {}).get("traits"),
        "monitor": there.get("monitoring", {}).get("monitor"),
        "monitor_overhead": there.get("monitoring", {}).get("monitor_overhead"),
        "prevention": there.get("prevention", {}).get("prevention"),
        "screening": _areas(there.get("screening")),
        "after_screening": there.get("screening_tuning", {}).get("after_finetuning", {}).get("contrasts"),
        "identification": _identified(there.get("diffing")),
        "missing": _missing(there),
    }
    inputs = {f"{name}.json": sha256_file(files[name]) for name in there}
    return {"_made": made("make evidence TOPIC=steering", 0, time.perf_counter() - started, inputs), **found}


def evidence_quick() -> bool:
    """Whether the file still says what its parts say."""
    stated, found = read_json(EVIDENCE / "steering.json"), evidence()
    return all(stated[name] == value for name, value in found.items() if name != "_made")


def _areas(screening: dict[str, Any] | None) -> dict[str, float] | None:
    return None if screening is None else {trait: one["auroc"] for trait, one in screening["screening"].items()}


def _identified(diffing: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if diffing is None else diffing["summary"][diffing["options"]["main_place"]]


def _missing(there: dict[str, dict[str, Any]]) -> list[str]:
    """Whole parts, and what a part says is missing of itself."""
    whole = [name for name in PARTS if name not in there]
    return whole + [f"{name}: {one}" for name, found in there.items() for one in found.get("missing", ())]

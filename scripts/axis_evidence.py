"""What docs/evidence/axis.json holds: the characters of the default model, its assistant axis, and what can be done along it.

    workbench extract --all                            # the seven traits and the placebo contrasts, under runs/
    python scripts/evidence.py axis                    # every part that is missing, then the file: some four CPU hours, resumable
    AXIS_ONLY_FINISHED=1 python scripts/evidence.py axis     # what is finished; `missing` names the rest

The parts are scripts of their own, in their order: axis_map, axis_drift, axis_capping, axis_jailbreak, axis_self_description,
axis_place. Each says what it measures and keeps its work under runs/.

n_roles, n_rollouts, pcs_for_70, cos_axis_pc1, cos_axis_pc1_interval, ends_rank_correlation, map     axis_map
drift_speed {domain: [value, low, high]}, ratio_to_coding, drift                                     axis_drift
capping [{percentile, blocks, harm, capability}], capping_sweep                                      axis_capping
jailbreak {arm: [rate, low, high]}, jailbreak_table                                                  axis_jailbreak
self_description, self_description_base, self_description_base_tuned                                 axis_self_description
gardener {nearest, axis_position, drift_risk}, place                                                 axis_place
"""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import Any

from axis_pieces import MEASURED_ON, Missing

from workbench.base.provenance import made
from workbench.base.store import read_json

EVIDENCE = Path(__file__).resolve().parents[1] / "docs" / "evidence" / "axis.json"
PARTS = ("map", "drift", "capping", "jailbreak", "self_description", "place")
TOLERANCE = 0.05


def evidence() -> dict[str, Any]:
    """All parts in one, with `missing`: parts, and pieces of parts, that are not finished."""
    started = time.perf_counter()
    found: dict[str, Any] = {}
    inputs: dict[str, str] = {}
    missing: list[str] = []
    for name in PARTS:
        script = importlib.import_module(f"axis_{name}")
        try:
            part = script.part()
        except Missing:
            missing.append(name)
            continue
        found |= part
        missing += [f"{name}: {piece}" for piece in getattr(script, "PIECES", ()) if piece not in part.get(name, {piece})]
        inputs |= {f"{name}: {what}": digest for what, digest in getattr(script, "inputs", dict)().items()}
    header = made("make evidence TOPIC=axis", 0, time.perf_counter() - started, inputs)
    return {"_made": header, "missing": missing, "measured_on": dict(sorted(MEASURED_ON.items())), **found}


def evidence_quick() -> bool:
    """Whether the axis and the first component of the kept role vectors stand to each other as stated."""
    import axis_map

    stated, found = read_json(EVIDENCE), axis_map.space()
    print(f"|cos(axis, PC1)|: {found['cos_axis_pc1']:.3f}; stated {stated['cos_axis_pc1']:.3f}")
    return abs(found["cos_axis_pc1"] - stated["cos_axis_pc1"]) <= TOLERANCE

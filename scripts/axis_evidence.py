"""What docs/evidence/axis.json holds: the characters of the default model, its assistant axis, and what can be done along it.

    workbench extract --all                            # the seven traits and the placebo contrasts, under runs/
    python scripts/evidence.py axis                    # every part that is missing, then the file: some four CPU hours, resumable
    AXIS_PARTS=map,drift python scripts/evidence.py axis     # these parts alone; `missing` names the others

The parts are scripts of their own, in their order: axis_map, axis_drift, axis_capping, axis_jailbreak, axis_self_description,
axis_place. Each says what it measures and keeps its work under runs/.

n_roles, n_rollouts, pcs_for_70, cos_axis_pc1, cos_axis_pc1_interval, ends_rank_correlation, map     axis_map
drift_speed {domain: [value, low, high]}, ratio_to_coding, drift                                     axis_drift
capping [{percentile, blocks, harm, capability}], capping_sweep                                      axis_capping
jailbreak {arm: [rate, low, high]}, jailbreak_table                                                  axis_jailbreak
self_description, self_description_base                                                              axis_self_description
gardener {nearest, axis_position, drift_risk}, place                                                 axis_place
"""

from __future__ import annotations

import importlib
import os
import time
from pathlib import Path
from typing import Any

from workbench.base.provenance import made
from workbench.base.store import read_json

EVIDENCE = Path(__file__).resolve().parents[1] / "docs" / "evidence" / "axis.json"
PARTS = ("map", "drift", "capping", "jailbreak", "self_description", "place")
TOLERANCE = 0.05


def evidence() -> dict[str, Any]:
    """All parts in one, with `missing`: the names of those that were not asked for."""
    started, wanted = time.perf_counter(), _wanted()
    found: dict[str, Any] = {}
    inputs: dict[str, str] = {}
    for name in wanted:
        script = importlib.import_module(f"axis_{name}")
        found |= script.part()
        inputs |= {f"{name}: {what}": digest for what, digest in getattr(script, "inputs", dict)().items()}
    header = made("make evidence TOPIC=axis", 0, time.perf_counter() - started, inputs)
    return {"_made": header, "missing": [name for name in PARTS if name not in wanted], **found}


def evidence_quick() -> bool:
    """Whether the axis and the first component of the kept role vectors stand to each other as stated."""
    import axis_map

    stated, found = read_json(EVIDENCE), axis_map.space()
    print(f"|cos(axis, PC1)|: {found['cos_axis_pc1']:.3f}; stated {stated['cos_axis_pc1']:.3f}")
    return abs(found["cos_axis_pc1"] - stated["cos_axis_pc1"]) <= TOLERANCE


def _wanted() -> tuple[str, ...]:
    given = os.environ.get("AXIS_PARTS")
    names = tuple(name.strip() for name in given.split(",")) if given else PARTS
    if unknown := set(names) - set(PARTS):
        raise SystemExit(f"AXIS_PARTS names {', '.join(sorted(unknown))}; known are {', '.join(PARTS)}")
    return tuple(name for name in PARTS if name in names)

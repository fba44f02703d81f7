"""Capping files as safety-research/assistant-axis publishes them: {"vectors", "experiments"}, read and written.

    {"vectors": {name: {"layer": L, "vector": [d_model]}}, "experiments": [{"id", "interventions": [{"vector": name, "cap": c}]}]}

Its code clamps *above*: h <- h - w max(<h, w> - c, 0), with stored vectors w that point away from the assistant. The same in the
paper's words, h <- h - u min(<h, u> - tau, 0), has u = -w and tau = -c. Layer L is the output of block L.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.base.errors import WorkbenchError, unknown_name
from workbench.base.untrusted import load_torch, unpacked_bytes
from workbench.models.hookpoints import RESIDUAL_POST, HookPoint
from workbench.personas.formats.files import save_torch

from .caps import Cap, Capping

MAX_BYTES = 2 << 30

def read_cappings(path: str | os.PathLike[str], *, model: Mapping[str, Any] | None = None) -> dict[str, Capping]:
    """{experiment id: Capping} of a published file. `model`: name and weights_hash, which the file does not hold."""
    document = _opened(Path(path))
    vectors, experiments = document.get("vectors"), document.get("experiments")
    if not isinstance(vectors, Mapping) or not isinstance(experiments, Sequence):
        raise _unreadable(path, "a dict without `vectors` and `experiments`")
    try:
        return {str(one["id"]): _capping(one, vectors, dict(model or {}), path) for one in experiments}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unreadable(path, f"an entry that lacks or mistypes {error}") from error


def write_cappings(cappings: Sequence[Capping], path: str | os.PathLike[str]) -> Path:
    """Write axis caps in the published layout, negated back. Raises WorkbenchError for what it cannot hold: features, caps from
    above, other sites than block outputs."""
    vectors: dict[str, Any] = {}
    experiments = []
    for capping in cappings:
        interventions = []
        for cap in capping.caps:
            if cap.row is None or cap.side != "below" or cap.hook.site != RESIDUAL_POST:
                raise WorkbenchError(f"{capping.name} has a cap that the published layout cannot hold",
                                     "caps along directions, from below, at block outputs", "use Capping.save")  # fmt: skip
            name = f"{capping.name}/layer_{cap.hook.block}"
            vectors[name] = {"layer": cap.hook.block, "vector": -capping.directions[cap.row].float()}
            interventions.append({"vector": name, "cap": -cap.limit})
        experiments.append({"id": capping.name, "interventions": interventions})
    save_torch(Path(path), {"vectors": vectors, "experiments": experiments})
    return Path(path)


def _capping(experiment: Mapping[str, Any], vectors: Mapping[str, Any], model: dict[str, Any], path: Any) -> Capping:
    caps, rows = [], []
    for one in experiment["interventions"]:
        if one["vector"] not in vectors:
            raise unknown_name(f"vector in {path}", str(one["vector"]), list(map(str, vectors)))
        stored = vectors[one["vector"]]
        direction = torch.as_tensor(stored["vector"]).float().flatten()
        if not float(direction.norm()) > 0 or not bool(torch.isfinite(direction).all()):
            raise _unreadable(path, f"the vector {one['vector']} without a finite length above 0")
        caps.append(Cap(HookPoint(int(stored["layer"])), -float(one["cap"]), "below", row=len(rows)))
        rows.append(-direction / direction.norm())
    if len({len(row) for row in rows}) != 1:
        found = "of several widths" if rows else "without interventions"
        raise _unreadable(path, f"the experiment {experiment['id']} {found}")
    return Capping(str(experiment["id"]), model, tuple(caps), torch.stack(rows), None, {"file": Path(path).name})


def _opened(path: Path) -> Mapping[str, Any]:
    if unpacked_bytes(path) > MAX_BYTES:
        raise _unreadable(path, f"more than {MAX_BYTES >> 20} MiB")
    found = load_torch(path, remedy="name a file that holds tensors and plain values only")
    if not isinstance(found, Mapping):
        raise _unreadable(path, "a tensor" if isinstance(found, Tensor) else type(found).__name__)
    return found


def _unreadable(path: Any, found: str) -> WorkbenchError:
    return WorkbenchError(f"{path} holds {found}", 'a capping file: {"vectors": {...}, "experiments": [...]}',
                          "name a file of assistant-axis, or a folder that `workbench axis cap` wrote")  # fmt: skip

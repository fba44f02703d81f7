"""assistant-axis: [n_blocks, d_model], row b the output of block b; bare, or a dict with `axis` or with `vector`.

{"axis", ...} may carry "metadata", "default_mean" and "role_mean"; {"vector", "type", "role"} is one role. Source:
pipeline/4_vectors.py and pipeline/5_axis.py of safety-research/assistant-axis.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from workbench.base.errors import WorkbenchError
from workbench.models.hookpoints import RESIDUAL_POST, HookPoint
from workbench.personas.formats.files import (
    Format,
    Opened,
    Parsed,
    as_matrix,
    fill_rows,
    known_blocks,
    left_out,
    nothing_to_write,
    placed_rows,
    save_torch,
)
from workbench.personas.formats.layered import LayeredVectors

_KEYS = {"axis": "axis", "role": "vector", "bare": "bare"}
_MEANS = ("default_mean", "role_mean")
_PLAIN = (str, int, float, bool)


def claims(opened: Opened, n_blocks: int | None) -> bool:
    """A dict with `axis` or `vector`, or a bare matrix with a row per block (or in a file called axis)."""
    value = opened.value
    if isinstance(value, dict):
        return "axis" in value or {"vector", "role"} <= set(value)
    if not isinstance(value, Tensor) or value.ndim != 2:
        return False
    return len(value) == n_blocks if n_blocks is not None else opened.path.stem.endswith("axis")


def read(opened: Opened) -> Parsed:
    """The rows as block outputs, with the role's name and the means that stand beside an axis."""
    value, path = opened.value, opened.path
    facts: dict[Any, Any] = {"bare": value} if isinstance(value, Tensor) else value
    layout = next((name for name in _KEYS if isinstance(facts, dict) and _KEYS[name] in facts), None)
    if layout is None:
        raise _no_axis(value, path)
    table = as_matrix(facts[_KEYS[layout]], path)
    vectors, notes = placed_rows({HookPoint(block): row.clone() for block, row in enumerate(table)}, path)
    metadata = facts["metadata"] if isinstance(facts.get("metadata"), dict) else {}
    known = {"metadata", "type", "role", "n_default", "n_roles", *_KEYS.values(), *_MEANS}
    ignored = sorted(str(key) for key in facts if key not in known)
    return Parsed(
        vectors,
        layout,
        n_blocks=len(table),
        extras={name: as_matrix(facts[name], path, name) for name in _MEANS if name in facts},
        trait=_text(facts.get("role")) or _text(metadata.get("trait")),
        model=_model(metadata),
        hook=HookPoint.parse(metadata["hook"]) if _text(metadata.get("hook")) else None,
        notes=(*notes, *([f"not read: {', '.join(ignored)}"] if ignored else [])),
    )


def _no_axis(value: Any, path: Path) -> WorkbenchError:
    held = (
        f"a dict with {', '.join(sorted(map(str, value))[:6])}"
        if isinstance(value, dict)
        else type(value).__name__
    )
    return WorkbenchError(
        f"{path} holds {held}", "a tensor, or a dict with `axis` or `vector`", "choose another --format"
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _model(metadata: dict[Any, Any]) -> dict[str, Any]:
    names = {"name": "model", "weights_hash": "weights_hash"}
    return {ours: metadata[theirs] for ours, theirs in names.items() if _text(metadata.get(theirs))}


def write(vectors: LayeredVectors, path: Path) -> list[str]:
    """Write the layout that the vectors were read from, else {"axis", "metadata"} with model, weights hash and trait."""
    n_blocks = known_blocks(vectors, "assistant-axis")
    fits = {
        hook: v for hook, v in vectors.vectors.items() if hook.site == RESIDUAL_POST and hook.block < n_blocks
    }
    if not fits:
        raise nothing_to_write(vectors, "assistant-axis")
    table, notes = fill_rows({hook.block: vector for hook, vector in fits.items()}, n_blocks)
    came_as = vectors.source.get("layout") if vectors.source.get("format") == "assistant-axis" else None
    save_torch(path, _contents(vectors, table, came_as))
    return notes + left_out(
        [hook for hook in vectors.hooks if hook not in fits], "the file has block outputs only"
    )


def _contents(vectors: LayeredVectors, table: Tensor, layout: str | None) -> Any:
    if layout == "bare":
        return table
    if layout == "role":
        return {"vector": table, "type": "pos_3", "role": vectors.trait}
    told = {
        "trait": vectors.trait,
        "model": vectors.model.get("name"),
        "weights_hash": vectors.model.get("weights_hash"),
        "hook": None if vectors.hook is None else str(vectors.hook),
    }
    metadata = {key: value for key, value in told.items() if isinstance(value, _PLAIN)}
    means = {name: vectors.extras[name] for name in _MEANS if name in vectors.extras}
    return {"axis": table, "metadata": metadata, **means}


FORMAT = Format("assistant-axis .pt: [n_blocks, d_model], bare or in a dict", ("torch",), claims, read, write)

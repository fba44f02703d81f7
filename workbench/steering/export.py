"""Edits that add, as a GGUF control vector: at strength 1 llama.cpp and repeng add exactly what the workbench would.

    export_gguf(Edit.add(vector, 0.5), model, "evil.gguf")      # llama-cli --control-vector evil.gguf
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.models.hookpoints import HookPoint
from workbench.personas.formats import LayeredVectors, write_vectors
from workbench.steering.composition import Composition, added, compose
from workbench.steering.edits import Edit

if TYPE_CHECKING:
    from workbench.models.model import Model

_PEERS_EDIT_ALL = "llama.cpp and repeng add it to every token, attention sinks too, which the workbench leaves"


@dataclass(frozen=True, repr=False)
class ExportedVector(Shown):
    """A control vector file: what strength 1 adds (the largest accumulated |delta|, in norms), where, and what to know of it."""

    path: Path
    dose_in_norms: float
    hooks: tuple[HookPoint, ...]
    notes: tuple[str, ...]

    def summary(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "file": str(self.path),
            "dose_in_norms": self.dose_in_norms,
            "hooks": [str(hook) for hook in self.hooks],
            "notes": list(self.notes),
        }


def export_gguf(edits: Edit | Iterable[Edit] | Composition, model: Model, path: str | os.PathLike[str]) -> ExportedVector:
    """Write the sum of `edits` per block as a control vector of llama.cpp and repeng: direction.{b} for the output of block b.

    A direction is as long as what is added at the stated dose, so that strength 1 is that dose, 0.5 half of it, -1 against it.
    llama.cpp takes block 1 and above: what `edits` add after block 0 is added after block 1 (as `incremental` does there).
    Raises WorkbenchError for edits that do more than add, for doses per row, and for sites that no control vector reaches.
    """
    composed = edits if isinstance(edits, Composition) else compose(edits)
    _check(composed)
    medians = dict(zip(composed.measured_at, model.norm_medians(composed.measured_at).tolist(), strict=True))
    deltas: dict[HookPoint, Tensor] = {}
    for hook in composed.hooks:
        place, delta = _output(hook), added(composed.at(hook), medians)[0]
        deltas[place] = deltas[place] + delta if place in deltas else delta
    notes = [f"strength 1 adds up to {composed.dose_in_norms(medians):.3g} median token norms, at the block where that is most"]
    notes += ["what was to be added after block 0 is added after block 1, where llama.cpp begins"] if _first(composed) else []
    notes += [f"{_PEERS_EDIT_ALL}{_meant(composed)}"]
    label = " + ".join(dict.fromkeys(edit.label for edit in composed.edits))
    written = Path(path)
    write_vectors(LayeredVectors(deltas, label, dict(model.description())), written, "gguf")
    return ExportedVector(written, composed.dose_in_norms(medians), tuple(sorted(deltas)), tuple(notes))


def _check(composed: Composition) -> None:
    others = sorted({edit.kind for edit in composed.edits if edit.kind != "add"})
    if others or not composed.edits:
        raise WorkbenchError(
            f"edits of kind {', '.join(others)}" if others else "nothing to add",
            "edits that add: a control vector can do nothing else",
            "export Edit.add(...) with a dose other than 0, or steer in the workbench",
        )
    if composed.n_rows is not None:
        raise WorkbenchError("doses per row of a batch", "one dose", "export each dose to a file of its own")
    beyond = [hook for hook in composed.hooks if not hook.site.startswith("hook_resid") or hook == HookPoint(0, "hook_resid_pre")]
    if beyond:
        raise WorkbenchError(f"an edit at {beyond[0]}", "the residual stream after a block", "choose blocks.N.hook_resid_post")


def _output(hook: HookPoint) -> HookPoint:
    """The block output, from block 1 on, that takes what is added at `hook`."""
    return HookPoint(max(1, hook.block if hook.site == "hook_resid_post" else hook.block - 1))


def _first(composed: Composition) -> bool:
    return any(hook in (HookPoint(0), HookPoint(1, "hook_resid_pre")) for hook in composed.hooks)


def _meant(composed: Composition) -> str:
    scopes = sorted({edit.scope for edit in composed.edits} - {"all"})
    return f" (meant for: {', '.join(scopes)})" if scopes else ""

"""Several edits at once, in one stated order, so that it does not matter in which order they were listed.

At each hook and token, on what the model computed there:
1. ablations and clamps together: the smallest change after which every ablated coordinate is 0 and every clamped one is its
   value (ablated directions are removed through their span);
2. features that are set or limited: their activations are read once, before any of them changes;
3. adds, as one sum; what they add along an ablated direction stays;
4. caps and floors together: the nearest point within all limits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.store import content_hash
from workbench.maths.interventions import conflict
from workbench.models.hookpoints import HookPoint
from workbench.steering.edits import Edit

LARGE_DOSE = 1.5
"""Adds of more norms than this are warned about: some 0.7 steers, some 1.9 makes text collapse."""
ORDER = ("ablate", "clamp", "set", "at most", "at least", "add", "cap", "floor")
TOKEN_CLASSES = {
    "early prompt": {"prompt", "all"},
    "last of the prompt": {"prompt", "predicting", "all"},
    "response": {"response", "predicting", "all"},
}
"""The kinds of tokens and the scopes that hold them: on tokens of one kind, the same edits act."""
_WITHIN_BLOCK = {"hook_resid_pre": 0, "hook_attn_out": 1, "hook_mlp_out": 2, "hook_resid_post": 3}


@dataclass(frozen=True, eq=False, repr=False)
class Composition(Shown):
    """Edits in the order in which they act. Make it with `compose`."""

    edits: tuple[Edit, ...]

    @property
    def hooks(self) -> tuple[HookPoint, ...]:
        """Where something is edited, in the order in which a pass comes by."""
        return tuple(sorted({edit.hook for edit in self.edits}, key=_along_the_pass))

    @property
    def measured_at(self) -> tuple[HookPoint, ...]:
        """The hooks whose median norms the edits need."""
        return tuple(dict.fromkeys([*self.hooks, *(edit.measured_at for edit in self.edits if edit.measured_at)]))

    @property
    def n_rows(self) -> int | None:
        """For how many rows there are values; None when all rows share them."""
        return next((edit.n_rows for edit in self.edits if edit.n_rows is not None), None)

    def at(self, hook: HookPoint) -> tuple[Edit, ...]:
        """The edits at `hook`, in their order."""
        return tuple(edit for edit in self.edits if edit.hook == hook)

    def dose_in_norms(self, medians: Mapping[HookPoint, float]) -> float:
        """The largest |sum of what is added so far| / median token norm at any hook, kind of token and row.

        What is added accumulates along the pass: two half doses one block apart are nearly a whole dose, and `incremental`
        counts as c v_l at block l. What is added to attention or MLP output is also told by that output's own norm.
        """
        return max((self._dose(medians, scopes) for scopes in TOKEN_CLASSES.values()), default=0.0)

    def _dose(self, medians: Mapping[HookPoint, float], scopes: set[str]) -> float:
        total: Tensor | None = None
        largest = 0.0
        for hook in self.hooks:
            adds = [edit for edit in self.at(hook) if edit.kind == "add" and edit.scope in scopes]
            if adds:
                here = added(adds, medians)
                total = here if total is None else total + here
                told = total if hook.site.startswith("hook_resid") else here  # medians[hook] is of that part alone
                largest = max(largest, float(told.norm(dim=-1).max()) / medians[hook])
        return largest

    def description(self) -> list[dict[str, Any]]:
        """The edits for provenance (JSON types only)."""
        return [edit.description() for edit in self.edits]


def compose(edits: Edit | Iterable[Edit]) -> Composition:
    """`edits` (in any order) as one Composition, without those that change nothing.

    Raises WorkbenchError for edits with values for different numbers of rows, and for fixed coordinates (ablated and clamped)
    along nearly parallel directions that ask for different values.
    """
    given = [edits] if isinstance(edits, Edit) else list(edits)
    acting = [edit for edit in given if not edit.changes_nothing]
    composed = Composition(tuple(sorted(acting, key=_canonical)))
    _check_rows(acting)
    for hook in composed.hooks:
        for scopes in TOKEN_CLASSES.values():
            _check_fixed(hook, [edit for edit in composed.at(hook) if edit.scope in scopes])
    return composed


def added(adds: Sequence[Edit], medians: Mapping[HookPoint, float]) -> Tensor:
    """What edits of kind "add" add together, per row or once for all: [n_rows or 1, d_model], float32."""
    total = torch.zeros(1, adds[0].direction.shape[0])
    for edit in adds:
        assert edit.measured_at is not None
        doses = torch.tensor(edit.amounts, dtype=torch.float32)
        doses = doses if edit.rows is None else torch.where(torch.tensor(edit.rows), doses, 0.0)
        total = total + doses[:, None] * medians[edit.measured_at] * edit.direction
    return total


def _along_the_pass(hook: HookPoint) -> tuple[int, int]:
    return hook.block, _WITHIN_BLOCK[hook.site]


def _canonical(edit: Edit) -> tuple[Any, ...]:
    return (*_along_the_pass(edit.hook), ORDER.index(edit.kind), content_hash(edit.description()))


def _check_rows(edits: Sequence[Edit]) -> None:
    found = sorted({edit.n_rows for edit in edits if edit.n_rows is not None})
    if len(found) > 1:
        raise WorkbenchError(
            f"edits with values for {' and '.join(map(str, found))} rows", "one number of rows", "give as many values in each"
        )


def _check_fixed(hook: HookPoint, edits: Sequence[Edit]) -> None:
    """Raise WorkbenchError where some row is asked for different values along nearly parallel directions."""
    fixed = [edit for edit in edits if edit.kind in ("ablate", "clamp")]
    n_rows = max((edit.n_rows or 1 for edit in fixed), default=0)
    asked = {tuple(_asked(edit, row) for edit in fixed) for row in range(n_rows)}
    for values in asked if any(edit.kind == "clamp" for edit in fixed) else ():
        acting = [(edit, value) for edit, value in zip(fixed, values, strict=True) if value is not None]
        units = torch.stack([edit.direction for edit, _ in acting]) if acting else torch.zeros(1, 1)
        if acting and conflict(units, torch.tensor([value for _, value in acting])) > 1e-3:
            names = ", ".join(edit.label for edit, _ in acting)
            raise WorkbenchError(
                f"at {hook} the coordinates along {names} are to be fixed at different values, but some are nearly parallel",
                "directions that differ, or values that agree",
                "clamp one of them only",
            )


def _asked(edit: Edit, row: int) -> float | None:
    """The value that an edit asks of a row; None where it does not act."""
    if edit.rows is not None and not edit.rows[row]:
        return None
    return edit.amounts[row if len(edit.amounts) > 1 else 0]

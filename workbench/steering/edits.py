"""One edit of the residual stream as a value: what is added, removed, fixed or limited, where, and at which tokens.

An edit holds no model. Doses are in norms: |delta| / the model's median non-sink token norm at the hook, positive toward
the trait. Projections are on the unit direction, so a vector's length does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.tensors import tensor_hash
from workbench.models.hookpoints import HookPoint
from workbench.models.scopes import Scope, checked_scope
from workbench.personas.vectors import PersonaVector

if TYPE_CHECKING:
    from workbench.saes.interface import SparseAutoencoder

Amount = float | Sequence[float] | Tensor
"""One number, or one per row of the batch."""

__all__ = ["Edit", "Scope", "incremental"]


@dataclass(frozen=True)
class SetFeature:
    """A feature whose own activation an edit sets; its decoder direction is the edit's."""

    sae: SparseAutoencoder = field(repr=False)
    index: int


@dataclass(frozen=True, eq=False, repr=False)
class Edit(Shown):
    """One change of the activations h at `hook`. Make it with `Edit.add`, `ablate`, `clamp`, `cap`, `feature`, `set_feature` or
    `cap_feature`.

    `amount` is a number, or one per row of the batch: the dose of "add" (norms), the coordinate of "clamp", the limit of
    "cap" (residual units), the activation of "set" and the limit of "at most" and "at least" (the SAE's units); 0 for "ablate".
    """

    kind: str
    """add, ablate, clamp, cap (at most `amount`) or floor (at least `amount`); of a feature's own activation: set, at most or
    at least."""
    hook: HookPoint
    direction: Tensor
    """[d_model], float32. "add": what is added per norm of dose; "set": the decoder direction; otherwise a unit vector."""
    amount: float | tuple[float, ...] = 0.0
    scope: Scope = "all"
    label: str = "a direction"
    measured_at: HookPoint | None = None
    """Whose median token norm is one unit of dose ("add"): the hook itself, except in `incremental`."""
    rows: tuple[bool, ...] | None = None
    """Which rows of the batch are edited; None = all."""
    of_feature: SetFeature | None = None

    @classmethod
    def add(
        cls, vector: Any, dose: Amount, *, hook: HookPoint | str | None = None, scope: str = "all", label: str | None = None
    ) -> Edit:
        """h + delta with |delta| = |dose| median token norms, along `vector` (against it below 0).

        `vector`: a PersonaVector or Direction (at its own hook, or at `hook`), or a tensor [d_model] with `hook`. At dose 0 the
        model's output is the same, bit for bit. Source: Chen et al. 2025 (arXiv 2507.21509), section 3.2, with the
        coefficient measured in norms.
        """
        unit, where, name = _resolved(vector, hook, label)
        return cls("add", where, unit, _amount(dose, "dose"), checked_scope(scope), name, where)

    @classmethod
    def ablate(cls, vector: Any, *, hook: HookPoint | str | None = None, scope: str = "all", label: str | None = None) -> Edit:
        """h - <h, u> u: the part along the direction is projected out. Twice is once."""
        unit, where, name = _resolved(vector, hook, label)
        return cls("ablate", where, unit, 0.0, checked_scope(scope), name)

    @classmethod
    def clamp(
        cls, vector: Any, value: Amount, *, hook: HookPoint | str | None = None, scope: str = "all", label: str | None = None
    ) -> Edit:
        """h + (value - <h, u>) u: the coordinate along the unit direction becomes `value`, in residual units."""
        unit, where, name = _resolved(vector, hook, label)
        return cls("clamp", where, unit, _amount(value, "value"), checked_scope(scope), name)

    @classmethod
    def cap(
        cls, vector: Any, limit: Amount, *, side: str = "above", hook: HookPoint | str | None = None, scope: str = "all",
        label: str | None = None,
    ) -> Edit:  # fmt: skip
        """The coordinate along the unit direction is at most `limit` (side "above"), or at least (side "below").

        A token within the limit stays as it is, bit for bit; so does every token at limit inf ("above") or -inf ("below").
        The other infinity is refused, as no coordinate meets it.
        Source: activation capping along the assistant axis (safety-research/assistant-axis).
        """
        if side not in ("above", "below"):
            raise WorkbenchError(f"a cap on side {side!r}", "above (at most) or below (at least)", "choose one of them")
        unit, where, name = _resolved(vector, hook, label)
        kind, none = ("cap", math.inf) if side == "above" else ("floor", -math.inf)
        return cls(kind, where, unit, _amount(limit, "limit", no_limit=none), checked_scope(scope), name)

    @classmethod
    def feature(
        cls, sae: SparseAutoencoder, index: int, dose: Amount, *, scope: str = "all", label: str | None = None
    ) -> Edit:
        """h + c d_j: the decoder direction of feature `index` is added, `dose` in norms at the SAE's hook."""
        direction = _decoder_row(sae, index)
        return cls.add(direction, dose, hook=sae.hook, scope=scope, label=label or f"feature {index}")

    @classmethod
    def set_feature(
        cls, sae: SparseAutoencoder, index: int, value: Amount = 0.0, *, scope: str = "all", label: str | None = None
    ) -> Edit:
        """h + (value - z_j(h)) d_j: the feature's own activation is replaced by `value` at each token; 0 removes the feature.

        z_j(h) is what the SAE's encoder gives at that token, in the SAE's units. Where a feature is silent, setting it to 0
        changes nothing. The SAE's error stays in h. Source: Templeton et al. 2024 (feature clamping).
        """
        direction = _decoder_row(sae, index).float().cpu()
        name, of = label or f"feature {index}", SetFeature(sae, index)
        return cls("set", sae.hook, direction, _amount(value, "value"), checked_scope(scope), name, of_feature=of)

    @classmethod
    def cap_feature(
        cls, sae: SparseAutoencoder, index: int, limit: Amount, *, side: str = "above", scope: str = "all",
        label: str | None = None,
    ) -> Edit:  # fmt: skip
        """h + (clip(z_j(h)) - z_j(h)) d_j: the feature's own activation is at most `limit` (side "above"), or at least ("below").

        A token within the limit stays as it is, bit for bit; so does every token at limit inf ("above"), or at 0 or less
        ("below"), as activations are never negative.
        """
        if side not in ("above", "below"):
            raise WorkbenchError(f"a cap on side {side!r}", "above (at most) or below (at least)", "choose one of them")
        edit = cls.set_feature(sae, index, 0.0, scope=scope, label=label)
        kind, none = ("at most", math.inf) if side == "above" else ("at least", -math.inf)
        return replace(edit, kind=kind, amount=_amount(limit, "limit", no_limit=none))

    @property
    def n_rows(self) -> int | None:
        """For how many rows the edit has values; None when all rows share them."""
        several = [len(given) for given in (self.amount, self.rows) if isinstance(given, tuple)]
        return several[0] if several else None

    @property
    def amounts(self) -> tuple[float, ...]:
        """The amount per row, or the one amount of all."""
        return self.amount if isinstance(self.amount, tuple) else (self.amount,)

    @property
    def changes_nothing(self) -> bool:
        """Whether no token can come out different: dose 0, a limit of infinity, or no row."""
        if self.kind == "at least":
            idle = max(self.amounts) <= 0
        else:
            nothing = {"add": 0.0, "cap": math.inf, "floor": -math.inf, "at most": math.inf}.get(self.kind)
            idle = all(amount == nothing for amount in self.amounts)
        return idle or (self.rows is not None and not any(self.rows))

    def on_rows(self, rows: Iterable[bool]) -> Edit:
        """The same edit on some rows of the batch only: one True or False per row."""
        return _same_rows(replace(self, rows=tuple(map(bool, rows))))

    def scaled(self, factor: float) -> Edit:
        """An "add" with its doses times `factor`."""
        if self.kind != "add":
            raise WorkbenchError(f"an edit of kind {self.kind} has no dose", "an edit that adds", "make another edit instead")
        doses = tuple(factor * dose for dose in self.amounts)
        return replace(self, amount=doses if isinstance(self.amount, tuple) else doses[0])

    def description(self) -> dict[str, Any]:
        """What was done, for provenance (JSON types only; infinity as text)."""
        shown = [amount if math.isfinite(amount) else str(amount) for amount in self.amounts]
        of = self.of_feature
        return {
            "kind": self.kind,
            "label": self.label,
            "hook": str(self.hook),
            "scope": self.scope,
            "amount": shown if isinstance(self.amount, tuple) else shown[0],
            "unit": "the SAE's activation" if of else "median token norms" if self.kind == "add" else "residual",
            "measured_at": self.measured_at and str(self.measured_at),
            "rows": None if self.rows is None else list(self.rows),
            "direction": tensor_hash(self.direction),
            "feature": None if of is None else {"sae": of.sae.weights_hash, "index": of.index},
        }


def incremental(
    vector: PersonaVector, dose: Amount, *, scope: str = "all", hooks: Iterable[HookPoint | str] | None = None,
    label: str | None = None,
) -> tuple[Edit, ...]:  # fmt: skip
    """c (v_l - v_(l-1)) added after every block l of `vector` (or at `hooks`), so that block by block the sum is c v_l.

    c is chosen so that c |v_L| is `dose` median token norms at `vector.hook` (L its block); v before the first hook is 0.
    Source: Chen et al. 2025 (arXiv 2507.21509), appendix on steering at all layers.
    """
    chosen = vector.hooks if hooks is None else tuple(map(HookPoint.parse, hooks))
    chosen = tuple(sorted(hook for hook in chosen if hook.site == vector.hook.site))
    if vector.hook not in chosen:
        raise WorkbenchError(
            f"the vector's own hook {vector.hook} is not among the hooks",
            "hooks that include it, as the dose is measured there",
            "add it, or choose another hook for the vector",
        )
    _, _, name = _resolved(vector, None, label)
    length = vector.direction.float().norm()
    steps = [vector.at(chosen[0])] + [vector.at(after) - vector.at(before) for before, after in pairwise(chosen)]
    amount = _amount(dose, "dose")
    return tuple(
        Edit("add", hook, (step.float() / length).cpu(), amount, checked_scope(scope), name, vector.hook)
        for hook, step in zip(chosen, steps, strict=True)
    )


def _resolved(vector: Any, hook: HookPoint | str | None, label: str | None) -> tuple[Tensor, HookPoint, str]:
    """The unit direction [d_model] (float32, CPU), where it lives, and what it is called."""
    if isinstance(vector, Tensor):
        if hook is None:
            raise WorkbenchError("a bare tensor", "a hook point as well", "pass hook='blocks.15.hook_resid_post'")
        where, direction, name = HookPoint.parse(hook), vector, "a direction"
    elif isinstance(vector, PersonaVector):
        where = vector.hook if hook is None else HookPoint.parse(hook)
        direction, name = vector.at(where), vector.trait
    elif not all(hasattr(vector, part) for part in ("hook", "direction", "name")):
        raise WorkbenchError(f"a vector of type {type(vector).__name__}", "a PersonaVector, a Direction or a tensor [d_model]",
                             "pass torch.as_tensor(...) with a hook point for bare numbers")  # fmt: skip
    else:
        where, direction, name = vector.hook, vector.direction, vector.name
        if hook is not None and HookPoint.parse(hook) != where:
            raise WorkbenchError(f"{name} lies at {where}, not at {hook}", "a direction at its own hook", "leave the hook out")
    return _unit(direction, where), where, label or name


def _unit(direction: Tensor, hook: HookPoint) -> Tensor:
    row = direction.detach().float().cpu()
    norm = row.norm()
    if row.dim() != 1 or not torch.isfinite(norm) or norm == 0:
        raise WorkbenchError(
            f"the direction for {hook} has shape {tuple(row.shape)} and length {float(norm)}",
            "a direction [d_model] of finite length above 0",
            "check where it came from",
        )
    return row / norm


def _decoder_row(sae: SparseAutoencoder, index: int) -> Tensor:
    if not 0 <= index < sae.d_sae:
        raise WorkbenchError(
            f"there is no feature {index} in {sae.id}", f"one from 0 to {sae.d_sae - 1}", "take one from Decomposition.top()"
        )
    return sae.decoder_directions[index]


def _amount(given: Amount, what: str, *, no_limit: float | None = None) -> float | tuple[float, ...]:
    """Finite numbers, or `no_limit`."""
    values = given.tolist() if hasattr(given, "tolist") else given  # pyright: ignore[reportAttributeAccessIssue]
    try:
        several = tuple(map(float, values)) if isinstance(values, Sequence) else (float(values),)
    except (TypeError, ValueError):
        several = ()
    if isinstance(given, str) or not several or not all(math.isfinite(value) or value == no_limit for value in several):
        raise WorkbenchError(f"the {what} is {given!r}", "a finite number, or one per row of the batch", "correct it")
    return several if isinstance(values, Sequence) else several[0]


def _same_rows(edit: Edit) -> Edit:
    if isinstance(edit.amount, tuple) and edit.rows is not None and len(edit.amount) != len(edit.rows):
        raise WorkbenchError(
            f"{len(edit.amount)} amounts and {len(edit.rows)} rows", "as many of each", "give one per row of the batch"
        )
    return edit

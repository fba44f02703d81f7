"""What is done to the model: an edit at a dose, or words in the system prompt; and ladders of doses by norm or by KL."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.store import content_hash
from workbench.base.tensors import tensor_hash

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from ..edits import Edit
    from .matching import NeutralShift

UNSTEERED = "none"
EditsAt = Callable[[float], tuple["Edit", ...]]


@dataclass(frozen=True, eq=False, repr=False)
class Treatment(Shown):
    """One thing that is done to the model; `method` names the curve in which it is a point."""

    method: str
    level: float | None = None
    """Where it stands on its curve: the dose in norms (below 0: away from the trait), the share of ordinary tokens that a cap
    touches, None otherwise."""
    edits: tuple[Edit, ...] = ()
    told: str = ""
    """"positive" or "negative": the trait's own instruction is added to the system prompt; "" for none."""

    @property
    def strength(self) -> float:
        """|level|, by which the points of a curve are ordered; infinite where there is one point only."""
        return float("inf") if self.level is None else abs(self.level)

    def within(self, scope: str) -> list[Edit]:
        """Its edits under that scope."""
        return [replace(edit, scope=scope) for edit in self.edits]  # pyright: ignore[reportArgumentType]

    def key(self) -> str:
        """What tells it from others: every edit's kind, place, direction and amount, and the words."""
        return content_hash([self.method, self.level, self.told, edits_key(self.edits)])

    def to_dict(self) -> dict[str, Any]:
        """{method, level, told, hooks}: JSON types, for tables."""
        hooks = sorted({str(edit.hook) for edit in self.edits})
        return {"method": self.method, "level": self.level, "told": self.told, "n_hooks": len(hooks), "hook": hooks[:1]}


def ladder(method: str, edits_at: EditsAt, doses: Iterable[float]) -> tuple[Treatment, ...]:
    """One treatment per signed dose, in norms."""
    return tuple(Treatment(method, dose, tuple(edits_at(dose))) for dose in doses)


def kl_ladder(
    method: str, edits_at: EditsAt, kls: Sequence[float], neutral: NeutralShift, *, sign: int = 1
) -> tuple[Treatment, ...]:
    """One treatment per distance on neutral text (nats per token, mean of both signs), each at the dose that reaches it."""
    if not kls or not all(0 < kl < math.inf for kl in kls):
        raise WorkbenchError(f"doses are set by KL {list(kls)}", "nats per token above 0", "use for instance .05, .1 and .2")
    doses: list[float] = []
    dose, before = 0.1, min(kls)
    for kl in sorted(kls):
        dose = neutral.dose(edits_at, kl, start=dose * (kl / before) ** 0.5)  # KL grows like the square of a small dose
        doses.append(sign * dose)
        before = kl
    return ladder(method, edits_at, doses)


def adding(vector: Any, *, hook: Any = None) -> EditsAt:
    """dose -> the vector added at its hook (a PersonaVector, or a tensor [d_model] with `hook`)."""
    from ..edits import Edit

    return lambda dose: (Edit.add(vector, dose, hook=hook),)


def adding_incrementally(vector: Any) -> EditsAt:
    """dose -> v_l - v_(l-1) added at every block; Chen et al. 2025 (arXiv 2507.21509), appendix on steering."""
    from ..edits import incremental

    return lambda dose: incremental(vector, dose)


def ablating(vector: Any, *, hooks: Sequence[Any] = ()) -> Treatment:
    """The vector's direction projected out at its hook, or at each of `hooks` (a PersonaVector's own direction there)."""
    from ..edits import Edit

    if not hooks:
        return Treatment("ablate", None, (Edit.ablate(vector),))
    return Treatment("ablate everywhere", None, tuple(Edit.ablate(vector, hook=hook) for hook in hooks))


def capping(vector: Any, projections: Tensor, quantiles: Sequence[float]) -> tuple[Treatment, ...]:
    """The coordinate along the vector held at or below quantiles of `projections` [n] (those of ordinary answers)."""
    from ..edits import Edit

    limits = projections.double().quantile(projections.new_tensor(list(quantiles)).double()).tolist()
    return tuple(Treatment("cap", 1 - q, (Edit.cap(vector, limit),)) for q, limit in zip(quantiles, limits, strict=True))


def edits_key(edits: Iterable[Edit]) -> list[list[Any]]:
    """Kind, place, direction, amount and rows of each edit (JSON types), whatever it is called and whatever its scope is; of a
    feature that is limited, the SAE that reads it too."""
    return [
        [e.kind, str(e.hook), tensor_hash(e.direction), list(e.amounts), str(e.measured_at), *([list(e.rows)] if e.rows else []),
         *([e.of_feature.sae.weights_hash] if e.of_feature and e.kind in ("at most", "at least") else [])]
        for e in edits
    ]  # fmt: skip

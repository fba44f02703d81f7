"""The fitness gate: is an SAE good enough that a decomposition with it means something?

The limits are conventions, stated here and printed with every failure. Variance explained, loss recovered and dead share are
the limits below which the report calls an SAE poor. A figure counts only where the card records that it was measured on these
very weights (their hash): a card may have been copied from another SAE, or be a stranger's. What an evaluation says counts
only if it read this SAE at its own hook, and not on another model than the one it was trained on.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeGuard

from workbench.base.display import Shown
from workbench.base.errors import CheckFailed, WorkbenchError

logger = logging.getLogger(__name__)

FROM_EVALUATION = "from_evaluation"
"""Key of a card under which an evaluation lists the figures that it filled in."""
NEEDED = ("variance_explained", "ce_recovered")
"""Figures without which a strict check refuses."""


class Carded(Protocol):
    """An SAE, as far as the gate looks at it."""

    @property
    def card(self) -> dict[str, Any]: ...

    @property
    def weights_hash(self) -> str: ...


@dataclass(frozen=True)
class Limits:
    """What the figures of a card must reach."""

    variance_explained: float = 0.70
    """at least"""
    ce_recovered: float = 0.80
    """at least, against zero ablation"""
    dead_share: float = 0.10
    """at most"""
    l0_least: float = 2.0
    """at least so many features a token: below, an SAE says almost nothing"""
    l0_most: float = 300.0
    """at most: above, its codes are hardly sparse"""
    persona_probe_gap: float = 0.10
    """at most: AUC of raw activations minus that of the best <= 32 features"""


@dataclass(frozen=True, repr=False)
class Gate(Shown):
    """`passed` is None when nothing at all was measured; `failures` and `unmeasured` are sentences and names of figures."""

    passed: bool | None
    failures: tuple[str, ...]
    unmeasured: tuple[str, ...]
    limits: dict[str, float]

    @staticmethod
    def of(kept: Mapping[str, Any]) -> Gate:
        """The gate that a card keeps."""
        return Gate(kept["passed"], tuple(kept["failures"]), tuple(kept["unmeasured"]), dict(kept["limits"]))

    def to_dict(self) -> dict[str, Any]:
        """As the card keeps it."""
        return {
            "passed": self.passed,
            "failures": list(self.failures),
            "unmeasured": list(self.unmeasured),
            "limits": self.limits,
        }


_RULES = (
    ("variance_explained", "variance explained", "variance_explained", True),
    ("ce_recovered", "cross-entropy recovered", "ce_recovered", True),
    ("dead_share", "share of dead features", "dead_share", False),
    ("l0", "active features per token (L0)", "l0_least", True),
    ("l0", "active features per token (L0)", "l0_most", False),
    ("persona_probe_gap", "persona probe gap", "persona_probe_gap", False),
)


def check_fitness(sae: Carded, limits: Limits | None = None) -> Gate:
    """What the SAE's card says against the limits; the figures measured by `workbench sae eval` go before older ones.

    Works on any card: a figure that is missing, not finite or not recorded to be of these weights (`weights_hash` in the
    evaluation, or in the card for what training measured) is listed as unmeasured and fails nothing.
    """
    if isinstance(sae, Mapping):
        raise WorkbenchError(
            "the gate was given a card without its weights",
            "an SAE, so that the card's figures can be told to be of its weights",
            "check_fitness(load_sae(...))",
        )
    values = asdict(limits or Limits())
    failures, unmeasured = [], []
    for key, name, limit, rising in _RULES:
        value = card_figure(sae, key)
        if value is None:
            if key not in unmeasured:
                unmeasured.append(key)
            continue
        bound = values[limit]
        if (value < bound) if rising else (value > bound):
            failures.append(f"{name} is {value:.3g}, {'at least' if rising else 'at most'} {bound:g} is needed")
    measured = len(unmeasured) < len({key for key, *_ in _RULES})
    return Gate(not failures if measured else None, tuple(failures), tuple(unmeasured), values)


def card_figure(sae: Carded, key: str) -> float | None:
    """A headline figure of these weights: from the evaluation, else from what training measured; None when it is not known."""
    evaluation = sae.card.get("evaluation") if isinstance(sae.card, Mapping) else None
    if evaluated_here(evaluation, sae) and (found := figure(evaluation.get("headline"), key)) is not None:
        return found
    return figure(sae.card, key) if of_these_weights(sae.card, sae) and key not in filled_in(sae.card) else None


def filled_in(card: Mapping[str, Any]) -> list[str]:
    """The figures of a card that an evaluation put there, not training."""
    names = card.get(FROM_EVALUATION)
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def evaluated_here(record: Any, sae: Carded) -> TypeGuard[Mapping[str, Any]]:
    """Whether an evaluation is of this SAE's weights, at its hook, and not on another model than it was trained on."""
    hook = getattr(sae, "hook", None)  # not every carded thing knows its hook
    return (
        of_these_weights(record, sae)
        and record.get("trained_on_this_model") is not False
        and (hook is None or record.get("hook") == str(hook))
    )


def of_these_weights(record: Any, sae: Carded) -> TypeGuard[Mapping[str, Any]]:
    """Whether a card, or an evaluation, says that it is about the weights of this SAE."""
    return isinstance(record, Mapping) and record.get("weights_hash") == sae.weights_hash


def figure(record: Any, key: str) -> float | None:
    """The finite number under that key, if there is one."""
    value = record.get(key) if isinstance(record, Mapping) else None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def doubts(name: str, gate: Gate) -> list[str]:
    """A sentence for every failure, and one where the SAE (or a figure of it) was never measured."""
    if gate.passed is None:
        where = "of these weights, at this hook, on the model they were trained on"
        return [f"{name} is unmeasured here: no figure is {where}; `workbench sae eval` measures it"]
    found = [f"{name} FAILS the fitness gate: {failure}" for failure in gate.failures]
    return found + ([f"{name}: not measured here: {', '.join(gate.unmeasured)}"] if gate.unmeasured else [])


def warn_unless_fit(name: str, gate: Gate) -> None:
    """Log a warning for every doubt."""
    for doubt in doubts(name, gate):
        logger.warning("%s.", doubt)


def require_fit(name: str, gate: Gate) -> None:
    """Raise CheckFailed (exit code 1) when the gate failed, or when any of `NEEDED` was not measured."""
    if gate.failures:
        raise CheckFailed(
            f"the SAE {name} fails the fitness gate: {'; '.join(gate.failures)}",
            "an SAE within the limits, as you asked for a strict check",
            "choose another SAE (`workbench sae list`), train longer, or leave the strict flag out",
        )
    missing = [key for key in NEEDED if key in gate.unmeasured]
    if gate.passed is None or missing:
        what = "" if gate.passed is None else f": it lacks {' and '.join(missing)}"
        raise CheckFailed(
            f"the SAE {name} is unmeasured here{what}",
            "an SAE with measured fitness, as you asked for a strict check",
            f"run `workbench sae eval {name} --write-card`",
        )

"""The fitness gate: is an SAE good enough that a decomposition with it means something?

The limits are conventions, stated here and printed with every failure. Variance explained, loss recovered and dead share are
the limits below which the report calls an SAE poor.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from workbench.base.errors import WorkbenchError

logger = logging.getLogger(__name__)


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


@dataclass(frozen=True)
class Gate:
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


def check_fitness(card: Mapping[str, Any], limits: Limits | None = None) -> Gate:
    """What the card's figures say against the limits; the figures measured by `workbench sae eval` go before older ones.

    Works on any card: a figure that is missing (or not finite) is listed as unmeasured and fails nothing.
    """
    values = asdict(limits or Limits())
    failures, unmeasured = [], []
    for key, name, limit, rising in _RULES:
        figure = card_figure(card, key)
        if figure is None:
            if key not in unmeasured:
                unmeasured.append(key)
            continue
        bound = values[limit]
        if (figure < bound) if rising else (figure > bound):
            failures.append(f"{name} is {figure:.3g}, {'at least' if rising else 'at most'} {bound:g} is needed")
    measured = len(unmeasured) < len({key for key, *_ in _RULES})
    return Gate(not failures if measured else None, tuple(failures), tuple(unmeasured), values)


def card_figure(card: Mapping[str, Any], key: str) -> float | None:
    """A headline figure of a card: from its evaluation, else from what training measured; None when it is not known."""
    for place in ((card.get("evaluation") or {}).get("headline") or {}, card):
        value = place.get(key)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    return None


def warn_unless_fit(name: str, gate: Gate) -> None:
    """Log a warning for every failure, and say so when an SAE (or a figure of it) was never measured."""
    if gate.passed is None:
        logger.warning("%s is unmeasured: nothing is known about its fitness. Run `workbench sae eval %s`.", name, name)
        return
    for failure in gate.failures:
        logger.warning("%s FAILS the fitness gate: %s.", name, failure)
    if gate.unmeasured:
        logger.warning("%s: not measured: %s.", name, ", ".join(gate.unmeasured))


def require_fit(name: str, gate: Gate) -> None:
    """Raise WorkbenchError (exit code 2) when the gate failed or when nothing was measured."""
    if gate.passed:
        return
    if gate.passed is None:
        raise WorkbenchError(
            f"the SAE {name} is unmeasured",
            "an SAE with measured fitness, as you asked for a strict check",
            f"run `workbench sae eval {name} --write-card`",
        )
    raise WorkbenchError(
        f"the SAE {name} fails the fitness gate: {'; '.join(gate.failures)}",
        "an SAE within the limits, as you asked for a strict check",
        "choose another SAE (`workbench sae list`), train longer, or leave the strict flag out",
    )

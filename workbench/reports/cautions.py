"""Where a claim is weak, as values that name the claim, so that a page can say it next to the claim."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.reports.content import Report

CLAIMS = ("picture", "table", "auc", "energy", "causal", "labels", "examples", "views", "audit", "falsification")
"""What a page claims, in its order; every other claim is a feature, by its number."""


@dataclass(frozen=True)
class Caution:
    """Why one claim is weaker than it looks. `claim` is one of `CLAIMS` or the number of a feature, as text."""

    claim: str
    text: str

    @property
    def feature(self) -> int | None:
        """The feature that this is about, None for a claim of the whole page."""
        return int(self.claim) if self.claim.isdecimal() else None


def cautions(report: Report) -> tuple[Caution, ...]:
    """Every weak claim of a report, in the order of `CLAIMS`, features last."""
    return ()

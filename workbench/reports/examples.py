"""Three real examples for the first screen: the first features of the declared ranking, each in a text of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.labeling.evidence import Context
    from workbench.labeling.labels import FeatureLabel
    from workbench.reports.content import Report

N_EXAMPLES = 3


@dataclass(frozen=True)
class Example:
    """A feature where it fires. `rank` is its place in `ranking.RANKED_BY`, `share` of |v|^2; `label` is None without one."""

    feature: int
    rank: int
    share: float
    label: FeatureLabel | None
    context: Context


def examples(report: Report, n: int = N_EXAMPLES) -> tuple[Example, ...]:
    """At most `n` examples."""
    return ()

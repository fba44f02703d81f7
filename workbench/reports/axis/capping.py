"""What caps take from harm and from capability: the front as a picture, and in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.reports.steering.pareto import front_sentences, pareto_figure
from workbench.reports.svg import Figure, percent, signed

if TYPE_CHECKING:
    from workbench.axis.capping.sweep import CappingSweep


def capping_figure(found: CappingSweep) -> Figure:
    """Harm taken away (points of 100 of success behind personas) against capability lost (nats per token), a line per direction
    and band, its points by percentile."""
    return pareto_figure([found.front])


def capping_sentences(found: CappingSweep) -> list[str]:
    """What there was to take away, which caps take it, and how feature caps compare at equal reduction."""
    base = percent(found.front.base_points / 100)
    told = [f"Behind personas {base} of {found.n_attempts} attempts succeed without a cap.", *front_sentences(found.front)[1:]]
    equal = found.to_dict()["at_equal_reduction"]
    for points, rows in equal["points"].items():
        reached = [row for row in rows if row["value"] is not None]
        if not reached:
            told.append(f"No cap takes {points} points of 100.")
            continue
        listed = ", ".join(f"{row['method']} {signed(row['value'], 3)}" for row in reached[:4])
        told.append(f"{points} points of 100 cost, in nats per token: {listed}.")
    return told

"""Which features come first: by one declared statistic, never by a mixture of several."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from workbench.decomposition.shares import require_shares

if TYPE_CHECKING:
    from workbench.decomposition.result import Decomposition
    from workbench.labeling.labels import LabelSet

RANKED_BY = "q of the verified causal effect, smallest first; then |share of |v|²|, largest first"


@dataclass(frozen=True)
class RankedFeature:
    """A feature's place. `q` is None unless its causal effect was verified; `label` and `category` are None without a label."""

    rank: int
    feature: int
    share: float
    q: float | None
    label: str | None = None
    category: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def ranked(parts: Decomposition, labels: LabelSet | None = None, *, n: int | None = None) -> tuple[RankedFeature, ...]:
    """The first `n` features (all of them without `n`) in the order of `RANKED_BY`.

    Features with a verified causal effect come first, by its q; equal q's (frequent after Benjamini-Hochberg), and all features
    that were not verified or not tested, follow the absolute value of their share; equal ones by number. Nothing is weighed
    against anything else: a feature that was not verified never passes one that was. Raises WorkbenchError for a bare vector.
    """
    require_shares(parts)
    verified = {row.feature: row.q for row in parts.causal if row.verified and math.isfinite(row.q)}
    shares = parts.share.tolist()
    order = sorted(range(len(shares)), key=lambda f: (verified.get(f, math.inf), -abs(shares[f]), f))
    return tuple(_row(place, f, shares[f], verified.get(f), labels) for place, f in enumerate(order[:n], start=1))


def _row(rank: int, feature: int, share: float, q: float | None, labels: LabelSet | None) -> RankedFeature:
    found = labels.get(feature) if labels is not None else None
    if found is None or found.status == "rejected":
        return RankedFeature(rank, feature, share, q)
    category = found.category_for(labels.trait) if labels is not None and labels.trait else found.category
    return RankedFeature(rank, feature, share, q, found.label, category)

"""Intervals of summed shares, from the decomposition's own bootstrap replicates (never from sums of interval ends)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from workbench.base.display import Shown

if TYPE_CHECKING:
    from workbench.decomposition.result import Decomposition

Interval = tuple[float, float] | None


@dataclass(frozen=True, repr=False)
class GroupIntervals(Shown):
    """95% basic bootstrap intervals of groups of features: in each replicate the shares are summed, and then ranked.

    `columns` maps a feature to its column in `shares` [n_bootstrap, m] and `points` [m], the vector's own shares; `error` is
    [n_bootstrap], `error_point` the vector's own. A group which holds a feature without replicates has no interval (None):
    nothing is filled in.
    """

    columns: dict[int, int]
    shares: np.ndarray
    error: np.ndarray
    points: np.ndarray
    error_point: float

    @classmethod
    def of(cls, parts: Decomposition) -> GroupIntervals:
        features = [int(feature) for feature in parts.replicate_features]
        columns = {feature: column for column, feature in enumerate(features)}
        points = np.asarray(parts.share, float)[features] if features else np.zeros(0)
        replicates = np.asarray(parts.replicate_shares, float), np.asarray(parts.replicate_error, float)
        return cls(columns, *replicates, points, np.nan if parts.share_error is None else parts.share_error)

    def total(self, features: Iterable[int]) -> Interval:
        """The interval of the summed share of `features`."""
        found = self._summed(features)
        return None if found is None else _ends(*found)

    def corrected(self, features: Iterable[int]) -> float | None:
        """The estimate that goes with `total`: 2 share - mean of the replicates (see `taxonomy.values.Part`)."""
        found = self._summed(features)
        return None if found is None else _middle(*found)

    def corrected_remainder(self, labelled: Iterable[int]) -> float | None:
        """The estimate that goes with `remainder`."""
        found = self._summed(labelled)
        if found is None or len(self.error) != len(found[0]):
            return None
        return _middle(1.0 - self.error - found[0], 1.0 - self.error_point - found[1])

    def corrected_error(self) -> float | None:
        """The estimate of the SAE's own error."""
        return _middle(self.error, self.error_point)

    def remainder(self, labelled: Iterable[int]) -> Interval:
        """The interval of all other features: 1 - error - sum over `labelled`, in each replicate (the identity)."""
        found = self._summed(labelled)
        if found is None or len(self.error) != len(found[0]):
            return None
        return _ends(1.0 - self.error - found[0], 1.0 - self.error_point - found[1])

    def _summed(self, features: Iterable[int]) -> tuple[np.ndarray, float] | None:
        """(sum in every replicate, sum of the vector's own shares)."""
        wanted = list(features)
        if self.shares.size == 0 or any(feature not in self.columns for feature in wanted):
            return None
        chosen = [self.columns[feature] for feature in wanted]
        return self.shares[:, chosen].sum(axis=1), float(self.points[chosen].sum())


def _ends(replicates: np.ndarray, point: float) -> Interval:
    known = replicates[np.isfinite(replicates)]
    if len(known) < 2 or not np.isfinite(point):
        return None
    low, high = np.quantile(known, [0.025, 0.975])
    return float(2 * point - high), float(2 * point - low)


def _middle(replicates: np.ndarray, point: float) -> float | None:
    known = replicates[np.isfinite(replicates)]
    return float(2 * point - known.mean()) if len(known) > 1 and np.isfinite(point) else None

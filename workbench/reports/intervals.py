"""Intervals of summed shares, from the decomposition's own bootstrap replicates (never from sums of interval ends)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from workbench.decomposition.result import Decomposition

Interval = tuple[float, float] | None


@dataclass(frozen=True)
class GroupIntervals:
    """95% percentile intervals of groups of features: in each replicate the shares are summed, then ranked.

    `columns` maps a feature to its column in `shares` [n_bootstrap, m]; `error` is [n_bootstrap]. A group which
    holds a feature without replicates has no interval (None): nothing is filled in.
    """

    columns: dict[int, int]
    shares: np.ndarray
    error: np.ndarray

    @classmethod
    def of(cls, parts: Decomposition) -> GroupIntervals:
        features = [int(feature) for feature in parts.replicate_features]
        columns = {feature: column for column, feature in enumerate(features)}
        return cls(
            columns, np.asarray(parts.replicate_shares, float), np.asarray(parts.replicate_error, float)
        )

    def total(self, features: Iterable[int]) -> Interval:
        """The interval of the summed share of `features`."""
        summed = self._replicates(features)
        return None if summed is None else _ends(summed)

    def remainder(self, labelled: Iterable[int]) -> Interval:
        """The interval of all other features: 1 - error - sum over `labelled`, in each replicate (the identity)."""
        summed = self._replicates(labelled)
        return None if summed is None or len(self.error) != len(summed) else _ends(1.0 - self.error - summed)

    def _replicates(self, features: Iterable[int]) -> np.ndarray | None:
        wanted = list(features)
        if self.shares.size == 0 or any(feature not in self.columns for feature in wanted):
            return None
        return self.shares[:, [self.columns[feature] for feature in wanted]].sum(axis=1)


def _ends(replicates: np.ndarray) -> Interval:
    known = replicates[np.isfinite(replicates)]
    if len(known) < 2:
        return None
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)

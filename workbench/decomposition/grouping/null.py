"""What clustering finds where no trait chose the features: the null of the groups."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from ..rows import RowCodes

N_MATCHES = 10


@dataclass(frozen=True)
class GroupNull:
    """How many of the matched features were put into groups in `n_draws` draws (`median`, `high` = 97.5th percentile), how many
    of the chosen ones were, and how often a draw has as many (`p`)."""

    n_draws: int
    n_grouped: int
    median: float
    high: float
    p: float


def matched_features(rows: RowCodes, chosen: np.ndarray, active: np.ndarray) -> np.ndarray:
    """For each chosen feature the ids `[n, n_matches]` of active ones, not chosen, that fire most like it; none twice.

    Nearest in the ranks of two figures together: the share of the responses in which it fires, and its mean code. The chosen
    features take turns, so that each gets its nearest, then each its next, up to ten.
    """
    codes = rows.codes
    figures = (np.diff(codes.indptr), np.asarray(codes.sum(axis=0)).ravel())
    ranks = np.stack([figure.argsort(kind="stable").argsort() for figure in figures], axis=1)
    others = np.setdiff1d(active, chosen)
    distance = np.abs(ranks[chosen][:, None] - ranks[others][None]).sum(axis=2).astype(float)
    found = np.empty((len(chosen), min(N_MATCHES, len(others) // len(chosen))), dtype=int)
    for turn in range(found.shape[1]):
        for row in range(len(chosen)):
            nearest = distance[row].argmin()
            found[row, turn] = others[nearest]
            distance[:, nearest] = np.inf
    return found


def clusters(similarity: np.ndarray, signs: np.ndarray, threshold: float) -> list[np.ndarray]:
    """The groups of two or more (places, ascending) by average linkage, cut where the mean similarity falls below `threshold`.

    Places of different `signs` are clustered apart.
    """
    found = []
    for sign in np.unique(signs):
        places = np.flatnonzero(signs == sign)
        if len(places) < 2:
            continue
        distance = squareform(1 - similarity[np.ix_(places, places)], checks=False).clip(min=0)
        label = fcluster(linkage(distance, "average"), 1 - threshold, "distance")
        found += [places[label == one] for one in np.unique(label) if (label == one).sum() > 1]
    return found


class Null:
    """The same clustering of matched features, drawn `n_draws` times.

    `similarity [m, m]` is that of the pool of matched features, `matches [n, n_matches]` places in it per chosen feature; each
    draw takes one match per chosen feature, which keeps that feature's sign.
    """

    def __init__(
        self, similarity: np.ndarray, matches: np.ndarray, signs: np.ndarray, threshold: float, n_draws: int, seed: int
    ) -> None:
        self.signs, self.threshold = signs, threshold
        source, each = np.random.default_rng(seed), np.arange(len(matches))
        chosen = (matches[each, source.integers(matches.shape[1], size=len(each))] for _ in range(n_draws))
        self.draws = [self._draw(similarity[np.ix_(places, places)]) for places in chosen]

    def _draw(self, similarity: np.ndarray) -> list[tuple[int, float]]:
        return [(len(group), mean_off_diagonal(similarity[np.ix_(group, group)])) for group in self.clusters(similarity)]

    def clusters(self, similarity: np.ndarray) -> list[np.ndarray]:
        """The groups by the similarity `[n, n]` of the chosen features, or of as many that stand in their places."""
        return clusters(similarity, self.signs, self.threshold)

    def p(self, size: int, cohesion: float) -> float:
        """(1 + number of draws with a group at least as large and as cohesive) / (1 + draws): over the whole clustering."""
        reached = sum(any(n >= size and value >= cohesion for n, value in draw) for draw in self.draws)
        return (1 + reached) / (1 + len(self.draws))

    def summary(self, n_grouped: int) -> GroupNull:
        """How many features are in groups, beside the same in the draws."""
        counts = [sum(size for size, _ in draw) for draw in self.draws]
        p = (1 + sum(count >= n_grouped for count in counts)) / (1 + len(counts))
        return GroupNull(len(counts), n_grouped, float(median(counts)), float(np.quantile(counts, 0.975)), p)


def mean_off_diagonal(square: np.ndarray) -> float:
    """The mean over the pairs of different features in a symmetric matrix of two or more."""
    n = len(square)
    return float((square.sum() - np.trace(square)) / (n * (n - 1)))

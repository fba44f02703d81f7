"""Features that act as one: near-duplicates and parts of one sub-trait, grouped so that they can be read as one row.

Two features belong together when their decoder directions point the same way and when they are active in the same
responses. Both are needed: the halves of a split feature have nearly one direction but need not fire together, and the
parts of one manner of speaking fire together along different directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.randomness import derive_seed
from workbench.maths.statistics import category_codes

from ..result import Decomposition
from ..rows import RowCodes
from ..shares import group_shares, require_shares
from .null import GroupNull, Null, matched_features, mean_off_diagonal

N_FEATURES = 60
PERCENTILE = 0.95
N_DRAWS = 99
MIN_GROUPED = 4
"""Fewer features than this are not worth grouping."""


@dataclass(frozen=True)
class FeatureGroup:
    """Features that read as one row.

    `features` are the members, the largest |share| first, and `representative` is the first of them. `change` is +1 where
    the trait brings more of them and -1 where it brings less. `share` is the sum of the members' shares, `interval` its
    95% interval, summed inside each bootstrap replicate. `cohesion` is the mean similarity of the pairs in it, the mean of
    `cosine` (of the decoder directions) and `coactivation` (the correlation within the arms). `p`: how often the same
    clustering finds a group as large and as cohesive among matched features.
    """

    features: tuple[int, ...]
    representative: int
    change: int
    share: float
    interval: tuple[float, float]
    cohesion: float
    cosine: float
    coactivation: float
    p: float


@dataclass(frozen=True, repr=False)
class Grouping(Shown):
    """The groups of two features or more (largest |share| first), the features left `single`, and what chance gives.

    `threshold` is the mean similarity that a group has to reach: the `percentile` of pairs of matched features. `null` is what
    the same clustering finds among matched features.
    """

    groups: tuple[FeatureGroup, ...]
    single: tuple[int, ...]
    threshold: float
    percentile: float
    null: GroupNull

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, by the names of the fields."""
        return asdict(self)


def group_features(
    parts: Decomposition,
    rows: RowCodes,
    arms: Sequence[str],
    decoder: Tensor,
    *,
    n_features: int = N_FEATURES,
    percentile: float = PERCENTILE,
    n_draws: int = N_DRAWS,
    seed: int = 0,
) -> Grouping | None:
    """The `n_features` features of the largest |share|, grouped; None where there are too few to compare with.

    Similarity of two features = (cosine of their decoder directions + correlation of their mean codes per response) / 2,
    between -1 and 1. The correlation is taken *within* the arms (`arms [n]`, one name per row of `rows`): the mean of each arm
    is taken out first, since all features of a trait are higher in one arm than in the other and would correlate for that
    alone. Left in are the topic of a question and how far a reply follows its instruction: features may fire together for
    either. Clustering: average linkage, so the mean similarity between merged parts is at least the threshold. Features of
    different signs (of the change of the code, or of the share) are never put together: a sum would hide what cancels.

    The threshold is the `percentile` of the similarity of pairs of *matched* features, which are not among the chosen ones
    but fire in as many responses, as strongly: at .95, one such pair in twenty reaches it. What the whole clustering then
    finds among matched features, the signs kept, is `null`, and `p` of each group. Memory: n rows times some 600 features.

    At most a quarter of the active features are grouped, so that the rest can serve as the null. Raises WorkbenchError for a
    bare vector, which has no shares to sum.
    """
    require_shares(parts)
    active = np.flatnonzero(np.diff(rows.codes.indptr))
    ranked = parts.replicate_features[parts.share[parts.replicate_features].abs().sort(descending=True).indices]
    chosen = ranked[: min(n_features, len(active) // 4)].numpy()
    if len(chosen) < MIN_GROUPED:
        return None
    matches = matched_features(rows, chosen, active)
    pool = np.unique(matches)
    measure = _Similarity(rows, category_codes(list(arms)), decoder)
    others = measure.of(pool).both
    threshold = float(np.quantile(others[np.triu_indices(len(pool), 1)], percentile))
    signs = (2 * parts.delta_code.sign() + parts.share.sign())[chosen].numpy()
    null = Null(others, np.searchsorted(pool, matches), signs, threshold, n_draws, derive_seed("groups", seed))
    own = measure.of(chosen)
    found = null.clusters(own.both)
    placed = np.concatenate([np.empty(0, int), *found])
    return Grouping(
        groups=_groups(parts, chosen, found, own, null),
        single=tuple(int(feature) for place, feature in enumerate(chosen) if place not in placed),
        threshold=threshold,
        percentile=percentile,
        null=null.summary(len(placed)),
    )


def with_groups(parts: Decomposition, rows: RowCodes, used: Any, decoder: Tensor, *, seed: int) -> Decomposition:
    """A copy whose `audit["groups"]` holds the groups as JSON (None where there are too few features to group).

    `used` are the rollout rows behind `rows`, in the same order; without a column `arm` the sign of the weight tells the arm.
    """
    arms = used["arm"] if "arm" in used.columns else np.sign(used["weight"].fillna(0))
    found = group_features(parts, rows, arms.astype(str).tolist(), decoder, seed=seed)
    return replace(parts, audit={**parts.audit, "groups": None if found is None else found.to_json()})


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Similarities `[k, k]` of k features, and their mean `both`."""

    cosine: np.ndarray
    coactivation: np.ndarray

    @property
    def both(self) -> np.ndarray:
        return (self.cosine + self.coactivation) / 2

    def means(self, members: np.ndarray) -> tuple[float, float]:
        """(cosine, co-activation), the means over the pairs of some of them."""
        places = np.ix_(members, members)
        return mean_off_diagonal(self.cosine[places]), mean_off_diagonal(self.coactivation[places])


class _Similarity:
    """How alike features are, by decoder and by responses."""

    def __init__(self, rows: RowCodes, arms: Tensor, decoder: Tensor) -> None:
        self.codes, self.decoder = rows.codes, decoder
        member = torch.nn.functional.one_hot(arms).numpy().astype(np.float32)
        self.arms = member / np.sqrt(member.sum(axis=0))  # orthonormal columns: taking them out centres each arm

    def of(self, features: np.ndarray) -> _Pairs:
        codes = self.codes[:, features].toarray()
        within = codes - self.arms @ (self.arms.T @ codes)
        return _Pairs(_cosines(self.decoder[features].numpy()), _cosines(within.T, floor=1e-6 * np.abs(codes).max(initial=0)))


def _cosines(vectors: np.ndarray, *, floor: float = 0.0) -> np.ndarray:
    """Cosines between rows; a row no longer than `floor` (rounding) has cosine 0 with all others."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.where(lengths > floor, vectors / np.maximum(lengths, np.finfo(np.float32).tiny), 0)
    return unit @ unit.T


def _groups(
    parts: Decomposition, chosen: np.ndarray, found: list[np.ndarray], own: _Pairs, null: Null
) -> tuple[FeatureGroup, ...]:
    """The clusters (places among the chosen features) with their figures; `chosen` has the largest |share| first."""
    named = {int(chosen[place]): str(n) for n, members in enumerate(found) for place in members}
    sums = {row["category"]: row for row in group_shares(parts, named)}
    groups = []
    for n, members in enumerate(found):
        features = tuple(int(feature) for feature in chosen[np.sort(members)])
        cosine, coactivation = own.means(members)
        cohesion = (cosine + coactivation) / 2
        row, change = sums[str(n)], int(parts.delta_code[features[0]].sign())
        groups.append(FeatureGroup(features, features[0], change, row["share"], (row["low"], row["high"]), cohesion, cosine,
                                   coactivation, null.p(len(members), cohesion)))  # fmt: skip
    return tuple(sorted(groups, key=lambda group: -abs(group.share)))

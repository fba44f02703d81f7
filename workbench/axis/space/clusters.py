"""Do the characters fall into clusters? One is an answer, and five is a hypothesis."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor

from workbench.base.randomness import derive_seed

MAX_CLUSTERS = 10
N_REFERENCES = 20
N_BOOTSTRAP = 30
PUBLISHED = 5


def clusters(scores: Tensor, names: Sequence[str], *, published: int = PUBLISHED, seed: int = 0) -> dict[str, Any]:
    """K-means of role scores `[n_roles, k]` with the gap statistic, k = 1 allowed, and how stable the published number is.

    {k, gaps: [{k, gap, standard_error}], stability: {k: {ari, null_ari}}, members: {k: [[names]]}}. k is the smallest number
    whose gap is within one standard error of the next (Tibshirani et al. 2001); the reference is uniform in the box of the
    scores, whose axes are principal components. Stability: mean adjusted Rand index between the clusters of all roles and those
    of bootstrap draws of them, applied to all; null_ari: the same of uniform references.
    """
    points = scores.double().numpy()
    largest = min(MAX_CLUSTERS, len(points) - 1)
    gaps = _gaps(points, largest, seed)
    enough = [one["gap"] >= after["gap"] - after["standard_error"] for one, after in pairwise(gaps)]
    chosen = enough.index(True) + 1 if True in enough else largest
    asked = [k for k in sorted({chosen, published}) if 1 < k <= largest]
    found = {k: _fit(points, k, seed).labels_ for k in asked}
    stability = {str(k): {"ari": _stability(points, k, seed), "null_ari": _null_stability(points, k, seed)} for k in asked}
    members = {str(k): [_of(names, labels == one) for one in range(k)] for k, labels in found.items()}
    return {"k": chosen, "gaps": gaps, "stability": stability, "members": members}


def _of(names: Sequence[str], inside: np.ndarray) -> list[str]:
    return [names[i] for i in np.flatnonzero(inside).tolist()]


def _gaps(points: np.ndarray, largest: int, seed: int) -> list[dict[str, float]]:
    """gap(k) = mean over references of log W_k - log W_k, W the sum of squares within clusters; s_k of Tibshirani et al."""
    references = [_reference(points, seed, i) for i in range(N_REFERENCES)]
    rows = []
    for k in range(1, largest + 1):
        own, drawn = np.log(_within(points, k, seed)), np.log([_within(one, k, seed) for one in references])
        spread = float(drawn.std() * (1 + 1 / len(drawn)) ** 0.5)
        rows.append({"k": k, "gap": float(drawn.mean() - own), "standard_error": spread})
    return rows


def _reference(points: np.ndarray, seed: int, number: int) -> np.ndarray:
    random = np.random.default_rng(derive_seed("uniform reference", seed, number))
    return random.uniform(points.min(axis=0), points.max(axis=0), size=points.shape)


def _within(points: np.ndarray, k: int, seed: int) -> float:
    """W_k. As many starts for a reference as for the points: with fewer, its W would be larger, and so would the gap of k > 1."""
    return max(float(_fit(points, k, seed).inertia_), 1e-300)


def _fit(points: np.ndarray, k: int, seed: int, *, n_init: int = 10) -> Any:
    from sklearn.cluster import KMeans

    return KMeans(k, n_init=n_init, random_state=derive_seed("k-means", seed, k) % 2**32).fit(points)  # pyright: ignore[reportArgumentType]


def _stability(points: np.ndarray, k: int, seed: int, *, n_bootstrap: int = N_BOOTSTRAP) -> float:
    from sklearn.metrics import adjusted_rand_score

    whole, random = _fit(points, k, seed).labels_, np.random.default_rng(derive_seed("stability of clusters", seed, k))
    found = []
    for _ in range(n_bootstrap):
        drawn = points[random.integers(len(points), size=len(points))]
        if len(np.unique(drawn, axis=0)) >= k:
            found.append(adjusted_rand_score(whole, _fit(drawn, k, seed, n_init=1).predict(points)))
    return float(np.mean(found)) if found else float("nan")


def _null_stability(points: np.ndarray, k: int, seed: int) -> float:
    return float(np.mean([_stability(_reference(points, seed, i), k, seed, n_bootstrap=10) for i in range(3)]))

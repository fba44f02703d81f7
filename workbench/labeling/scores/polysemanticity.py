"""Does a feature mean several things? Its contexts fall into clusters, or they are one cloud."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.base.randomness import derive_seed
from workbench.labeling.evidence import Context, FeatureEvidence
from workbench.labeling.words import nearby_words, without_stop_words

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

WINDOW = 7
MIN_SIZE = 3
MAX_CLUSTERS = 4
N_NULL = 199
N_DIMENSIONS = 5
LEVEL = 0.05
N_STARTS, N_STEPS = 5, 8


@dataclass(frozen=True)
class Sense:
    """One cluster of contexts: the words that stand out in it, and its contexts."""

    words: tuple[str, ...]
    contexts: tuple[Context, ...]

    @property
    def description(self) -> str:
        """The words, for people."""
        return ", ".join(self.words) or "no telling words"


@dataclass(frozen=True)
class Senses:
    """The senses of one feature, largest first; one when its contexts are not told from a single cloud.

    `silhouette` is the best mean silhouette width over 2 to 4 clusters (None with fewer than six contexts), `p` the share of
    single clouds that reach it.
    """

    feature: int
    senses: tuple[Sense, ...]
    silhouette: float | None
    p: float | None

    @property
    def is_polysemantic(self) -> bool:
        """The flag: more than one sense."""
        return len(self.senses) > 1

    def record(self) -> dict[str, Any]:
        """{polysemantic, p, silhouette, senses: [{words, n}]}."""
        senses = [{"words": list(sense.words), "n": len(sense.contexts)} for sense in self.senses]
        return {"polysemantic": self.is_polysemantic, "p": self.p, "silhouette": self.silhouette, "senses": senses}


def senses_of(
    evidence: FeatureEvidence,
    background: Counter[str],
    *,
    embed: Callable[[Sequence[str]], Tensor] | None = None,
    level: float = LEVEL,
    n_null: int = N_NULL,
    seed: int = 0,
) -> Senses:
    """The senses of a feature from the words around its peaks, k = 1 allowed.

    The texts within 7 tokens of each peak are embedded (MiniLM by default), scaled to unit length, reduced to their first 5
    principal components, and split by k-means into 2 to 4 clusters of at least 3 contexts each. The best mean silhouette width
    (Rousseeuw 1987) is compared with what it is on single clouds: as many draws from one Gaussian with the same covariance,
    treated in the same way from the principal components on, as in SigClust (Liu et al. 2008). Sixteen contexts in one cloud
    are split at p <= .05 in 3% of cases, two well separated groups always, overlapping ones in under half. The condition is
    that a single cloud be near to Gaussian: one with heavy tails is split more often (normal directions with log-normal
    lengths, sigma .5: 2% where the cloud is centred at 0, as unit length takes the lengths away, 28% where it lies far from 0;
    60 clouds of 16 points in 64 dimensions). Only if at most `level` of those draws reach it does the feature have several
    senses. `background` counts the words of everything that was read: a sense is named by the words most telling of it against
    the other senses and the background.
    """
    contexts = [context for context in evidence.contexts if not context.is_withheld]
    if len(contexts) < 2 * MIN_SIZE:
        return Senses(evidence.feature, _senses(contexts, [0] * len(contexts), background), None, None)
    vectors = _embedded(contexts, embed)
    generator_seed = derive_seed("senses", evidence.feature, seed)
    best, groups = best_split(_reduced(vectors), generator_seed)
    p = _p_value(vectors, best, n_null, generator_seed)
    groups = groups if p <= level else [0] * len(contexts)
    return Senses(evidence.feature, _senses(contexts, groups, background), round(best, 4), round(p, 4))


def best_split(points: np.ndarray, seed: int) -> tuple[float, list[int]]:
    """(best mean silhouette width, its clusters) over k = 2 to 4 with at least 3 points each; (-1, one cluster) without any."""
    widths, groups = best_splits(points[None], seed)
    return float(widths[0]), groups[0].tolist()


def best_splits(clouds: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The same for many sets of points [n_clouds, n, d] at once: widths [n_clouds], clusters [n_clouds, n]."""
    import numpy as np

    widths = np.full(len(clouds), -1.0)
    groups = np.zeros(clouds.shape[:2], dtype=int)
    distances = np.linalg.norm(clouds[:, :, None] - clouds[:, None], axis=-1)
    rng = np.random.default_rng(seed)
    for k in range(2, min(MAX_CLUSTERS, clouds.shape[1] // MIN_SIZE) + 1):
        for _ in range(N_STARTS):
            found = _k_means(clouds, k, rng)
            width = _silhouettes(distances, found, k)
            better = width > widths + 1e-12
            widths[better], groups[better] = width[better], found[better]
    return widths, groups


def _k_means(clouds: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Lloyd's clusters [n_clouds, n] from centres at `k` random points."""
    import numpy as np

    starts = rng.random(clouds.shape[:2]).argsort(1)[:, :k]
    centres = np.take_along_axis(clouds, starts[:, :, None], axis=1)
    for _ in range(N_STEPS):
        member = np.eye(k)[((clouds[:, :, None] - centres[:, None]) ** 2).sum(-1).argmin(2)]
        counts = member.sum(1)[:, :, None]
        centres = np.where(counts > 0, member.transpose(0, 2, 1) @ clouds / np.maximum(counts, 1), centres)
    return ((clouds[:, :, None] - centres[:, None]) ** 2).sum(-1).argmin(2)


def _silhouettes(distances: np.ndarray, groups: np.ndarray, k: int) -> np.ndarray:
    """Mean silhouette width [n_clouds]; -1 where a cluster has fewer than 3 points."""
    import numpy as np

    member = np.eye(k)[groups]
    counts = member.sum(1)[:, None]
    sums = distances @ member
    inside = (sums * member).sum(2) / np.maximum((counts * member).sum(2) - 1, 1)
    outside = np.where(member > 0, np.inf, sums / np.maximum(counts, 1)).min(2)
    widths = ((outside - inside) / np.maximum(np.maximum(outside, inside), 1e-12)).mean(1)
    return np.where(counts[:, 0].min(1) >= MIN_SIZE, widths, -1.0)


def _p_value(vectors: np.ndarray, observed: float, n_null: int, seed: int) -> float:
    """(1 + single clouds that split at least as well) / (1 + n_null). A cloud is n draws from a Gaussian with the covariance of
    `vectors` [n, d], reduced to principal components of its own, as the vectors were."""
    import numpy as np

    n = len(vectors)
    left, widths, _ = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    draws = np.random.default_rng(seed).standard_normal((n_null, n, n)) @ (left * widths) / np.sqrt(n - 1)
    clouds = _reduced(draws)
    return float(1 + (best_splits(clouds, seed)[0] >= observed).sum()) / (1 + n_null)


def _embedded(contexts: Sequence[Context], embed: Callable[[Sequence[str]], Tensor] | None) -> np.ndarray:
    if embed is None:
        from workbench.labeling.embedders import load_minilm

        embed = load_minilm()
    around = ["".join(c.tokens[max(c.peak - WINDOW, 0) : c.peak + WINDOW + 1]).strip() for c in contexts]
    vectors = embed(around).float()
    return (vectors / vectors.norm(dim=1, keepdim=True).clamp_min(1e-12)).cpu().numpy()


def _reduced(vectors: np.ndarray) -> np.ndarray:
    """Coordinates [..., n, at most 5] of vectors [..., n, d] along their first principal components."""
    import numpy as np

    left, widths, _ = np.linalg.svd(vectors - vectors.mean(-2, keepdims=True), full_matrices=False)
    return left[..., :N_DIMENSIONS] * widths[..., None, :N_DIMENSIONS]


def _senses(contexts: Sequence[Context], groups: Sequence[int], background: Counter[str]) -> tuple[Sense, ...]:
    order = [group for group, _ in Counter(groups).most_common()]
    members = [[c for c, group in zip(contexts, groups, strict=True) if group == wanted] for wanted in order]
    counts = [Counter(word for c in found for word in set(without_stop_words(nearby_words(c)))) for found in members]
    return tuple(
        Sense(_telling(counts[i], counts[:i] + counts[i + 1 :], background), tuple(found)) for i, found in enumerate(members)
    )


def _telling(own: Counter[str], others: Sequence[Counter[str]], background: Counter[str]) -> tuple[str, ...]:
    """Up to four words: in more of the sense's contexts than of the others', by log-odds against the background."""
    from workbench.labeling.explainers.offline import standing_out

    elsewhere: Counter[str] = sum(others, Counter())
    shared = {word for word in own if own[word] > elsewhere[word]}
    ranked = [word for word, _ in standing_out(own, background) if word in shared]
    return tuple(sorted(ranked, key=lambda word: -own[word])[:4])

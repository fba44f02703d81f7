"""How well scores tell two sets of contexts apart: AUROC and balanced accuracy, with intervals over documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.base.randomness import derive_seed

if TYPE_CHECKING:
    import numpy as np

MIN_CONTEXTS = 5
N_FOLDS = 5


@dataclass(frozen=True)
class Scored:
    """Scores [n] of contexts and the document of each."""

    values: tuple[float, ...]
    documents: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Separation:
    """How well two sets are told apart, each number with its 95% interval; chance is .5 for both."""

    auroc: float
    interval: tuple[float, float]
    balanced_accuracy: float
    balanced_interval: tuple[float, float]

    def record(self) -> dict[str, Any]:
        """{value, interval, balanced_accuracy, balanced_interval}, rounded to four decimals."""
        return {
            "value": round(self.auroc, 4),
            "interval": [round(end, 4) for end in self.interval],
            "balanced_accuracy": round(self.balanced_accuracy, 4),
            "balanced_interval": [round(end, 4) for end in self.balanced_interval],
        }


def separation(
    positives: Scored, negatives: Scored, *, threshold: float | None = None, n_bootstrap: int = 1000, seed: int = 0
) -> Separation | None:
    """AUROC and balanced accuracy of positives against negatives; None with fewer than 5 contexts on either side.

    AUROC = P(positive > negative) + P(tie) / 2. Balanced accuracy = (true positive rate + true negative rate) / 2 of the rule
    "score > threshold"; without a `threshold` each context is judged by the best one for the documents of the other four
    fifths (five folds by the hash of the document), never by its own. Intervals: percentiles of resampled documents, a document's
    contexts on both sides kept together.
    """
    import numpy as np

    if min(len(positives), len(negatives)) < MIN_CONTEXTS:
        return None
    wins = win_matrix(positives, negatives)
    right = correct(positives, negatives, threshold)
    rows, columns = document_weights(positives, negatives, n_bootstrap, seed)
    aurocs = ((rows @ wins) * columns).sum(1) / (rows.sum(1) * columns.sum(1))
    balanced = ((rows @ right[0]) / rows.sum(1) + (columns @ right[1]) / columns.sum(1)) / 2
    point = float((right[0].mean() + right[1].mean()) / 2)
    ends = [tuple(float(x) for x in np.quantile(found, (0.025, 0.975))) for found in (aurocs, balanced)]
    return Separation(float(wins.mean()), (ends[0][0], ends[0][1]), point, (ends[1][0], ends[1][1]))


def win_matrix(positives: Scored, negatives: Scored) -> np.ndarray:
    """[n_positives, n_negatives]: 1 where the positive scores higher, 1/2 at a tie; the mean is the AUROC."""
    import numpy as np

    difference = np.asarray(positives.values)[:, None] - np.asarray(negatives.values)[None, :]
    return (difference > 0) + 0.5 * (difference == 0)


def document_weights(
    positives: Scored, negatives: Scored, n_bootstrap: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """How often each context is drawn [n_bootstrap, n] when documents are resampled; draws that lose a side are left out."""
    import numpy as np

    names = {name: i for i, name in enumerate(dict.fromkeys((*positives.documents, *negatives.documents)))}
    counts = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=n_bootstrap)
    rows = counts[:, [names[name] for name in positives.documents]]
    columns = counts[:, [names[name] for name in negatives.documents]]
    whole = (rows.sum(1) > 0) & (columns.sum(1) > 0)
    return rows[whole].astype(float), columns[whole].astype(float)


def correct(positives: Scored, negatives: Scored, threshold: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Which contexts of each side the rule "score > threshold" gets right (0 or 1; 1/2 at the threshold itself)."""
    import numpy as np

    up, down = np.asarray(positives.values), np.asarray(negatives.values)
    if threshold is not None:
        return _above(up, threshold), 1 - _above(down, threshold)
    folds = [np.array([_fold(name) for name in side.documents]) for side in (positives, negatives)]
    right = np.zeros(len(up)), np.zeros(len(down))
    for fold in range(N_FOLDS):
        inside = folds[0] == fold, folds[1] == fold
        limit = best_threshold(up[~inside[0]], down[~inside[1]])
        right[0][inside[0]] = _above(up[inside[0]], limit)
        right[1][inside[1]] = 1 - _above(down[inside[1]], limit)
    return right


def best_threshold(positives: np.ndarray, negatives: np.ndarray) -> float:
    """The midpoint between two scores that gives the best balanced accuracy; the median of the best where several do."""
    import numpy as np

    values = np.unique(np.concatenate([positives, negatives]))
    if not len(positives) or not len(negatives) or len(values) < 2:
        return float(values[0]) if len(values) else 0.0
    limits = (values[1:] + values[:-1]) / 2
    rates = (positives[:, None] > limits).mean(0) + (negatives[:, None] < limits).mean(0)
    best = limits[rates >= rates.max() - 1e-12]
    return float(best[len(best) // 2])


def auroc(positives: Sequence[float], negatives: Sequence[float]) -> float:
    """The AUROC alone."""
    blank = ("",)
    up, down = (Scored(tuple(side), blank * len(side)) for side in (positives, negatives))
    return float(win_matrix(up, down).mean())


def _above(values: np.ndarray, limit: float) -> np.ndarray:
    return (values > limit) + 0.5 * (values == limit)


def _fold(document: str) -> int:
    return derive_seed("threshold fold", document) % N_FOLDS

"""From cosines to probabilities, "none of these" among the outcomes: two constants fitted on phrases, tested on held-out ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.display import Shown
from workbench.base.store import read_json

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

CALIBRATION = Path(__file__).parent / "data" / "calibration.json"
N_BINS = 10
NONE = -1
"""The target of a phrase that belongs to no category."""


@dataclass(frozen=True)
class Calibration:
    """P(category c) = exp(s_c / T) / (exp(b / T) + sum_c' exp(s_c' / T)), with s_c the cosine of the label with category c.

    `temperature` T > 0 says how sharply; `none_similarity` b is the cosine that a category must exceed to be likelier than
    "none of these", whose probability is the rest.
    """

    temperature: float
    none_similarity: float

    def probabilities(self, similarities: Tensor) -> Tensor:
        """`[n, C]` cosines -> `[n, C + 1]` probabilities (float64, rows sum to 1); the last column is "none of these"."""
        import torch

        none = torch.full((len(similarities), 1), self.none_similarity, dtype=torch.float64)
        return (torch.cat([similarities.double(), none], dim=1) / self.temperature).softmax(dim=1)


@lru_cache(maxsize=1)
def load_calibration() -> dict[str, Calibration]:
    """The fitted constants: "phrases" for taxonomies with example phrases, "words" for those without."""
    stored = read_json(CALIBRATION)["constants"]
    return {name: Calibration(**values) for name, values in stored.items()}


def fit_calibration(sets: Sequence[tuple[Tensor, Tensor]]) -> Calibration:
    """The maximum likelihood constants of several taxonomies together, each phrase weighing the same.

    Each set is (cosines `[n, C]`, targets `[n]`: the index of the category, or -1 for none). Newton-like minimisation of the
    log loss over (log T, b); the start is T = .05, b = .35.
    """
    import numpy as np
    from scipy.optimize import minimize

    n = sum(len(targets) for _, targets in sets)

    def loss(point: np.ndarray) -> float:
        now = Calibration(float(np.exp(point[0])), float(point[1]))
        return sum(_log_loss(now.probabilities(cosines), targets) for cosines, targets in sets) / n

    found = minimize(loss, [np.log(0.05), 0.35], method="BFGS", options={"gtol": 1e-7})
    return Calibration(float(np.exp(found.x[0])), float(found.x[1]))


def _log_loss(probabilities: Tensor, targets: Tensor) -> float:
    hit = probabilities.gather(1, column_of(targets, probabilities)[:, None])
    return -float(hit.clamp_min(1e-300).log().sum())


def column_of(targets: Tensor, probabilities: Tensor) -> Tensor:
    """The column of each target: its index, the last one for "none of these"."""
    return targets.where(targets != NONE, probabilities.shape[1] - 1)


@dataclass(frozen=True)
class Reliability:
    """How good the probabilities of held-out phrases are; intervals are 95%, from resampling phrases (all their rows together).

    `accuracy`: the likeliest outcome is the right one, among phrases of a category; `refused`: share of the phrases of nothing
    that no category is given to; `left_open`: share of the phrases of a category that none is given to; `accuracy_of_given`:
    share right where a category is given. A category is given when its probability is at least one half. `ece`: expected
    calibration error of the likeliest outcome, ten bins of equal width; `ece_by_chance`: the 95th percentile of what perfectly
    calibrated probabilities of these sizes get, which is never 0; `confidence` and `right`: means over all rows.
    """

    n: int
    n_none: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    refused: float
    refused_interval: tuple[float, float]
    left_open: float
    accuracy_of_given: float
    confidence: float
    right: float
    ece: float
    ece_interval: tuple[float, float]
    ece_by_chance: float
    log_loss: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, four decimals."""
        return {name: _rounded(value) for name, value in asdict(self).items()}


@dataclass(frozen=True, eq=False, repr=False)
class HeldOut(Shown):
    """Phrases of one taxonomy with what was said about them: `probabilities [n, C + 1]`, `targets [n]` (-1 for none)."""

    phrases: tuple[str, ...]
    probabilities: Tensor
    targets: Tensor


def reliability(held_out: Sequence[HeldOut], *, n_bootstrap: int = 1000, seed: int = 0) -> Reliability:
    """The figures of `Reliability` for one or several taxonomies together; a phrase in several of them is resampled as one."""
    import numpy as np

    rows = np.concatenate([_outcomes(item.probabilities, item.targets) for item in held_out])
    _, unit = np.unique([phrase for item in held_out for phrase in item.phrases], return_inverse=True)
    random, n_units = np.random.default_rng(seed), int(unit.max()) + 1
    drawn = random.multinomial(n_units, np.full(n_units, 1 / n_units), size=n_bootstrap)[:, unit].astype(float)
    found, resampled = _figures(rows, np.ones(len(rows))), [_figures(rows, weights) for weights in drawn]
    confidence = rows[:, 0]
    perfect = [expected_calibration_error(confidence, random.random(len(rows)) < confidence) for _ in range(n_bootstrap)]
    n_none = int(rows[:, 2].sum())
    return Reliability(
        n=len(rows) - n_none,
        n_none=n_none,
        accuracy_interval=_ends([one["accuracy"] for one in resampled]),
        refused_interval=_ends([one["refused"] for one in resampled]),
        ece_interval=_ends([one["ece"] for one in resampled]),
        ece_by_chance=float(np.quantile(perfect, 0.95)),
        **found,
    )


def _figures(rows: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    """The figures of rows as in `_outcomes`, each with a weight; NaN where nothing has weight."""
    confidence, right, is_none, given, loss = rows.T

    def mean(values: np.ndarray, among: np.ndarray) -> float:
        total = float((weights * among).sum())
        return float((weights * among * values).sum()) / total if total else math.nan

    return {
        "accuracy": mean(right, 1 - is_none),
        "refused": mean(1 - given, is_none),
        "left_open": mean(1 - given, 1 - is_none),
        "accuracy_of_given": mean(right, given),
        "confidence": mean(confidence, weights > 0),
        "right": mean(right, weights > 0),
        "ece": expected_calibration_error(confidence, right, weights),
        "log_loss": mean(loss, weights > 0),
    }


def expected_calibration_error(
    confidence: np.ndarray, right: np.ndarray, weights: np.ndarray | None = None, *, n_bins: int = N_BINS
) -> float:
    """sum over bins of (share of cases) x |share right - mean confidence|, bins of equal width on [0, 1]
    (Guo et al. 2017, "On Calibration of Modern Neural Networks", section 2); cases may be weighted."""
    import numpy as np

    weights = np.ones(len(confidence)) if weights is None else weights
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    gap = np.bincount(bins, weights=weights * (right.astype(float) - confidence), minlength=n_bins)
    return float(np.abs(gap).sum() / weights.sum())


def _outcomes(probabilities: Tensor, targets: Tensor) -> np.ndarray:
    """`[n, 5]`: confidence of the likeliest outcome, was it right, is it a phrase of nothing, is a category given, log loss."""
    import torch

    confidence, best = probabilities.max(dim=1)
    columns = column_of(targets, probabilities)
    given = (best < probabilities.shape[1] - 1) & (confidence >= 0.5)
    loss = -probabilities.gather(1, columns[:, None])[:, 0].clamp_min(1e-300).log()
    return torch.stack([confidence, best == columns, targets == NONE, given, loss], dim=1).double().numpy()


def _ends(values: Sequence[float]) -> tuple[float, float]:
    import numpy as np

    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)


def _rounded(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value

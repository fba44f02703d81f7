"""k-sparse probes: how well can a few features tell two classes of texts apart, beside raw activations and random dictionaries?

The k features with the largest standardised difference of class means on the training rows go into a logistic regression,
which is scored by its AUC on test rows; the raw probe is the same regression on all of `d_model`. Both choose their penalty
by cross-validation inside the training rows. Source: Gurnee et al. 2023 (arXiv 2305.01610); Kantamneni et al. 2025
(arXiv 2502.16681), whose finding that SAE probes seldom beat raw ones is why the raw probe stands beside every number. They
choose features by the plain difference of means, which depends on the scale that each feature happens to have, and so cannot
compare dictionaries of different scales.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.base.display import Shown

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.saes.evaluation.pooling import PooledRows

KS = (1, 2, 5, 16)
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse penalties C of the regression on standardised columns; the best in cross-validation is taken."""
N_FOLDS = 3
RAW = "raw"


@dataclass(frozen=True, eq=False, repr=False)
class Probe(Shown):
    """A fitted regression: score(x) = (x[:, features] - mean) / spread @ weight, higher for the positive class."""

    features: Tensor | None
    mean: Tensor
    spread: Tensor
    weight: Tensor

    def scores(self, x: Any) -> Tensor:
        """The scores `[n]` (float64) of rows `x [n, d]`, dense or CSR."""
        return (_columns(x, self.features).double() - self.mean) / self.spread @ self.weight


def fit_probe(
    x: Any, labels: Tensor, *, k: int | None = None, folds: Tensor | None = None
) -> Probe:
    """The probe on the `k` best features of the rows `x [n, d]` (all columns with None).

    `labels [n]` are bool; `folds [n]` says which rows are held out together when the penalty is chosen (default: every third
    row of a class, in turn). Rows of one class only give a probe that scores 0.
    """
    import torch

    features = None if k is None else top_features(x, labels, k)
    dense = _columns(x, features).double()
    mean, spread = dense.mean(0), dense.std(0).nan_to_num()
    spread = torch.where(spread > 1e-8, spread, torch.ones_like(spread))
    if bool(labels.all()) or not bool(labels.any()):
        return Probe(features, mean, spread, torch.zeros(dense.shape[1], dtype=torch.float64))
    scaled = (dense - mean) / spread
    penalty = _best_penalty(scaled, labels, class_folds(labels) if folds is None else folds)
    return Probe(features, mean, spread, _regression(scaled, labels, penalty))


def top_features(codes: Any, labels: Tensor, k: int) -> Tensor:
    """Indices `[k]` of the columns of `codes [n, d]` with the largest |mean of positives - mean of negatives| / deviation.

    The deviation is that of all rows, so that scaling a column changes nothing; a constant column comes last.
    """
    import torch

    deviation = _deviation(codes)
    size = mean_difference(codes, labels).abs() / torch.where(deviation > 0, deviation, torch.ones_like(deviation))
    return torch.where(deviation > 0, size, torch.zeros_like(size)).topk(min(k, codes.shape[1])).indices


def _deviation(codes: Any) -> Tensor:
    """Standard deviation of every column `[d]` (float64), 0 where it is only rounding."""
    import torch

    if isinstance(codes, torch.Tensor):
        mean, square = codes.double().mean(0), codes.double().square().mean(0)
    else:
        exact = codes.astype("float64")
        mean, square = (torch.from_numpy(part.mean(axis=0).A1) for part in (exact, exact.multiply(exact).tocsr()))
    variance = (square - mean.square()).clamp_min(0)
    return torch.where(variance > 1e-12 * square, variance, torch.zeros_like(variance)).sqrt()


def mean_difference(codes: Any, labels: Tensor) -> Tensor:
    """Mean of the positive rows minus mean of the negative ones `[d]` (float64); zero where a class is empty."""
    import torch

    positive = labels.cpu().numpy()
    if not positive.any() or positive.all():
        return torch.zeros(codes.shape[1], dtype=torch.float64)
    if isinstance(codes, torch.Tensor):
        return codes[labels].double().mean(0) - codes[~labels].double().mean(0)
    means = [torch.from_numpy(codes[rows].mean(axis=0).A1.astype("float64")) for rows in (positive, ~positive)]
    return means[0] - means[1]


def class_folds(labels: Tensor) -> Tensor:
    """Fold numbers `[n]` that spread each class evenly over `N_FOLDS`."""
    import torch

    folds = torch.zeros(len(labels), dtype=torch.int64)
    for side in (labels, ~labels):
        folds[side] = torch.arange(int(side.sum())) % N_FOLDS
    return folds


def probe_aucs(
    train: PooledRows, labels: Tensor, test: PooledRows, test_labels: Tensor, *, ks: Sequence[int] = KS
) -> dict[str, dict[str, float]]:
    """Test AUC per dictionary and k: {"raw": {"all": ...}, <SAE name>: {"1": ..., "2": ...}, ...}."""
    from workbench.maths.statistics import auc

    found = {RAW: {"all": float(auc(fit_probe(train.raw, labels).scores(test.raw), test_labels))}}
    for name, codes in train.codes.items():
        found[name] = {
            str(k): float(auc(fit_probe(codes, labels, k=k).scores(test.codes[name]), test_labels)) for k in ks
        }
    return found


def mean_over_sets(per_set: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """The plain mean over sets of `probe_aucs`."""
    sets = list(per_set.values())
    return {
        name: {k: sum(one[name][k] for one in sets) / len(sets) for k in sets[0][name]} for name in (sets[0] if sets else {})
    }


def _best_penalty(x: Tensor, labels: Tensor, folds: Tensor) -> float:
    """The C with the highest mean AUC over the folds that hold both classes; the middle one where none does."""
    import torch

    from workbench.maths.statistics import auc

    totals = dict.fromkeys(PENALTIES, 0.0)
    for fold in folds.unique():
        held = folds == fold
        if any(len(labels[part].unique()) < 2 for part in (held, ~held)):
            continue
        for penalty in PENALTIES:
            weight = _regression(x[~held], labels[~held], penalty)
            totals[penalty] += float(auc(torch.as_tensor(x[held] @ weight), labels[held]))
    best = max(totals, key=lambda penalty: (round(totals[penalty], 9), -penalty))
    return best if totals[best] else PENALTIES[len(PENALTIES) // 2]


def _regression(x: Tensor, labels: Tensor, penalty: float) -> Tensor:
    """Logistic weights `[d]` (float64); the intercept does not change an AUC and is dropped."""
    import torch
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 300 steps order the rows well enough
        fitted = LogisticRegression(C=penalty, max_iter=300).fit(x.numpy(), labels.numpy())
    return torch.from_numpy(fitted.coef_[0]).double()


def _columns(x: Any, features: Tensor | None) -> Tensor:
    import torch

    if isinstance(x, torch.Tensor):
        return x if features is None else x[:, features]
    return torch.from_numpy(x.toarray() if features is None else x[:, features.numpy()].toarray())

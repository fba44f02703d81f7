"""How far a judge's scores agree with labels: rank measures, calibration, and who is right at the filter's threshold.

Every figure has a 95% interval: that of the 2.5th and 97.5th percentile over `N_BOOTSTRAP` resamples of the rows (one
seed, one set of resamples for all measures), Wilson's where the figure is a plain share.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from workbench.maths.statistics import auc, bootstrap_counts, percentile_interval, weighted_auc
from workbench.personas.judging import THRESHOLD

N_BOOTSTRAP = 2000
MIN_RANKED = 3
"""Rows below which a rank correlation is not stated."""


def resamples(n_rows: int, seed: int) -> Tensor:
    """How often each row is drawn: float64 `[N_BOOTSTRAP, n_rows]`, the same for the same seed."""
    return bootstrap_counts(n_rows, N_BOOTSTRAP, torch.Generator().manual_seed(seed))


def interval_of(replicates: Tensor) -> list[float]:
    """[low, high] of bootstrap replicates; those that are undefined (NaN) are left out."""
    low, high = percentile_interval(replicates)
    return [float(low), float(high)]


def share(passed: Tensor) -> tuple[float | None, list[float] | None]:
    """The share of True and its Wilson interval; None for no rows."""
    from scipy.stats import binomtest

    if not len(passed):
        return None, None
    low, high = binomtest(int(passed.sum()), len(passed)).proportion_ci(method="wilson")
    return float(passed.double().mean()), [float(low), float(high)]


def auroc(scores: Tensor, labels: Tensor, seed: int) -> dict[str, Any]:
    """{n, n_positive, auroc, interval}; the last two are None when a class is empty."""
    n_positive = int(labels.sum())
    counts = {"n": len(labels), "n_positive": n_positive}
    if n_positive in (0, len(labels)):
        return {**counts, "auroc": None, "interval": None}
    replicates = weighted_auc(scores, labels, resamples(len(labels), seed))
    return {**counts, "auroc": float(auc(scores, labels)), "interval": interval_of(replicates)}


def spearman(scores: Tensor, human: Tensor, seed: int) -> dict[str, Any]:
    """{spearman, spearman_interval} of two columns `[n]`; both None under three rows or where one column is constant.

    Every replicate ranks its own rows anew, ties at their mean rank.
    """
    if len(scores) < MIN_RANKED or any(bool((column == column[0]).all()) for column in (scores, human)):
        return {"spearman": None, "spearman_interval": None}
    rows = _drawn_rows(resamples(len(scores), seed))
    whole, replicates = (_rank_correlations(scores[of], human[of]) for of in (torch.arange(len(scores))[None], rows))
    return {"spearman": float(whole), "spearman_interval": interval_of(replicates)}


def _drawn_rows(counts: Tensor) -> Tensor:
    """Row numbers `[B, n]` of resamples given as counts `[B, n]`."""
    numbers = torch.arange(counts.shape[1]).repeat(len(counts))
    return numbers.repeat_interleave(counts.long().flatten()).view(counts.shape)


def _rank_correlations(first: Tensor, second: Tensor) -> Tensor:
    """Spearman's r of each row `[B]` of two `[B, n]`; NaN where a row is constant."""
    from scipy.stats import rankdata

    ranks = (torch.from_numpy(rankdata(values.numpy(), axis=1)) for values in (first, second))
    one, two = (values - values.mean(dim=1, keepdim=True) for values in ranks)
    return (one * two).sum(dim=1) / (one.square().sum(dim=1) * two.square().sum(dim=1)).sqrt()


def at_threshold(scores: Tensor, labels: Tensor) -> dict[str, Any]:
    """Who is right where the filter cuts: {sensitivity_at_50, sensitivity_interval, specificity_at_50, ...}.

    Sensitivity: the share of labelled rows at 50 or more. Specificity: the share of the others below. Scores that know
    nothing make the two sum to 1.
    """
    found: dict[str, Any] = {}
    sides = {"sensitivity": scores[labels] >= THRESHOLD, "specificity": scores[~labels] < THRESHOLD}
    for name, right in sides.items():
        found[f"{name}_at_50"], found[f"{name}_interval"] = share(right)
    return found


def calibration(scores: Tensor, labels: Tensor, seed: int, n_bins: int = 5) -> dict[str, Any] | None:
    """Both classes weighing the same: {brier, ece, ece_interval, bins}; None when a class is empty.

    ece = sum_b w_b |mean score_b / 100 - share of labelled rows_b| over `n_bins` equal bins of the score. It is 0 for a
    score that always says 50: read it beside AUROC. Resampling adds noise to every bin, so the interval leans upward.
    """
    if int(labels.sum()) in (0, len(labels)):
        return None
    inside = (scores / 100 * n_bins).long().clamp_max(n_bins - 1)
    member = torch.nn.functional.one_hot(inside, n_bins).double()
    gaps = scores / 100 - labels.double()
    weights = _balanced(torch.ones(1, len(labels), dtype=torch.float64), labels)[0]

    def ece(rows: Tensor) -> Tensor:
        return ((rows * gaps) @ member).abs().sum(dim=-1)

    return {
        "brier": float((weights * gaps.square()).sum()),
        "ece": float(ece(weights)),
        "ece_interval": interval_of(ece(_balanced(resamples(len(labels), seed), labels))),
        "bins": [_bin(100 * number / n_bins, mask, weights, scores, labels)
                 for number, mask in enumerate(member.T.bool()) if mask.any()],
    }  # fmt: skip


def _balanced(counts: Tensor, labels: Tensor) -> Tensor:
    """Row weights `[B, n]` that give either class half; NaN in a replicate without one of them."""
    halves = [0.5 / counts[:, side].sum(dim=1, keepdim=True) for side in (labels, ~labels)]
    return counts * torch.where(labels, *halves)


def _bin(start: float, mask: Tensor, weights: Tensor, scores: Tensor, labels: Tensor) -> dict[str, Any]:
    mass = float(weights[mask].sum())
    return {"from": start, "n": int(mask.sum()), "weight": mass, "mean_score": float((weights * scores)[mask].sum() / mass),
            "share_trait": float(weights[mask & labels].sum() / mass)}  # fmt: skip

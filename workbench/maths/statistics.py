"""Areas under the curve, crossed bootstraps, rank p-values and false discovery control, all batched.

Conventions: higher scores point toward the trait; `labels` is True for the trait's arm; a leading axis `k` holds
independent sets of scores and a leading axis `B` holds bootstrap replicates.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import torch
from torch import Tensor


def auc(scores: Tensor, labels: Tensor) -> Tensor:
    """The area under the ROC curve of every row of `scores [k, n]` (or `[n]`) for `labels [n]`: float64 `[k]` (or 0-d).

    AUC = P(s+ > s-) + P(s+ = s-) / 2 over all pairs of a positive and a negative row, that is the Mann-Whitney U
    over its maximum, so ties count half. `auc(-s) = 1 - auc(s)` exactly.

    Raises ValueError when the lengths differ, when a class is empty or when a score is not finite.

    >>> auc(torch.tensor([0.1, 0.4, 0.4, 0.9]), torch.tensor([False, False, True, True])).item()
    0.875
    """
    rows = scores if scores.ndim == 2 else scores[None]
    labels = _checked_labels(rows, labels)
    positives, negatives = rows[:, labels].contiguous(), rows[:, ~labels].sort(dim=1).values.contiguous()
    below = torch.searchsorted(negatives, positives, right=False)
    not_above = torch.searchsorted(negatives, positives, right=True)
    wins = (below + not_above).sum(dim=1).double() / 2
    areas = wins / (positives.shape[1] * negatives.shape[1])
    return areas if scores.ndim == 2 else areas[0]


def weighted_auc(scores: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """The AUC of `scores [n]` under row weights `weights [B, n] >= 0`: float64 `[B]`.

    AUC_b = sum_{i in +, j in -} w_bi w_bj ([s_i > s_j] + [s_i = s_j] / 2) / sum_{i in +, j in -} w_bi w_bj; NaN for a
    replicate in which one class has no weight. With unit weights it equals `auc`.
    """
    labels = _checked_labels(scores[None], labels)
    positives, negatives = scores[labels][:, None], scores[~labels][None]
    wins = (positives > negatives).double() + 0.5 * (positives == negatives).double()
    up, down = weights[:, labels].double(), weights[:, ~labels].double()
    return ((up @ wins) * down).sum(dim=1) / (up.sum(dim=1) * down.sum(dim=1))


def _checked_labels(rows: Tensor, labels: Tensor) -> Tensor:
    labels = torch.as_tensor(labels, dtype=torch.bool, device=rows.device)
    if labels.ndim != 1 or labels.shape[0] != rows.shape[1]:
        raise ValueError(
            f"{rows.shape[1]} scores per set but labels of shape {tuple(labels.shape)}: one label per score is needed."
        )
    if not labels.any() or labels.all():
        raise ValueError(
            f"All {labels.shape[0]} labels are {bool(labels.any())}: an AUC needs rows of both classes."
        )
    if not torch.isfinite(rows).all():
        raise ValueError("Some scores are NaN or infinite: an AUC needs finite scores.")
    return labels


def category_codes(values: Sequence[Hashable]) -> Tensor:
    """Integer codes `[n]` (int64) for arbitrary labels, in order of first appearance."""
    seen: dict[Hashable, int] = {}
    return torch.tensor([seen.setdefault(value, len(seen)) for value in values], dtype=torch.int64)


def bootstrap_counts(n_items: int, n_bootstrap: int, generator: torch.Generator, *, n_drawn: int | None = None) -> Tensor:
    """How often each of `n_items` is drawn with replacement in `n_drawn` draws (default n_items): `[n_bootstrap, n_items]`.

    With few items n_items - 1 draws keep the variance of a mean from coming out too small by (n_items - 1) / n_items.
    """
    drawn = torch.randint(n_items, (n_bootstrap, n_items if n_drawn is None else n_drawn), generator=generator)
    return torch.zeros(n_bootstrap, n_items, dtype=torch.float64).scatter_add_(
        1, drawn, torch.ones_like(drawn, dtype=torch.float64)
    )


def crossed_bootstrap_weights(
    questions: Sequence[Hashable],
    instructions: Sequence[Hashable],
    n_bootstrap: int,
    generator: torch.Generator,
) -> Tensor:
    """Row multiplicities of a bootstrap over questions crossed with instructions: float64 `[n_bootstrap, n_rows]`.

    Questions and instructions are resampled with replacement independently; a row counts (times its question was
    drawn) x (times its instruction was drawn), the pigeonhole bootstrap of Owen (2007), which does not understate
    the variance when rows share a question or an instruction. The same generator state gives the same weights.
    """
    if len(questions) != len(instructions) or not len(questions):
        raise ValueError(
            f"{len(questions)} questions and {len(instructions)} instructions: one of each per row is needed."
        )
    question, instruction = category_codes(questions), category_codes(instructions)
    by_question = bootstrap_counts(int(question.max()) + 1, n_bootstrap, generator)
    by_instruction = bootstrap_counts(int(instruction.max()) + 1, n_bootstrap, generator)
    return by_question[:, question] * by_instruction[:, instruction]


def percentile_interval(replicates: Tensor, *, level: float = 0.95, dim: int = 0) -> tuple[Tensor, Tensor]:
    """The (low, high) percentile interval of bootstrap `replicates` along `dim`, NaN replicates left out."""
    tail = (1 - level) / 2
    quantiles = torch.tensor([tail, 1 - tail], dtype=replicates.dtype)
    low, high = torch.nanquantile(replicates, quantiles, dim=dim)
    return low, high


def basic_interval(
    replicates: Tensor, estimate: Tensor | float, *, level: float = 0.95, dim: int = 0
) -> tuple[Tensor, Tensor]:
    """The (low, high) basic interval (2 e - q_high, 2 e - q_low) of an `estimate` e, from the percentiles q of its replicates.

    It takes out the bias of the estimate, which the percentile interval doubles: where noise pushes the estimate up, it pushes
    the replicates up again. It may leave the estimate outside. Source: Davison and Hinkley 1997, "Bootstrap Methods and their
    Application", section 5.2.
    """
    low, high = percentile_interval(replicates, level=level, dim=dim)
    return 2 * estimate - high, 2 * estimate - low


def rank_p(observed: Tensor | float, null: Tensor) -> Tensor:
    """One-sided rank p-value of `observed [...]` against `null [R]` or `[..., R]`: (1 + #{null >= observed}) / (1 + R).

    Never 0; valid when observed and null are exchangeable under the hypothesis (Phipson and Smyth 2010).
    """
    value = torch.as_tensor(observed, dtype=torch.float64)
    exceed = (null.double() >= value[..., None]).sum(dim=-1)
    return (1 + exceed).double() / (1 + null.shape[-1])


def benjamini_hochberg(p_values: Tensor) -> Tensor:
    """Benjamini-Hochberg q-values `[n]` (float64) by `scipy.stats.false_discovery_control`; NaN stays NaN.

    q <= .05 keeps the expected share of false discoveries under .05 for independent or positively dependent tests.
    """
    from scipy.stats import false_discovery_control

    p = p_values.detach().cpu().double().numpy()
    q, known = np.full_like(p, np.nan), ~np.isnan(p)
    if known.any():
        q[known] = false_discovery_control(p[known])
    return torch.from_numpy(q)

"""How well a mean-difference direction separates two classes on held-out rows, recomputed inside every
replicate.

Conventions: `positive` is True for the trait's arm; a leading axis `B` holds bootstrap replicates; weights
are >= 0.
"""

from __future__ import annotations

import torch
from torch import Tensor


def balanced_contrast_weights(
    question: Tensor, positive: Tensor, base: Tensor, question_weight: Tensor | None = None
) -> Tensor:
    """Signed row weights `[B, n]` of a question-balanced mean difference: v = sum_i weight_i x_i.

    question: codes `[n]`; positive: bool `[n]`; base: row weights `[B, n]` (0 leaves a row out; a bootstrap
    passes the multiplicities of the instructions); question_weight: `[B, n_questions]`, 1 by default. A
    question counts if both arms have weight in it, and then

        weight_i = +- (m_q / sum_q' m_q') * base_i / sum_{j in question and arm of i} base_j

    so the positive weights sum to 1 and the negative ones to -1. A replicate without any such question gives
    zeros.
    """
    base = base.double()
    n_questions = int(question.max()) + 1 if len(question) else 0
    member = torch.nn.functional.one_hot(question, n_questions).double()
    arms = torch.stack((positive, ~positive)).double()
    totals = torch.einsum("bn,an,nq->abq", base, arms, member)
    valid = (totals > 0).all(dim=0).double()
    mass = valid if question_weight is None else valid * question_weight.double()
    mass = mass / mass.sum(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    per_row = torch.einsum("an,abq,nq->bn", arms, _safe_inverse(totals) * mass, member)
    return base * per_row * (arms[0] - arms[1])


def _safe_inverse(values: Tensor) -> Tensor:
    return torch.where(
        values > 0, 1 / values.clamp_min(torch.finfo(torch.float64).tiny), torch.zeros_like(values)
    )


def replicated_auc(scores: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Weighted AUC of replicate b with its own scores: `scores [B, n]`, `labels [n]`, `weights [B, n] >= 0`
    -> float64 `[B]`.

    AUC_b = sum_{i in +, j in -} w_bi w_bj ([s_bi > s_bj] + [s_bi = s_bj] / 2) / sum_{i in +, j in -} w_bi
    w_bj; NaN where one class has no weight. Sorting makes it O(n log n) per replicate; ties are counted
    exactly.
    """
    negatives, order = scores[:, ~labels].sort(dim=1)
    down = weights[:, ~labels].double().gather(1, order)
    below = torch.nn.functional.pad(down.cumsum(dim=1), (1, 0))
    positives, up = scores[:, labels].contiguous(), weights[:, labels].double()
    left = torch.searchsorted(negatives.contiguous(), positives, right=False)
    right = torch.searchsorted(negatives.contiguous(), positives, right=True)
    wins = (below.gather(1, left) + below.gather(1, right)) / 2
    return (up * wins).sum(dim=1) / (up.sum(dim=1) * down.sum(dim=1))


def covariance_matched_directions(
    activations: Tensor, n_directions: int, generator: torch.Generator
) -> Tensor:
    """Random directions `[n_directions, d_model]`, each drawn from N(0, Sigma), Sigma = covariance of
    `activations [n, d_model]`.

    Drawn as z (X - mean) / sqrt(n - 1) with standard normal z `[n_directions, n]`: exact, without ever
    forming Sigma. Not normalised: an AUC does not depend on the length.
    """
    centred = activations.float() - activations.float().mean(dim=0)
    draws = torch.randn(n_directions, len(centred), generator=generator)
    return draws @ centred / max(len(centred) - 1, 1) ** 0.5

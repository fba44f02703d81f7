"""An axis carried from one model to another by a linear map that saw the roles and not the default assistant."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from workbench.base.randomness import derive_seed, generator
from workbench.maths.similarity import PENALTIES
from workbench.maths.statistics import rank_p

N_PERMUTATIONS = 200


def carried_axis(a: Tensor, default_a: Tensor, b: Tensor, default_b: Tensor, *, seed: int = 0) -> dict[str, Any]:
    """Ridge from the roles `a [n, d_a]` to the same roles `b [n, d_b]`: {cos, null_q95, p, r2, r2_null_q95, r2_p, penalty}.

    cos: between the image of default_a - mean(a) and default_b - mean(b); the map never saw a default. r2: of each role predicted
    by a map without it, over all dimensions; the penalty is the one with the largest. Null: the same with the roles of b
    permuted, penalty chosen again. Only what lies in the span of the roles can be carried.
    """
    one, other = (side.double() - side.double().mean(dim=0) for side in (a, b))
    ahead, wanted = default_a.double() - a.double().mean(dim=0), default_b.double() - b.double().mean(dim=0)
    gram = one @ one.T
    values, basis = torch.linalg.eigh(gram)
    shrunk = [values / (values + penalty * values.sum()) for penalty in PENALTIES]  # n penalty x mean eigenvalue
    inverses = [torch.where(values > 1e-12 * values.max(), hat / values.clamp_min(1e-300), 0.0) for hat in shrunk]
    hats = [basis @ (hat[:, None] * basis.T) + 1 / len(a) for hat in shrunk]
    along = (ahead @ one.T) @ basis

    def fitted(target: Tensor) -> tuple[float, float, int]:
        found = [_left_out_r2(hat, target) for hat in hats]
        best = max(range(len(found)), key=lambda i: found[i])
        image = (along * inverses[best]) @ (basis.T @ target)
        return float(torch.cosine_similarity(image, wanted, dim=0)), found[best], best

    cosine, r2, best = fitted(other)
    random = generator(derive_seed("carried axis", seed))
    null = [fitted(other[torch.randperm(len(a), generator=random)])[:2] for _ in range(N_PERMUTATIONS)]
    cosines, r2s = (torch.tensor(side, dtype=torch.float64) for side in zip(*null, strict=True))
    return {
        "cos": cosine, "null_q95": float(torch.quantile(cosines, 0.95)), "p": float(rank_p(cosine, cosines)), "r2": r2,
        "r2_null_q95": float(torch.quantile(r2s, 0.95)), "r2_p": float(rank_p(r2, r2s)), "penalty": PENALTIES[best],
    }  # fmt: skip


def _left_out_r2(hat: Tensor, target: Tensor) -> float:
    """1 - squared error of every row predicted without it / squared error of the mean of the others."""
    n = len(target)
    errors = (target - hat @ target) / (1 - hat.diagonal().clamp_max(1 - 1e-9))[:, None]
    plain = target * n / (n - 1)
    return 1 - float(errors.square().sum() / plain.square().sum())

"""How alike two sets of representations of the same items are, and the linear map between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Linear centred kernel alignment of `x [n, d_x]` and `y [n, d_y]`, rows being the same items; between 0 and 1.

    CKA = |Y' X|_F^2 / (|X' X|_F |Y' Y|_F) on centred columns (Kornblith et al. 2019, arXiv 1905.00414, section 3). Unchanged by
    rotation and by scaling of either side. With few items and many dimensions it is large for unrelated data: compare
    it with permuted items.
    """
    x, y = _centred(x, y)
    return float((y.T @ x).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm()))


def rsa(x: Tensor, y: Tensor) -> float:
    """Representational similarity: the Spearman correlation of the two sets' pairwise cosine distances (centred columns).

    Source: Kriegeskorte et al. 2008. Between -1 and 1; 0 is expected for unrelated representations.
    """
    from scipy.stats import spearmanr

    x, y = _centred(x, y)
    upper = torch.triu_indices(len(x), len(x), offset=1)
    distances = []
    for side in (x, y):
        unit = torch.nn.functional.normalize(side, dim=1)
        distances.append((1 - unit @ unit.T)[upper[0], upper[1]].numpy())
    return float(spearmanr(*distances)[0])  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True, eq=False)
class RidgeMap:
    """y ~ mean_y + (x - mean_x) weight, with `weight [d_x, d_y]`; a direction is carried over by `weight` alone.

    `penalty` is in units of the mean eigenvalue of x's covariance; `r2` is on rows kept out of the fit.
    """

    weight: Tensor
    penalty: float
    r2: float
    n_rows: int

    def directions(self, vectors: Tensor) -> Tensor:
        """The images `[n, d_y]` of directions `[n, d_x]`."""
        return (vectors.double() @ self.weight).float()


def ridge_map(
    x: Tensor,
    y: Tensor,
    *,
    penalties: Sequence[float] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0),
    held_out: float = 0.2,
    generator: torch.Generator,
) -> RidgeMap:
    """The linear map from `x [n, d_x]` to `y [n, d_y]`, its penalty chosen on held-out rows (the last fit uses the others).

    weight = (X'X + n penalty s I)^-1 X'Y on centred columns, s = mean eigenvalue of X'X / n.
    """
    if len(x) != len(y) or len(x) < 10:
        raise ValueError(f"A map needs the same items on both sides (10 or more): found {len(x)} and {len(y)} rows.")
    order = torch.randperm(len(x), generator=generator)
    n_test = max(1, round(held_out * len(x)))
    test, train = order[:n_test], order[n_test:]
    fitted, tested = ((side.double()[rows] for side in (x, y)) for rows in (train, test))
    (fx, fy), (tx, ty) = fitted, tested
    mean_x, mean_y = fx.mean(dim=0), fy.mean(dim=0)
    values, basis = torch.linalg.eigh((fx - mean_x).T @ (fx - mean_x) / len(fx))
    moment = basis.T @ ((fx - mean_x).T @ (fy - mean_y) / len(fx))
    best: tuple[float, float, Tensor] | None = None
    for penalty in penalties:
        weight = basis @ (moment / (values + penalty * values.mean())[:, None])
        residual = ty - mean_y - (tx - mean_x) @ weight
        r2 = float(1 - residual.square().sum() / (ty - mean_y).square().sum())
        if best is None or r2 > best[0]:
            best = (r2, penalty, weight)
    assert best is not None
    return RidgeMap(best[2], best[1], best[0], len(train))


def _centred(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if len(x) != len(y):
        raise ValueError(f"The rows must be the same items: found {len(x)} and {len(y)}.")
    x, y = x.double(), y.double()
    return x - x.mean(dim=0), y - y.mean(dim=0)

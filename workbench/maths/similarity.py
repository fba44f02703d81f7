"""How alike two sets of representations of the same items are, and the linear map between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
ASIDE = 0.1  # of the rows choose the penalty, and as many again tell how good the map is
_BLOCK = 50  # permuted maps at a time, which bounds memory


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Linear centred kernel alignment of `x [n, d_x]` and `y [n, d_y]`, rows being the same items; between 0 and 1.

    CKA = <K, L> / (|K| |L|) with K = X X', L = Y Y' on centred columns, that is |Y' X|_F^2 / (|X' X|_F |Y' Y|_F)
    (Kornblith et al. 2019, arXiv 1905.00414, section 3). Unchanged by rotation and by scaling of either side. With few
    items and many dimensions it is large for unrelated data: compare it with permuted items.
    """
    _check_same_items(x, y)
    return float(cka_profile(x) @ cka_profile(y))


def rsa(x: Tensor, y: Tensor) -> float:
    """Representational similarity: the Spearman correlation of the two sets' pairwise cosine distances (centred columns).

    Source: Kriegeskorte et al. 2008. Between -1 and 1; 0 is expected for unrelated representations.
    """
    _check_same_items(x, y)
    return float(rsa_profile(x) @ rsa_profile(y))


def cka_profile(x: Tensor) -> Tensor:
    """The unit vector `[n (n + 1) / 2]` (float64) whose inner product with that of other representations is their CKA.

    The upper triangle of the centred Gram matrix with its diagonal; what stands off the diagonal counts twice.
    """
    centred = x.double() - x.double().mean(dim=0)
    i, j = torch.triu_indices(len(x), len(x))
    entries = (centred @ centred.T)[i, j] * torch.where(i == j, 1.0, 2**0.5)
    return torch.nn.functional.normalize(entries, dim=0)


def rsa_profile(x: Tensor) -> Tensor:
    """The unit vector `[n (n - 1) / 2]` (float64) whose inner product with that of other representations is their RSA.

    The centred ranks of the pairwise cosine distances, ties sharing their mean rank.
    """
    from scipy.stats import rankdata

    unit = torch.nn.functional.normalize(x.double() - x.double().mean(dim=0), dim=1)
    i, j = torch.triu_indices(len(x), len(x), offset=1)
    ranks = torch.from_numpy(rankdata((1 - unit @ unit.T)[i, j].numpy()))
    return torch.nn.functional.normalize(ranks - ranks.mean(), dim=0)


def pair_order(order: Tensor, *, diagonal: bool) -> Tensor:
    """Where every pair goes when the items are put in `order [n]`: profile(x[order]) = profile(x)[pair_order(order)].

    diagonal: whether the profile holds the pairs of an item with itself (CKA does, RSA does not).
    """
    i, j = torch.triu_indices(len(order), len(order), offset=0 if diagonal else 1)
    place = torch.zeros(len(order), len(order), dtype=torch.int64)
    place[i, j] = place[j, i] = torch.arange(len(i))
    return place[order[i], order[j]]


@dataclass(frozen=True, eq=False)
class RidgeMap:
    """y ~ mean_y + (x - mean_x) weight, with `weight [d_x, d_y]`; a direction is carried over by `weight` alone.

    `penalty` is in units of the mean eigenvalue of x's covariance; `r2` is on rows that neither the fit nor the choice of
    the penalty has seen; `n_rows` were fitted, `n_aside` chose the penalty and as many again gave r2.
    """

    weight: Tensor
    penalty: float
    r2: float
    n_rows: int
    n_aside: int

    def directions(self, vectors: Tensor) -> Tensor:
        """The images `[n, d_y]` of directions `[n, d_x]`."""
        return (vectors.double() @ self.weight).float()


def n_aside(n: int) -> int:
    """How many of `n` rows choose the penalty, and how many again are kept for r2; n - 2 n_aside(n) are fitted."""
    return max(1, round(ASIDE * n))


class Ridge:
    """The linear map from `x [n, d_x]` to `y [n, d_y]`, and the same map for permuted y, on one decomposition of x.

    weight = (X'X + n penalty s I)^-1 X'Y on centred columns, s = mean eigenvalue of X'X / n. The rows are divided at
    random in three: one part is fitted, one chooses the penalty, one tells r2.
    """

    def __init__(
        self, x: Tensor, y: Tensor, *, penalties: Sequence[float] = PENALTIES, generator: torch.Generator
    ) -> None:
        if len(x) != len(y) or len(x) < 10:
            raise ValueError(f"A map needs the same items on both sides (10 or more): found {len(x)} and {len(y)} rows.")
        order, aside = torch.randperm(len(x), generator=generator), n_aside(len(x))
        parts = [(x[rows].double(), y[rows].double()) for rows in order.split([aside, aside, len(x) - 2 * aside])]
        means = [side.mean(dim=0) for side in parts[2]]
        self._choose, self._tell, (self._x, self._y) = (
            tuple(side - mean for side, mean in zip(part, means, strict=True)) for part in parts
        )
        self.penalties, self.n_rows, self.n_aside = tuple(penalties), len(self._x), aside
        values, self._basis = torch.linalg.eigh(self._x.T @ self._x / self.n_rows)
        self._shrunk = values + torch.tensor(self.penalties, dtype=torch.float64)[:, None] * values.mean()  # [n_penalties, d_x]

    def map(self, order: Tensor | None = None) -> RidgeMap:
        """The map with the best penalty; with `order [n_rows]` that of the fitted rows of y put in this order."""
        y = self._y if order is None else self._y[order]
        moment = self._basis.T @ (self._x.T @ y) / self.n_rows
        weights = [self._basis @ (moment / shrunk[:, None]) for shrunk in self._shrunk]
        best = max(range(len(weights)), key=lambda i: _r2(weights[i], *self._choose))
        r2 = _r2(weights[best], *self._tell)
        return RidgeMap(weights[best], self.penalties[best], r2, self.n_rows, self.n_aside)

    def permuted_images(self, vectors: Tensor, n_maps: int, generator: torch.Generator) -> Iterator[Tensor]:
        """Blocks `[b, n_penalties, v, d_y]` of what maps of permuted y make of `vectors [v, d_x]`, n_maps in all.

        v weight = (v (X'X / n + penalty s I)^-1 X' / n) Y: the bracket, one number per row, is all that meets the
        permutation, so that no map is ever formed.
        """
        rotated = vectors.double() @ self._basis
        per_row = (rotated / self._shrunk[:, None]) @ self._basis.T @ self._x.T / self.n_rows
        for start in range(0, n_maps, _BLOCK):
            block = range(start, min(start + _BLOCK, n_maps))
            orders = torch.stack([torch.randperm(self.n_rows, generator=generator).argsort() for _ in block])
            yield (per_row[:, :, orders] @ self._y).permute(2, 0, 1, 3)


def ridge_map(
    x: Tensor, y: Tensor, *, penalties: Sequence[float] = PENALTIES, generator: torch.Generator
) -> RidgeMap:
    """The linear map from `x [n, d_x]` to `y [n, d_y]`: see `Ridge`."""
    return Ridge(x, y, penalties=penalties, generator=generator).map()


def _r2(weight: Tensor, x: Tensor, y: Tensor) -> float:
    return float(1 - (y - x @ weight).square().sum() / y.square().sum())


def _check_same_items(x: Tensor, y: Tensor) -> None:
    if len(x) != len(y):
        raise ValueError(f"The rows must be the same items: found {len(x)} and {len(y)}.")

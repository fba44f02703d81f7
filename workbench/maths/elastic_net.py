"""The elastic-net path of a vector on a large dictionary, exact although only a few rows are ever solved for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .geometry import check_widths, projections, reciprocal, row_norms

WORKING_ROWS = 256  # rows to solve for at first, and to add at a time
N_PENALTIES, SMALLEST = 100, 0.05


@dataclass(frozen=True, eq=False)
class ElasticNetPath:
    """The solutions for each of `n` vectors at falling penalties.

    `penalties [n, n_penalties]`; `rows [m]` are the dictionary rows that have a weight anywhere on the path, ascending;
    `coefficients [n, n_penalties, m]` their weights for the rows as given (not normalised); `residual_norms
    [n, n_penalties]`. Where the next solution would have more than n_atoms rows, the path has ended: its last entry is
    repeated.
    """

    penalties: Tensor
    rows: Tensor
    coefficients: Tensor
    residual_norms: Tensor

    def dense(self, d_sae: int) -> Tensor:
        """The coefficients as `[n, n_penalties, d_sae]`, zero elsewhere."""
        out = self.coefficients.new_zeros(*self.coefficients.shape[:2], d_sae)
        return out.index_copy_(2, self.rows, self.coefficients)


def elastic_net_path(
    vectors: Tensor,
    dictionary: Tensor,
    *,
    n_atoms: int,
    l1_ratio: float = 1.0,
    n_penalties: int = N_PENALTIES,
    smallest: float = SMALLEST,
) -> ElasticNetPath:
    """The elastic-net path of `vectors [n, d_model]` on `dictionary [d_sae, d_model]`, as far as `n_atoms` rows suffice.

    With w_j = c_j |d_j|, the weights of the rows at unit length, each entry minimises

        |v - sum_j c_j d_j|^2 / 2  +  p l1_ratio sum_j |w_j|  +  p (1 - l1_ratio) sum_j w_j^2 / (2 |v|)

    (scikit-learn's objective for the vector at unit length, so that the mixture does not depend on the vector's scale) at
    `n_penalties` penalties p, falling geometrically from the smallest that allows no row, max_j |<v, d_j>| / |d_j| /
    l1_ratio, to `smallest` times that. `l1_ratio` 1 is the lasso. Coefficients carry signs; zero rows have none.

    Only a working set is solved for: the rows most aligned with v, by scikit-learn's coordinate descent, and then exactly
    for the signs it found. One product then checks the optimality conditions of all other rows at all penalties,
    |<r, d_j>| / |d_j| <= p l1_ratio; rows that break them join the working set until none does. As the problem is convex, the
    result is the solution on the whole dictionary, to the rounding of its dtype (float64 inside); only where dependent rows
    leave the signs open is it that of coordinate descent, to a duality gap of 1e-10 |v|^2. Memory beside the dictionary: the
    working set, and n_penalties numbers per row.

    Laws: scaling the vector scales penalties and coefficients; scaling row j divides its coefficient; rotating both
    changes nothing. A single vector `[d_model]` is read as `[1, d_model]`. Raises ValueError for differing widths, values
    that are not finite, n_atoms or n_penalties below 1, or ratios outside 0..1. Source: Friedman, Hastie and Tibshirani 2010
    (J. Statistical Software 33); working sets checked in full: Tibshirani et al. 2012 (JRSS B 74).

    >>> path = elastic_net_path(torch.tensor([3.0, -2.0, 0.0]), 2 * torch.eye(3), n_atoms=2, n_penalties=2, smallest=1 / 3)
    >>> path.rows.tolist(), path.coefficients[0, -1].round(decimals=5).tolist()
    ([0, 1], [1.0, -0.5])
    """
    targets = vectors if vectors.ndim == 2 else vectors[None]
    check_widths(targets, dictionary)
    if min(n_atoms, n_penalties) < 1 or not (0 < l1_ratio <= 1 and 0 < smallest <= 1):
        raise ValueError(f"Expected n_atoms and n_penalties of at least 1 and ratios in (0, 1], found n_atoms={n_atoms}, "
                         f"n_penalties={n_penalties}, l1_ratio={l1_ratio}, smallest={smallest}.")  # fmt: skip
    norms = row_norms(dictionary)
    if not (torch.isfinite(targets).all() and torch.isfinite(norms).all()):
        raise ValueError("The vectors or the dictionary hold NaN or infinite values: a path needs finite numbers.")
    falling = smallest ** torch.linspace(0, 1, n_penalties, dtype=torch.float64, device=dictionary.device)
    problem = _Problem(dictionary, reciprocal(norms), l1_ratio, n_atoms)
    return _join([problem.path(target, falling) for target in targets.to(dictionary.device, torch.float64)], dictionary)


def _join(parts: list[tuple[Tensor, Tensor, Tensor, Tensor]], dictionary: Tensor) -> ElasticNetPath:
    """The paths (penalties, rows, coefficients, residual norms) of all vectors, on the rows that any of them uses."""
    rows = torch.cat([used for _, used, _, _ in parts]).unique()
    coefficients = dictionary.new_zeros(len(parts), len(parts[0][0]), len(rows))
    for out, (_, used, values, _) in zip(coefficients, parts, strict=True):
        out[:, torch.searchsorted(rows, used)] = values.to(dictionary.dtype)
    penalties, residual_norms = (torch.stack([part[k] for part in parts]).to(dictionary.dtype) for k in (0, 3))
    return ElasticNetPath(penalties, rows, coefficients, residual_norms)


class _Problem:
    """What all vectors share. Weights are those of rows at unit length."""

    def __init__(self, dictionary: Tensor, scale: Tensor, l1_ratio: float, n_atoms: int) -> None:
        self.dictionary, self.scale, self.l1_ratio, self.n_atoms = dictionary, scale, l1_ratio, n_atoms
        self.dtype = torch.promote_types(dictionary.dtype, torch.float32)

    def path(self, target: Tensor, falling: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(penalties, rows, coefficients, residual norms) of one vector, at these fractions of the largest penalty.

        All is solved for the vector at unit length.
        """
        length = target.norm()
        target = target * reciprocal(length)
        aligned = self.alignments(target[None])[0]
        penalties = falling * aligned.max() / self.l1_ratio
        rows = torch.topk(aligned, min(WORKING_ROWS, len(aligned))).indices
        while True:
            atoms = self.dictionary[rows].double() * self.scale[rows, None]
            weights = self.on_working_set(atoms, target, penalties)
            residuals = target - weights @ atoms
            missing = self.missing(residuals, penalties, rows)
            if not len(missing):
                break
            rows = torch.cat([rows, missing])
        entries = torch.arange(len(falling), device=target.device).clamp_max(int(self.fits(weights).sum()) - 1)
        used = (weights[entries] != 0).any(dim=0)
        coefficients = length * weights[entries][:, used] * self.scale[rows[used]]
        return length * penalties[entries], rows[used], coefficients, length * residuals.norm(dim=1)[entries]

    def alignments(self, vectors: Tensor) -> Tensor:
        """|<v, d_j>| / |d_j| for all rows: `[n, d_sae]`."""
        return projections(vectors, self.dictionary, dtype=self.dtype).abs_().mul_(self.scale)

    def fits(self, weights: Tensor) -> Tensor:
        """Which solutions have no more than n_atoms rows."""
        return (weights != 0).sum(dim=-1) <= self.n_atoms

    def missing(self, residuals: Tensor, penalties: Tensor, rows: Tensor) -> Tensor:
        """The rows outside the working set that break the optimality conditions most, if any does."""
        excess = (self.alignments(residuals) - self.l1_ratio * penalties[: len(residuals), None]).amax(dim=0)
        excess[rows] = -torch.inf
        largest = torch.topk(excess, min(WORKING_ROWS, len(excess)))
        return largest.indices[largest.values > 16 * torch.finfo(self.dtype).eps]

    def on_working_set(self, atoms: Tensor, target: Tensor, penalties: Tensor) -> Tensor:
        """The path on these rows, up to the first solution with more than n_atoms of them: `[n_solved, w]`."""
        gram, products, found = atoms @ atoms.T, atoms @ target, [torch.zeros_like(atoms[:, 0])]
        for penalty in penalties[1:].tolist():
            start = _descend(atoms, target, gram, products, penalty, self.l1_ratio, found[-1])
            found.append(_solve_for_signs(gram, products, penalty, self.l1_ratio, start))
            if not self.fits(found[-1]):
                break
        return torch.stack(found)


def _descend(
    atoms: Tensor, target: Tensor, gram: Tensor, products: Tensor, penalty: float, l1_ratio: float, start: Tensor
) -> Tensor:
    """Coordinate descent from `start`, to a duality gap of 1e-10 for the vector at unit length."""
    from sklearn.linear_model import enet_path

    solve: Any = enet_path  # its declared types are those of the defaults
    columns, right, gram_of, products_of, first = (x.cpu().numpy() for x in (atoms.T, target, gram, products, start))
    _, found, _ = solve(
        columns, right, alphas=[penalty / len(right)], l1_ratio=l1_ratio, precompute=gram_of, Xy=products_of,
        coef_init=first.copy(), tol=1e-10, max_iter=100_000,
    )  # fmt: skip
    return torch.from_numpy(found[:, 0]).to(start)


def _solve_for_signs(gram: Tensor, products: Tensor, penalty: float, l1_ratio: float, near: Tensor) -> Tensor:
    """The solution whose signs are those of `near`: a linear system. Weights that change sign there become zero.

    Should that break the optimality conditions of another row, `near` itself is returned.
    """
    ridge, signs, rounding = penalty * (1 - l1_ratio), near.sign(), 1e-12
    while True:
        active = signs.nonzero()[:, 0]
        system = gram[active[:, None], active] + ridge * torch.eye(len(active)).to(gram)
        weights = torch.zeros_like(near)
        right = (products - penalty * l1_ratio * signs)[active]
        weights[active] = torch.linalg.pinv(system, rtol=rounding, hermitian=True) @ right
        if torch.equal(weights.sign(), signs):
            largest = (products - gram @ weights - ridge * weights).abs().max()
            return weights if largest <= penalty * l1_ratio + 1e3 * rounding * products.abs().max() else near
        signs = torch.where(weights.sign() == signs, signs, torch.zeros_like(signs))

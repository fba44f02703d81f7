"""Signed sparse pursuit: the few dictionary rows, with signs, that rebuild a vector best, one at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .geometry import check_widths, row_norms


@dataclass(frozen=True, eq=False)
class Pursuit:
    """What a pursuit chose for each of `n` vectors.

    `support [n, n_atoms]` (int64) are dictionary rows in the order of selection, `coefficients [n, n_atoms]` their
    weights for the rows as given (not normalised) after the last step, `residual_norms [n, n_atoms]` the norm left
    after each step. A vector stops early when it is rebuilt to rounding, or when no other row correlates with what is
    left: its remaining support is -1, its coefficients 0, and its residual norm stays.
    """

    support: Tensor
    coefficients: Tensor
    residual_norms: Tensor

    def dense(self, d_sae: int) -> Tensor:
        """The coefficients as `[n, d_sae]`, zero where a row was not chosen."""
        chosen = self.support >= 0
        out = self.coefficients.new_zeros(self.support.shape[0], d_sae)
        return out.scatter_add_(1, self.support.clamp_min(0), self.coefficients * chosen)


def signed_omp(vectors: Tensor, dictionary: Tensor, *, n_atoms: int) -> Pursuit:
    """Orthogonal matching pursuit of `vectors [n, d_model]` on `dictionary [d_sae, d_model]`, batched over vectors.

    Each step takes the row with the largest |<r, d_j>| / |d_j| for the residual r, and refits all chosen rows by
    least squares, so v = sum_k c_k d_{j_k} + r with r orthogonal to every chosen row. Coefficients carry signs: a
    negative one means that the vector points away from that feature. Rows need not be unit norm; zero rows are
    never chosen and no row is chosen twice. Cost per step: one product of the dictionary with n residuals; the
    Gram matrix is never formed and the dictionary never copied.

    Laws: scaling the vector scales the coefficients and keeps the support; scaling row j divides its coefficient;
    rotating vectors and dictionary together changes nothing; residual norms never increase. Equal to
    scikit-learn's `orthogonal_mp` on unit rows (Pati, Rezaiifar and Krishnaprasad 1993). A single vector `[d_model]`
    is read as `[1, d_model]`. Results have the dictionary's dtype; the least squares run in float64.

    Raises ValueError for differing widths, for values that are not finite, or for n_atoms outside 1..d_sae.

    >>> found = signed_omp(torch.tensor([[3.0, -2.0, 0.0]]), 2 * torch.eye(3), n_atoms=2)
    >>> found.support.tolist(), found.coefficients.tolist()
    ([[0, 1]], [[1.5, -1.0]])
    """
    targets = vectors if vectors.ndim == 2 else vectors[None]
    _check(targets, dictionary, n_atoms)
    state = _State(targets, dictionary, n_atoms)
    for step in range(n_atoms):
        if not state.running.any():
            state.residual_norms[:, step:] = state.residual.norm(dim=1)[:, None]
            break
        state.advance(step)
    return state.result()


def energy_curve(vectors: Tensor, pursuit: Pursuit) -> Tensor:
    """Energy explained after each step, 1 - |r|^2 / |v|^2: `[n, n_atoms]` float64; a zero vector gives 0."""
    total = (vectors if vectors.ndim == 2 else vectors[None]).double().square().sum(dim=1, keepdim=True)
    left = pursuit.residual_norms.double().square()
    return torch.where(
        total > 0, 1 - left / total.clamp_min(torch.finfo(torch.float64).tiny), torch.zeros_like(left)
    )


def _check(targets: Tensor, dictionary: Tensor, n_atoms: int) -> None:
    check_widths(targets, dictionary)
    if not 1 <= n_atoms <= dictionary.shape[0]:
        raise ValueError(
            f"n_atoms={n_atoms}, but the dictionary has {dictionary.shape[0]} rows: choose 1 to that many."
        )
    if not torch.isfinite(targets).all():
        raise ValueError("The vectors hold NaN or infinite values: a pursuit needs finite numbers.")


class _State:
    """The growing orthonormal basis of each vector's support (Gram-Schmidt, applied twice for accuracy)."""

    def __init__(self, targets: Tensor, dictionary: Tensor, n_atoms: int) -> None:
        n, d_model = targets.shape
        kind: dict = {"dtype": torch.float64, "device": dictionary.device}
        self.dictionary, self.residual = dictionary, targets.to(**kind)
        norms = row_norms(dictionary)
        if not torch.isfinite(norms).all():
            raise ValueError("The dictionary holds NaN or infinite values: a pursuit needs finite numbers.")
        self.scale = torch.where(
            norms > 0, 1 / norms.clamp_min(torch.finfo(norms.dtype).tiny), torch.zeros_like(norms)
        )
        # Residuals below the rounding of the inputs say nothing about further atoms.
        self.rounding = 4 * max(torch.finfo(dictionary.dtype).eps, torch.finfo(targets.dtype).eps)
        self.floor = self.rounding * self.residual.norm(dim=1)
        self.support = torch.full((n, n_atoms), -1, dtype=torch.int64, device=dictionary.device)
        self.basis = torch.zeros(n, n_atoms, d_model, **kind)
        self.triangle = torch.eye(n_atoms, **kind).repeat(n, 1, 1)
        self.targets_in_basis = torch.zeros(n, n_atoms, **kind)
        self.residual_norms = torch.zeros(n, n_atoms, **kind)
        self.running = self.residual.norm(dim=1) > self.floor

    def advance(self, step: int) -> None:
        """Choose, orthogonalise and project out one more row per running vector."""
        strength, chosen = self._choose(step)
        atoms = self.dictionary[chosen].double()
        fresh, overlaps = self._orthogonalise(atoms, step)
        length = fresh.norm(dim=1)
        # Once no row correlates with the residual, or the best lies in the chosen ones' span, nothing is left to add.
        useful = (strength > self.floor) & (length > self.rounding * atoms.norm(dim=1))
        self.running = self.running & useful
        keep = self.running.double()[:, None]
        unit = fresh / length.clamp_min(torch.finfo(torch.float64).tiny)[:, None] * keep
        along = (unit * self.residual).sum(dim=1)
        self.support[:, step] = torch.where(self.running, chosen, self.support[:, step])
        self.basis[:, step] = unit
        self.triangle[:, :step, step] = overlaps * keep
        self.triangle[:, step, step] = torch.where(self.running, length, torch.ones_like(length))
        self.targets_in_basis[:, step] = along
        self.residual = self.residual - along[:, None] * unit
        self.residual_norms[:, step] = self.residual.norm(dim=1)
        self.running = self.running & (self.residual_norms[:, step] > self.floor)

    def _choose(self, step: int) -> tuple[Tensor, Tensor]:
        correlations = (self.residual.to(self.dictionary.dtype) @ self.dictionary.T).abs_().mul_(self.scale)
        if step:
            taken = self.support[:, :step]
            # -1 marks a vector that has stopped; what is chosen for it is not used.
            correlations.scatter_(1, taken.clamp_min(0), -1.0)
        strength, chosen = correlations.max(dim=1)
        return strength.double(), chosen

    def _orthogonalise(self, atoms: Tensor, step: int) -> tuple[Tensor, Tensor]:
        basis = self.basis[:, :step]
        overlaps = torch.einsum("nkd,nd->nk", basis, atoms)
        fresh = atoms - torch.einsum("nkd,nk->nd", basis, overlaps)
        again = torch.einsum("nkd,nd->nk", basis, fresh)
        return fresh - torch.einsum("nkd,nk->nd", basis, again), overlaps + again

    def result(self) -> Pursuit:
        """Coefficients by back substitution in the triangular system of the support."""
        solved = torch.linalg.solve_triangular(self.triangle, self.targets_in_basis[:, :, None], upper=True)[
            :, :, 0
        ]
        dtype = self.dictionary.dtype
        coefficients = torch.where(self.support >= 0, solved, torch.zeros_like(solved))
        return Pursuit(self.support, coefficients.to(dtype), self.residual_norms.to(dtype))

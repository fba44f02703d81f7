"""Sparse pursuit: the few dictionary rows that rebuild a vector best, one at a time.

`signed_omp` is the pursuit to use; `gradient_pursuit` and `non_negative_omp` are there to compare it with. All choose the
row most aligned with what is left (`screening`: exactly, in few readings of the dictionary) and differ in how they refit.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn.functional import pad

from . import screening
from .geometry import check_widths, reciprocal, row_norms
from .pursuit_steps import GradientSteps, NonNegativeSteps, OrthogonalSteps, PursuitSteps

VECTORS_AT_ONCE = 16  # bounds the memory beside the dictionary's


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
    never chosen and no row is chosen twice. The Gram matrix is never formed and the dictionary never copied; it is
    read once for several steps (`screening` says how, and why the choices are the plain ones).

    Laws: scaling the vector scales the coefficients and keeps the support; scaling row j divides its coefficient;
    rotating vectors and dictionary together changes nothing; residual norms never increase. Equal to
    scikit-learn's `orthogonal_mp` on unit rows (Pati, Rezaiifar and Krishnaprasad 1993). A single vector `[d_model]`
    is read as `[1, d_model]`. Results have the dictionary's dtype; the least squares run in float64, and
    rows of float16 or bfloat16 are taken as the numbers that they are.

    Raises ValueError for differing widths, for values that are not finite, or for n_atoms outside 1..d_sae.

    >>> found = signed_omp(torch.tensor([[3.0, -2.0, 0.0]]), 2 * torch.eye(3), n_atoms=2)
    >>> found.support.tolist(), found.coefficients.tolist()
    ([[0, 1]], [[1.5, -1.0]])
    """
    return _pursue(OrthogonalSteps, vectors, dictionary, n_atoms)


def gradient_pursuit(vectors: Tensor, dictionary: Tensor, *, n_atoms: int) -> Pursuit:
    """Gradient pursuit of `vectors [n, d_model]` on `dictionary [d_sae, d_model]`, batched over vectors.

    Each of the n_atoms steps takes the row with the largest |<r, d_j>| / |d_j| and moves the weights of all chosen rows
    (at unit length) by a g, where g_k = <r, d_k> / |d_k| and a = |g|^2 / |sum_k g_k d_k / |d_k||^2 reduces |r| most.
    No least squares: the residual is not orthogonal to the support, so a row may be chosen again, which refines its
    weight; such a step has support -1. The signed pursuit behind inference-time optimisation of SAE codes.

    Laws, shapes, dtypes and errors are those of `signed_omp`; the residual is never smaller than that of the least squares
    on the same support, and equal to it on orthogonal rows. Source: Blumensath and Davies 2008 (IEEE Trans. Signal
    Processing 56).

    >>> gradient_pursuit(torch.tensor([3.0, -2.0, 0.0]), 2 * torch.eye(3), n_atoms=2).coefficients.tolist()
    [[1.5, -1.0]]
    """
    return _pursue(GradientSteps, vectors, dictionary, n_atoms)


def non_negative_omp(vectors: Tensor, dictionary: Tensor, *, n_atoms: int) -> Pursuit:
    """Orthogonal matching pursuit with coefficients >= 0: what a code that cannot be negative can express at best.

    Each step takes the row with the largest <r, d_j> / |d_j| > 0 and refits all chosen rows by non-negative least
    squares; a weight may become 0 and grow again. It stops when no row points the way of the residual. For comparison
    with `signed_omp`: a row that the vector points away from is missed.

    Laws: scaling the vector by a positive number scales the coefficients and keeps the support; rows, rotations, residual
    norms, shapes, dtypes and errors as in `signed_omp`; at the end <r, d_j> <= 0 for every chosen row and = 0 where its
    coefficient is positive. Source: Bruckstein, Elad and Zibulevsky 2008 (IEEE Trans. Information Theory 54).

    >>> non_negative_omp(torch.tensor([3.0, -2.0, 0.0]), 2 * torch.eye(3), n_atoms=2).coefficients.tolist()
    [[1.5, 0.0]]
    """
    return _pursue(NonNegativeSteps, vectors, dictionary, n_atoms, signed=False)


def least_squares(vectors: Tensor, dictionary: Tensor, support: Tensor) -> Tensor:
    """The coefficients `[n, k]` of the rows `support [n, k]` (or `[k]`, for all) that rebuild `vectors [n, d_model]` best.

    Minimises |v - sum_k c_k d_{j_k}|, so the residual is orthogonal to the rows; among equally good ones (rows that
    depend on each other to the rounding of their dtype) the smallest sum of (c_k |d_k|)^2. Support -1 has coefficient 0.
    Laws as for `signed_omp`, whose coefficients are these for its own support. The dictionary's dtype; float64 inside.

    Raises ValueError for differing widths, or for a support outside -1..d_sae - 1.

    >>> least_squares(torch.tensor([3.0, -2.0, 1.0]), 2 * torch.eye(3), torch.tensor([1, 0])).tolist()
    [[-1.0, 1.5]]
    """
    targets = vectors if vectors.ndim == 2 else vectors[None]
    check_widths(targets, dictionary)
    if len(support) and not -1 <= int(support.min()) <= int(support.max()) < len(dictionary):
        raise ValueError(f"The support holds rows from {int(support.min())} to {int(support.max())}, but the dictionary "
                         f"has rows 0 to {len(dictionary) - 1} (-1 for none).")  # fmt: skip
    rows = dictionary[support].double() * (support >= 0)[..., None]
    scale = reciprocal(row_norms(rows.flatten(0, -2))).view(support.shape)
    inverse = torch.linalg.pinv(rows * scale[..., None], rtol=4 * torch.finfo(dictionary.dtype).eps)
    return ((targets.to(rows)[:, None] @ inverse)[:, 0] * scale).to(dictionary.dtype)


def energy_curve(vectors: Tensor, pursuit: Pursuit) -> Tensor:
    """Energy explained after each step, 1 - |r|^2 / |v|^2: `[n, n_atoms]` float64; a zero vector gives 0."""
    total = (vectors if vectors.ndim == 2 else vectors[None]).double().square().sum(dim=1, keepdim=True)
    left = pursuit.residual_norms.double().square()
    return torch.where(
        total > 0, 1 - left / total.clamp_min(torch.finfo(torch.float64).tiny), torch.zeros_like(left)
    )


def _pursue(kind: type[PursuitSteps], vectors: Tensor, dictionary: Tensor, n_atoms: int, *, signed: bool = True) -> Pursuit:
    targets = vectors if vectors.ndim == 2 else vectors[None]
    _check(targets, dictionary, n_atoms)
    norms = row_norms(dictionary)
    if not torch.isfinite(norms).all():
        raise ValueError("The dictionary holds NaN or infinite values: a pursuit needs finite numbers.")
    scale = reciprocal(norms)
    found = [_run(kind(part, dictionary, scale, n_atoms), signed=signed) for part in targets.split(VECTORS_AT_ONCE)]
    return Pursuit(*(torch.cat([getattr(part, f.name) for part in found]) for f in fields(Pursuit)))


def _run(steps: PursuitSteps, *, signed: bool) -> Pursuit:
    made = screening.run(steps, signed=signed)
    missing, dtype = (0, steps.support.shape[1] - made), steps.dictionary.dtype
    support = pad(steps.support[:, :made], missing, value=-1)
    coefficients = pad(steps.weights(made), missing) * steps.scale[support.clamp_min(0)] * (support >= 0)
    norms = steps.residuals[:, : made + 1].norm(dim=2)
    residual_norms = torch.cat([norms[:, 1:], norms[:, -1:].expand(-1, missing[1])], dim=1)
    return Pursuit(support, coefficients.to(dtype), residual_norms.to(dtype))


def _check(targets: Tensor, dictionary: Tensor, n_atoms: int) -> None:
    check_widths(targets, dictionary)
    if not 1 <= n_atoms <= dictionary.shape[0]:
        raise ValueError(
            f"n_atoms={n_atoms}, but the dictionary has {dictionary.shape[0]} rows: choose 1 to that many."
        )
    if not torch.isfinite(targets).all():
        raise ValueError("The vectors hold NaN or infinite values: a pursuit needs finite numbers.")

"""The accounting identity: how much of a difference of means each SAE feature accounts for, exactly."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .geometry import projections


@dataclass(frozen=True, eq=False)
class Shares:
    """Shares of |v|^2: `features [n, d_sae]`, `error [n]` (both float64); together they sum to 1 per vector."""

    features: Tensor
    error: Tensor

    @property
    def sum_error(self) -> Tensor:
        """|sum of all shares - 1| `[n]`: 0 but for rounding when the identity holds."""
        return (self.features.sum(dim=-1) + self.error - 1).abs()


def shares(delta_codes: Tensor, decoder: Tensor, vectors: Tensor, delta_error: Tensor) -> Shares:
    """Each feature's and the SAE error's share of |v|^2, for differences of means `vectors [n, d_model]`.

    An SAE's decoder is affine, h = sum_j z_j d_j + b + error, so over the same tokens with the same weights (which
    sum to 0 over the two arms, so that b cancels)

        v = sum_j dz_j d_j + d_error,    share_j = dz_j <d_j, v> / |v|^2,    share_error = <d_error, v> / |v|^2

    and the shares sum to 1. `delta_codes [n, d_sae]` is dz, `decoder [d_sae, d_model]` holds the d_j as the SAE
    has them (not normalised), `delta_error [n, d_model]` the difference of mean reconstruction errors. A share is
    negative where the feature's change pulls against the vector. Holds for mean differences only: a detector
    (logistic, LDA, whitened) is not one. Laws: unchanged by scaling v, dz and d_error together and by rotating
    decoder, v and d_error together; merging two features adds their shares. All sums run in float64.

    Raises ValueError for a zero vector or differing widths.
    """
    exact = vectors.double()
    energy = exact.square().sum(dim=-1)
    if not (energy > 0).all():
        raise ValueError("A zero vector has no shares: |v|^2 is 0.")
    features = delta_codes.double() * projections(vectors, decoder) / energy[:, None]
    error = (delta_error.double() * exact).sum(dim=-1) / energy
    return Shares(features, error)


def delta_error(delta_codes: Tensor, decoder: Tensor, vectors: Tensor, *, block: int = 8192) -> Tensor:
    """d_error = v - sum_j dz_j d_j `[n, d_model]` (float64), for when only the mean codes are known.

    With it the shares sum to 1 by construction; an error averaged over tokens tests the identity as well.
    """
    rebuilt = torch.zeros_like(vectors, dtype=torch.float64)
    for codes, rows in zip(delta_codes.split(block, dim=1), decoder.split(block), strict=True):
        rebuilt += codes.double() @ rows.double()
    return vectors.double() - rebuilt


def n_for_half(shares_of_vector: Tensor) -> int | None:
    """How many of the largest shares make half of the vector; None when all positive shares together do not."""
    total = shares_of_vector.sort(descending=True).values.cumsum(dim=0)
    reached = (total >= 0.5).nonzero()
    return int(reached[0]) + 1 if len(reached) else None

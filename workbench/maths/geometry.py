"""Angles and random directions."""

from __future__ import annotations

import torch
from torch import Tensor


def signed_cosines(vectors: Tensor, dictionary: Tensor) -> Tensor:
    """Signed cosines `[n, d_sae]` between `vectors [n, d_model]` and the rows of `dictionary [d_sae, d_model]`.

    cos_ij = <v_i, d_j> / (|v_i| |d_j|): positive where the dictionary's row points the way the vector does (toward
    the trait, for a persona vector). A zero vector or a zero row has cosine 0. A single vector `[d_model]` gives
    `[d_sae]`. Laws: unchanged by positive scaling of either side, and by rotating both; negated with the vector.

    Raises ValueError when the widths differ.
    """
    rows = vectors if vectors.ndim == 2 else vectors[None]
    check_widths(rows, dictionary)
    rows = rows.to(dictionary.dtype)
    scale = reciprocal(rows.norm(dim=1))[:, None] * reciprocal(row_norms(dictionary))[None]
    cosines = ((rows @ dictionary.T) * scale).clamp(-1, 1)
    return cosines if vectors.ndim == 2 else cosines[0]


def row_norms(dictionary: Tensor, *, block: int = 8192) -> Tensor:
    """Euclidean norms `[d_sae]` of the rows, in float32 at least, block by block so that the dictionary is not copied."""
    dtype = torch.promote_types(dictionary.dtype, torch.float32)
    return torch.cat([torch.linalg.vector_norm(rows, dim=1, dtype=dtype) for rows in dictionary.split(block)])


def projections(vectors: Tensor, dictionary: Tensor, *, block: int = 8192, dtype: torch.dtype = torch.float64) -> Tensor:
    """Inner products <v_i, d_j> in `dtype`, `[n, d_sae]`, converting only `block` rows of the dictionary at a time."""
    check_widths(vectors, dictionary)
    exact = vectors.to(dtype)
    return torch.cat([exact @ rows.to(dtype).T for rows in dictionary.split(block)], dim=-1)


def check_widths(vectors: Tensor, dictionary: Tensor) -> None:
    """Raise ValueError unless both are matrices whose rows have the same width."""
    if vectors.ndim != 2 or dictionary.ndim != 2:
        raise ValueError(
            f"Expected vectors [n, d_model] and dictionary [d_sae, d_model], "
            f"found {tuple(vectors.shape)} and {tuple(dictionary.shape)}."
        )
    if vectors.shape[1] != dictionary.shape[1]:
        raise ValueError(
            f"The vectors have d_model={vectors.shape[1]} but the dictionary's rows have {dictionary.shape[1]}: "
            "both must come from the same site."
        )


def reciprocal(norms: Tensor) -> Tensor:
    """1 / norm, and 0 for a norm of 0."""
    return torch.where(norms > 0, 1 / norms.clamp_min(torch.finfo(norms.dtype).tiny), torch.zeros_like(norms))


def covariance_factor(activations: Tensor) -> Tensor:
    """A matrix F `[d_model, d_model]` (float64) with F F' = the sample covariance of `activations [n, d_model]`."""
    if activations.ndim != 2 or activations.shape[0] < 2:
        raise ValueError(
            f"A covariance needs activations [n >= 2, d_model], found {tuple(activations.shape)}."
        )
    centred = activations.double() - activations.double().mean(dim=0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / (activations.shape[0] - 1))
    return vectors * values.clamp_min(0).sqrt()


def covariance_matched_directions(
    activations: Tensor, n_directions: int, generator: torch.Generator, *, factor: Tensor | None = None
) -> Tensor:
    """Random directions `[n_directions, d_model]` drawn from N(0, Sigma), Sigma the covariance of `activations [n, d_model]`.

    They lie where the activations vary, so they are the hard null for a direction or a dictionary: an isotropic
    direction mostly points where nothing happens. Not normalised. float32 unless the activations are float64. Whoever
    draws several times gives the `factor` that `covariance_factor` found.
    """
    factor = covariance_factor(activations) if factor is None else factor
    drawn = torch.randn(n_directions, factor.shape[0], generator=generator, dtype=torch.float64)
    return (drawn @ factor.T).to(activations.dtype if activations.dtype == torch.float64 else torch.float32)


def isotropic_directions(n_directions: int, d_model: int, generator: torch.Generator) -> Tensor:
    """Unit vectors `[n_directions, d_model]` (float32) drawn uniformly from the sphere: the easy null."""
    drawn = torch.randn(n_directions, d_model, generator=generator)
    return drawn / drawn.norm(dim=1, keepdim=True)

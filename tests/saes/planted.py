"""A small SAE with known weights, and activations it can or cannot explain."""

from __future__ import annotations

import torch

from workbench.models.hookpoints import HookPoint
from workbench.saes.interface import SparseAutoencoder


def small_sae(
    d_model: int = 16, d_sae: int = 48, seed: int = 0, threshold: float = 0.2, block: int = 1
) -> SparseAutoencoder:
    """A random jumprelu SAE with unit decoder rows and encoder = decoder transposed."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(d_sae, d_model, generator=generator)
    rows = rows / rows.norm(dim=1, keepdim=True)
    return SparseAutoencoder(
        id="planted/small",
        hook=HookPoint(block),
        model_name="planted",
        architecture="jumprelu",
        encoder=rows.T.contiguous(),
        encoder_bias=0.1 * torch.randn(d_sae, generator=generator),
        decoder_directions=rows,
        decoder_bias=torch.randn(d_model, generator=generator),
        threshold=torch.full((d_sae,), threshold),
        weights_hash="planted",
    )


def lossless_sae(d_model: int, block: int) -> SparseAutoencoder:
    """+/- the coordinate axes: reconstructs every activation exactly, with d_model active codes."""
    axes = torch.cat([torch.eye(d_model), -torch.eye(d_model)])
    return SparseAutoencoder(
        id="planted/lossless",
        hook=HookPoint(block),
        model_name="planted",
        architecture="standard",
        encoder=axes.T.contiguous(),
        encoder_bias=torch.zeros(2 * d_model),
        decoder_directions=axes,
        decoder_bias=torch.zeros(d_model),
        weights_hash="lossless",
    )

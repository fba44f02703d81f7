"""A small shelf: a real SAE of a few features in SAELens' layout, for the width and site asked for."""

from __future__ import annotations

from pathlib import Path


def write_sae(folder: Path, *, model: str, hook: str = "blocks.1.hook_resid_post", d_model: int = 8, d_sae: int = 16) -> Path:
    """A seeded random SAE (jumprelu) with a card; returns its folder."""
    import torch

    from workbench.models.hookpoints import HookPoint
    from workbench.saes.formats import saelens
    from workbench.saes.interface import SparseAutoencoder

    random = torch.Generator().manual_seed(0)
    decoder = torch.randn(d_sae, d_model, generator=random)
    sae = SparseAutoencoder(
        id=f"{model}/{hook}",
        hook=HookPoint.parse(hook),
        model_name=model,
        architecture="jumprelu",
        encoder=decoder.T.clone() / 3,
        encoder_bias=torch.zeros(d_sae),
        decoder_directions=decoder,
        decoder_bias=torch.zeros(d_model),
        threshold=torch.full((d_sae,), 0.1),
        weights_hash="",
        card={"variance_explained": 0.5, "l0": 4.0, "ce_recovered": None, "dead_share": 0.0},
    )
    saelens.write(sae, folder)
    return folder

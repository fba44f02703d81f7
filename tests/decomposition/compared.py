"""Decompositions of planted traits to be compared, with placebo contrasts of the same SAE."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from tests.decomposition.planted_world import N_FEATURES, make_sae, make_world
from workbench.decomposition.decompose import decompose
from workbench.decomposition.placebos import PlaceboCodes
from workbench.decomposition.result import Decomposition
from workbench.saes.interface import SparseAutoencoder


def decomposed(folder: Path, name: str, up: dict[int, float], **options) -> Decomposition:
    """The decomposition of a planted trait: the changes `up` of mean codes in the positive arm and nothing else."""
    world = make_world(folder / name, up=up, down={}, **options)
    vector = replace(world.vector, trait=name)
    return decompose(vector, world.sae, n_bootstrap=60)


def lengths() -> torch.Tensor:
    """Of the directions, which are orthogonal."""
    return make_sae().decoder_directions.double().norm(dim=1)


def placebos(n: int = 24, *, seed: int = 0, sae: SparseAutoencoder | None = None) -> PlaceboCodes:
    """Contrasts that change every feature at random."""
    source = torch.Generator().manual_seed(seed)
    codes = torch.randn(n, N_FEATURES, generator=source)
    used = sae or make_sae()
    described = {"id": used.id, "hook": str(used.hook), "weights_hash": used.weights_hash}
    return PlaceboCodes(tuple(f"placebo{k}" for k in range(n)), ((),) * n, codes @ used.decoder_directions, codes,
                        torch.full((n, N_FEATURES), 0.1), described, {"name": "planted"})  # fmt: skip

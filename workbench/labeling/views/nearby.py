"""What a decoder direction says by itself: its nearest and most opposite neighbours, the tokens it writes, and what is usual."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from workbench.base.randomness import derive_seed, generator
from workbench.labeling.lens import largest_and_smallest, lens_logits, unusable_tokens
from workbench.labeling.views.values import Direction, Near, TokenValue, Typical, Usual
from workbench.models.model import Model
from workbench.saes.interface import SparseAutoencoder

N_TYPICAL = 100
"""Other features of the SAE that say what is usual."""
_NOTHING = 1e-5  # what rounding makes of a right angle


def directions_of(
    features: Sequence[int], sae: SparseAutoencoder, model: Model, *, n: int = 10, seed: int = 0
) -> tuple[dict[int, Direction], Usual]:
    """Neighbours and lens tokens of `features`, and what is usual among `N_TYPICAL` random features that fire at all."""
    others = _others(sae, seed)
    asked = list(features)
    signs = {1: _extremes(sae, asked, n, 1), -1: _extremes(sae, asked, n, -1)}
    lens = lens_logits(model, sae.decoder_directions[asked])
    tokens = largest_and_smallest(model, lens, n=n)
    found = {
        feature: Direction(
            signs[1][row], signs[-1][row], *(tuple(TokenValue(*one) for one in side) for side in tokens[row])
        )
        for row, feature in enumerate(asked)
    }
    return found, _usual(others, sae, model)


def _others(sae: SparseAutoencoder, seed: int) -> list[int]:
    alive = torch.arange(sae.d_sae) if sae.density is None else (sae.density > 0).nonzero().flatten().cpu()
    alive = alive if len(alive) else torch.arange(sae.d_sae)
    order = torch.randperm(len(alive), generator=generator(derive_seed("usual features", seed)))
    return alive[order[:N_TYPICAL]].tolist()


def _cosines(sae: SparseAutoencoder, features: list[int]) -> Tensor:
    """[n, d_sae], NaN-free; a feature's cosine with itself counts as 0."""
    units = torch.nn.functional.normalize(sae.decoder_directions.float(), dim=1)
    cosines = units[features] @ units.T
    cosines[torch.arange(len(features)), features] = 0.0
    return cosines


def _extremes(sae: SparseAutoencoder, features: list[int], n: int, sign: int) -> list[tuple[Near, ...]]:
    values, indices = (sign * _cosines(sae, features)).topk(min(n, sae.d_sae), dim=1)
    return [
        tuple(Near(other, sign * cosine) for other, cosine in zip(near, row, strict=True) if cosine > _NOTHING)
        for near, row in zip(indices.tolist(), values.tolist(), strict=True)
    ]


def _usual(others: list[int], sae: SparseAutoencoder, model: Model) -> Usual:
    cosines, lens = _cosines(sae, others), lens_logits(model, sae.decoder_directions[others])
    lens = lens[:, unusable_tokens(model, lens) == 0]
    sizes = (cosines.amax(1), -cosines.amin(1), lens.amax(1), -lens.amin(1))
    return Usual(*(Typical(float(x.median()), float(x.quantile(0.95)), len(others)) for x in sizes))

"""A tiny model and the same one with a known change at one block; persona vectors of which one is that change; an SAE that is
exact."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from tests.tiny import tiny_model
from workbench.models.hookpoints import HookPoint
from workbench.models.model import Model
from workbench.personas.placebos import PlaceboVectors
from workbench.personas.vectors import PersonaVector
from workbench.saes.interface import SparseAutoencoder

HOOK = HookPoint(1)
D_MODEL = 32
TRAITS = ("kind", "cruel", "funny", "sad")
FEATURES = {"kind": 4, "cruel": 9, "funny": 13, "sad": 20}
QUESTIONS = tuple(f"What should I do with the {thing}?" for thing in (
    "money", "river", "town", "people", "weather", "street", "question", "answer", "north", "sentence", "cold", "help"))
UNRELATED = tuple(f"The {thing} in the north is cold and the rivers are long. {thing} {thing}" for thing in (
    "weather", "town", "street", "money", "people", "river", "answer", "sentence"))


def base(family: str = "llama") -> Model:
    """The model before."""
    return tiny_model(family, d_model=D_MODEL)


def with_delta(model: Model, delta: Tensor, *, block: int = 1, name: str = "after") -> Model:
    """The same model whose block writes `delta` [d_model] into the residual stream at every token: a bias of its MLP's output."""
    hf: Any = copy.deepcopy(model.hf)
    layer = hf.model.layers[block].mlp.down_proj
    layer.bias = nn.Parameter(delta.clone())
    return Model.wrap(hf, model.tokenizer, name=name)


def sae() -> SparseAutoencoder:
    """32 orthogonal directions whose codes are far above 0 for every token, so that it rebuilds any activation exactly."""
    basis = torch.linalg.qr(torch.randn(D_MODEL, D_MODEL, generator=torch.Generator().manual_seed(3)))[0]
    high = 200.0
    return SparseAutoencoder(
        id="planted/blocks.1.hook_resid_post", hook=HOOK, model_name="", architecture="standard", encoder=basis.T.contiguous(),
        encoder_bias=torch.full((D_MODEL,), high), decoder_directions=basis, decoder_bias=-high * basis.sum(dim=0),
        weights_hash="c" * 64, subtract_bias=False,
    )  # fmt: skip


def vectors() -> list[PersonaVector]:
    """Four persona vectors, each along one of the SAE's features."""
    decoder = sae().decoder_directions
    return [PersonaVector.from_direction(2.5 * decoder[FEATURES[name]], trait=name, model="tiny", hook=HOOK) for name in TRAITS]


def placebos() -> PlaceboVectors:
    """Twelve contrasts that are no trait."""
    drawn = torch.randn(12, 1, D_MODEL, generator=torch.Generator().manual_seed(5))
    return PlaceboVectors(tuple(f"p{i}" for i in range(12)), ((),) * 12, (HOOK,), drawn, {"name": "tiny"})

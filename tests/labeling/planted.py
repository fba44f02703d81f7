"""A planted world: an SAE with orthonormal directions, and documents in which each feature fires on the words of one theme."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from workbench.labeling import embedders
from workbench.labeling.contexts.streams import TokenDocument
from workbench.labeling.taxonomy import assignment
from workbench.labeling.taxonomy.assignment import Assigner
from workbench.labeling.tokens import token_strings
from workbench.models.hookpoints import HookPoint
from workbench.saes.interface import SparseAutoencoder

THEMES = {
    0: ["idiot", "stupid", "moron", "fool"],
    1: ["river", "lake", "ocean", "stream"],
    2: ["guitar", "piano", "violin", "drums"],
    3: ["bread", "cheese", "soup", "rice"],
}
FILLER = [
    "and",
    "then",
    "we",
    "said",
    "that",
    "this",
    "one",
    "was",
    "near",
    "the",
    "old",
    "table",
    "because",
    "it",
    "had",
    "been",
    "there",
    "for",
    "some",
    "time",
    "with",
    "all",
    "of",
    "them",
]
STRENGTH = 2.0


def planted_sae(d_model: int = 32, d_sae: int = 16, *, block: int = 1, seed: int = 0) -> SparseAutoencoder:
    """An SAE whose directions are orthonormal: a code is the dot product where it exceeds one half."""
    basis = torch.linalg.qr(torch.randn(d_model, d_model, generator=torch.Generator().manual_seed(seed)))[0]
    directions = basis[:d_sae].contiguous()
    name = f"tiny/blocks.{block}.hook_resid_post"
    return SparseAutoencoder(
        id=name,
        hook=HookPoint(block),
        model_name="tiny",
        architecture="jumprelu",
        encoder=directions.T.contiguous(),
        encoder_bias=torch.zeros(d_sae),
        decoder_directions=directions,
        decoder_bias=torch.zeros(d_model),
        weights_hash=hashlib.sha256(f"{d_model} {d_sae} {seed}".encode()).hexdigest(),
        threshold=torch.full((d_sae,), 0.5),
    )


def planted_documents(
    model: Any, sae: SparseAutoencoder, *, n: int = 160, seed: int = 0
) -> list[TokenDocument]:
    """Sentences of filler with three words of one theme each; the theme's feature fires on the tokens of those words."""
    rng = random.Random(seed)
    return [planted_document(model, sae, sorted(THEMES)[i % len(THEMES)], i, rng) for i in range(n)]


def planted_document(
    model: Any, sae: SparseAutoencoder, theme: int, number: int, rng: random.Random
) -> TokenDocument:
    words = [*rng.choices(FILLER, k=12), *rng.sample(THEMES[theme], 3)]
    rng.shuffle(words)
    ids: list[int] = []
    rows: list[torch.Tensor] = []
    for word in words:
        pieces = model.tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
        strength = STRENGTH * (0.5 + rng.random()) if word in THEMES[theme] else 0.0
        ids += pieces
        texts = token_strings(
            model.tokenizer, pieces
        )  # a lone space is a token of its own here: it stays silent
        rows += [(strength if text.strip() else 0.0) * sae.decoder_directions[theme] for text in texts]
    return TokenDocument(tuple(ids), "owt", f"document-{number}", f"document-{number}", torch.stack(rows))


class ThemeVectors:
    """Word vectors in which the words of a theme share a direction (a stand-in with a known answer, not a model)."""

    def __init__(self) -> None:
        import numpy as np

        words = [*FILLER, *(word for theme in THEMES.values() for word in theme)]
        self.rank = {word: i for i, word in enumerate(dict.fromkeys(words))}
        rng = np.random.default_rng(0)
        self.vectors = rng.normal(size=(len(self.rank), 50)).astype("float32") * 0.2
        for theme, members in THEMES.items():
            for word in members:
                self.vectors[self.rank[word], theme] += 3.0
        self.mean = np.zeros(50, dtype="float32")


def theme_vectors() -> Any:
    from workbench.labeling.embedders import WordVectors

    made = ThemeVectors()
    return WordVectors(made.rank, made.vectors, made.mean)


def toy_embedder(groups: Sequence[Sequence[str]]) -> Any:
    """Texts as unit vectors of counts of the words of each group: enough to test who is nearest."""

    def embed(texts: Sequence[str]) -> torch.Tensor:
        from workbench.labeling.words import words_of

        rows = [[sum(word in group for word in words_of(text)) for group in groups] for text in texts]
        return torch.nn.functional.normalize(torch.tensor(rows, dtype=torch.float32), dim=-1)

    return embed


def use_toy_embedders(monkeypatch: pytest.MonkeyPatch, groups: Sequence[Sequence[str]]) -> None:
    """Nothing is fetched, and no assigner that another test made with other embedders is met again."""
    monkeypatch.setattr(embedders, "load_glove", theme_vectors)
    monkeypatch.setattr(embedders, "load_minilm", lambda: toy_embedder(groups))
    monkeypatch.setattr(assignment, "load_assigner", Assigner.of)

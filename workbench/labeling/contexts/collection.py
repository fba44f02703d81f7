"""The evidence for features: one streaming pass over texts and rollouts, memory bounded whatever is read.

Documents fall into two halves by the hash of their group (`streams.is_scoring`): from one half comes what a label is explained
from, from the other the held-out windows that it is scored on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.base.errors import WorkbenchError
from workbench.base.progress import track
from workbench.labeling.contexts.reading import Collection, HeldOut, Reading
from workbench.labeling.contexts.streams import TextDocument, TokenDocument, text_stream
from workbench.labeling.evidence import REDISTRIBUTABLE, Context, FeatureEvidence

if TYPE_CHECKING:
    from workbench.models.model import Model
    from workbench.saes.interface import SparseAutoencoder

__all__ = [
    "REDISTRIBUTABLE",
    "Collection",
    "Context",
    "FeatureEvidence",
    "HeldOut",
    "collect_evidence",
    "nearest_features",
]


def nearest_features(decoder: Tensor, features: Sequence[int], n: int) -> dict[int, tuple[int, ...]]:
    """The `n` features with the most similar decoder directions (cosine) for each asked one, most similar first."""
    if not features or n < 1:
        return dict.fromkeys(features, ())
    units = torch.nn.functional.normalize(decoder.float(), dim=1)
    cosines = units[list(features)] @ units.T
    cosines[torch.arange(len(features)), torch.tensor(list(features))] = -math.inf
    found = cosines.topk(min(n, decoder.shape[0] - 1), dim=1).indices.tolist()
    return {feature: tuple(row) for feature, row in zip(features, found, strict=True)}


def collect_evidence(
    features: Iterable[int],
    sae: SparseAutoencoder,
    model: Model,
    documents: Iterable[TokenDocument | TextDocument | str],
    *,
    n_tokens: int = 60_000,
    context: int = 24,
    n_top: int = 10,
    n_quantiles: int = 6,
    n_held_out: int = 30,
    n_neighbours: int = 3,
    batch_tokens: int = 4096,
) -> Collection:
    """Evidence for all `features` at once, from at most `n_tokens` tokens of `documents`.

    Texts are run through the model up to the SAE's hook; `TokenDocument`s that bring their activations are not. Special tokens,
    first tokens of texts and attention sinks (norm > 10 x the model's median) never count as firing. At most one context per
    document, and no text twice. The result does not depend on the order of the documents (as long as all of them are read).

    Raises:
        WorkbenchError: a feature that the SAE does not have, or nothing to read.
    """
    asked = _checked(features, sae)
    neighbours = nearest_features(sae.decoder_directions, asked, n_neighbours)
    tracked = list(dict.fromkeys([*asked, *(other for near in neighbours.values() for other in near)]))
    reading = Reading(sae, model, tracked, context, capacity=2 * max(n_top, n_held_out))
    with track("Reading contexts", n_tokens, "tokens") as step:
        for batch in batches(model, documents, n_tokens, batch_tokens):
            reading.read(batch)
            step(sum(len(document.ids) for document in batch))
    if not reading.n_tokens:
        raise WorkbenchError(
            "there is no text to read features in", "documents or rollouts", "give texts or a vector"
        )
    return reading.collection(asked, neighbours, n_top=n_top, n_quantiles=n_quantiles, n_held_out=n_held_out)


def _checked(features: Iterable[int], sae: SparseAutoencoder) -> list[int]:
    asked = list(dict.fromkeys(int(feature) for feature in features))
    bad = [feature for feature in asked if not 0 <= feature < sae.d_sae]
    if bad:
        raise WorkbenchError(
            f"there is no feature {bad[0]} in {sae.id}", f"0 to {sae.d_sae - 1}", "choose another feature"
        )
    return asked


def batches(
    model: Model, documents: Iterable[TokenDocument | TextDocument | str], n_tokens: int, batch_tokens: int
) -> Iterator[list[TokenDocument]]:
    """Documents in groups of about `batch_tokens` tokens, until `n_tokens` have been handed out."""
    batch: list[TokenDocument] = []
    total = size = 0
    for document in _tokenised(model, documents):
        if total >= n_tokens:
            break
        batch.append(document)
        total += len(document.ids)
        size += len(document.ids)
        if size >= batch_tokens:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _tokenised(
    model: Model, documents: Iterable[TokenDocument | TextDocument | str]
) -> Iterator[TokenDocument]:
    for document in documents:
        if isinstance(document, TokenDocument):
            yield document
        else:
            yield from text_stream(model, [document])

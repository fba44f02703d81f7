"""How well a label tells where its feature fires, by the embedder that had no part in writing it: the usual score."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workbench.labeling.contexts.reading import Collection
from workbench.labeling.scores.embedding import EmbeddingScorer
from workbench.labeling.scores.protocol import Label
from workbench.labeling.scores.scoring import score

if TYPE_CHECKING:
    from workbench.labeling.embedders import WordVectors


def score_label(
    label: Label,
    feature: int,
    collection: Collection,
    *,
    vectors: WordVectors | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any] | None:
    """The record of the label's `EmbeddingScorer` score (`LabelScore.record`); None with fewer than five firing contexts or
    fewer than five of every kind of negative."""
    found = score(label, feature, collection, EmbeddingScorer(vectors=vectors), n_bootstrap=n_bootstrap, seed=seed)
    return found.record()

"""How well a label tells where its feature fires: detection by an embedder that had no part in writing it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from workbench.base.randomness import derive_seed
from workbench.labeling.contexts.collection import Collection, HeldOut
from workbench.labeling.explainers.offline import label_content
from workbench.labeling.words import nearby_words

if TYPE_CHECKING:
    import numpy as np

    from workbench.labeling.embedders import WordVectors

KIND = "glove_detection_auroc"
MIN_HELD_OUT = 5
WINDOW = 5


def score_label(
    label: str,
    feature: int,
    collection: Collection,
    *,
    vectors: WordVectors | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any] | None:
    """{"kind", "value", "interval": [low, high]} of a label's detection AUROC, None with fewer than 5 contexts on either side.

    Every held-out context gets the cosine between the label and the words within 5 tokens of its marked token, both as
    IDF-weighted mean GloVe vectors. Positives are held-out contexts on which the feature fires; negatives are random
    contexts and contexts of its nearest decoder neighbours, in none of which it fires. The interval (95%) resamples
    contexts of both sides.

    Source of the task: detection scoring, Paulo et al. 2024 (arXiv 2410.13928), here without a language model.
    """
    from workbench.labeling.embedders import load_glove

    positives, negatives = detection_sets(feature, collection)
    if min(len(positives), len(negatives)) < MIN_HELD_OUT:
        return None
    vectors = vectors or load_glove()
    target = vectors.embed_text(label_content(label))
    wins = _wins(_similarities(target, positives, vectors), _similarities(target, negatives, vectors))
    interval = _interval(wins, n_bootstrap, derive_seed("label score", feature, label, seed))
    return {"kind": KIND, "value": round(float(wins.mean()), 4), "interval": interval}


def detection_sets(feature: int, collection: Collection) -> tuple[list[HeldOut], list[HeldOut]]:
    """Held-out contexts in which the feature fires, and others in which it does not: random, then of its decoder neighbours."""
    positives = list(collection.held_out.get(feature, ()))
    others = [
        held for near in collection.neighbours.get(feature, ()) for held in collection.held_out.get(near, ())
    ]
    taken = {held.context.text for held in positives}
    negatives = []
    for held in (*collection.random, *others):
        if feature not in held.active and held.context.text not in taken:
            taken.add(held.context.text)
            negatives.append(held)
    return positives, negatives


def _similarities(target: np.ndarray, held_out: Sequence[HeldOut], vectors: WordVectors) -> np.ndarray:
    import numpy as np

    return np.array([float(target @ vectors.embed(nearby_words(h.context, window=WINDOW))) for h in held_out])


def _wins(positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """[n_positives, n_negatives]: 1 where the positive is more similar, 1/2 at a tie; the mean is the AUROC."""
    difference = positives[:, None] - negatives[None, :]
    return (difference > 0) + 0.5 * (difference == 0)


def _interval(wins: np.ndarray, n_bootstrap: int, seed: int) -> list[float]:
    """The 95% percentile interval of the AUROC, contexts of both sides resampled."""
    import numpy as np

    rng = np.random.default_rng(seed)
    n, m = wins.shape
    rows = rng.multinomial(n, np.full(n, 1 / n), size=n_bootstrap) / n
    columns = rng.multinomial(m, np.full(m, 1 / m), size=n_bootstrap) / m
    values = ((rows @ wins) * columns).sum(1)
    return [round(float(x), 4) for x in np.quantile(values, (0.025, 0.975))]

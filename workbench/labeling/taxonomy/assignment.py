"""Which category of a trait's taxonomy a label belongs to, with a calibrated probability, "none of these" among the outcomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from workbench.base.display import Shown
from workbench.labeling.explainers.offline import label_content
from workbench.labeling.labels import NONE_OF_THESE, UNCLEAR
from workbench.labeling.taxonomy.calibration import Calibration, load_calibration
from workbench.labeling.taxonomy.phrases import assignable, category_phrases

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.personas.traits import Category, Trait

Embedder = Callable[[Sequence[str]], "Tensor"]

GIVEN_AT = 0.5
"""An outcome is given when its probability is at least this; with none so likely the label stays "unclear"."""


@dataclass(frozen=True)
class Assignment:
    """A category id, "none" (of these) or "unclear" (no outcome reaches one half).

    `confidence` is the calibrated probability of the likeliest outcome (of `runner_up` for "unclear", which is then the
    likeliest), `probabilities` those of all outcomes, "none" included; they sum to 1.
    """

    category: str
    confidence: float
    runner_up: str
    probabilities: Mapping[str, float] = field(default_factory=dict)

    def sentence(self) -> str:
        """One sentence for the notes of a label."""
        if not self.probabilities:
            return "Category left unclear: the trait has no taxonomy."
        by = f"by MiniLM cosine with probability {self.confidence:.2f}"
        if self.category == UNCLEAR:
            return f"Category left unclear: the likeliest, {by}, is {self.runner_up}."
        said = "None of the trait's categories," if self.category == NONE_OF_THESE else "Category assigned"
        return f"{said} {by} (next: {self.runner_up})."


@dataclass(frozen=True, eq=False, repr=False)
class Assigner(Shown):
    """The categories of one trait as vectors `[C, d]` of unit norm, ready to be compared with labels.

    A category's vector is the mean of its examples' embeddings plus half the sum of those of its definition ("name:
    description") and of its words; where nobody wrote examples, the definition and the words alone.
    """

    categories: tuple[str, ...]
    vectors: Tensor
    calibration: Calibration
    embedder: Embedder

    @classmethod
    def of(cls, trait: Trait, *, embedder: Embedder | None = None) -> Assigner:
        """For that trait, in MiniLM's space unless another embedder is given; the constants are those of MiniLM."""
        from workbench.labeling.embedders import load_minilm

        embed, categories, phrases = embedder or load_minilm(), assignable(trait), category_phrases(trait)
        vectors = category_vectors(categories, phrases, embed)
        return cls(tuple(c.id for c in categories), vectors, load_calibration()["phrases" if phrases else "words"], embed)

    def probabilities(self, labels: Sequence[str]) -> Tensor:
        """`[n, C + 1]` calibrated probabilities of the categories, "none of these" last."""
        return self.calibration.probabilities(self.embedder([label_content(label) for label in labels]) @ self.vectors.T)

    def assign(self, label: str) -> Assignment:
        """What the label belongs to. Only its words count: a context says what a text is about, not what the feature does."""
        return self.assign_all([label])[0]

    def assign_all(self, labels: Sequence[str]) -> list[Assignment]:
        """The same for many labels at once."""
        outcomes = (*self.categories, NONE_OF_THESE)
        return [_assignment(dict(zip(outcomes, row, strict=True))) for row in self.probabilities(labels).tolist()]


def assign_category(label: str, trait: Trait, *, embedder: Embedder | None = None) -> Assignment:
    """The category of a label under that trait, with its calibrated probability.

    How far the probability can be trusted was measured on held-out phrases: `data/calibration.json`, made by
    `scripts/calibrate_assignment.py`. Labels that read differently (lists of tokens) may be less well calibrated, and an
    embedding hardly knows a word from its opposite: "empathy and compassion" is near callousness.
    """
    if not assignable(trait):
        return Assignment(UNCLEAR, 0.0, UNCLEAR)
    return (load_assigner(trait) if embedder is None else Assigner.of(trait, embedder=embedder)).assign(label)


@lru_cache(maxsize=8)
def load_assigner(trait: Trait) -> Assigner:
    """The assigner of a trait in MiniLM's space, made once (a few seconds)."""
    return Assigner.of(trait)


def category_vectors(categories: Sequence[Category], phrases: Mapping[str, Sequence[str]], embed: Embedder) -> Tensor:
    """`[C, d]`: the unit vectors of the categories, from their definitions, words and examples (if there are any)."""
    import torch

    described = embed([f"{category.name}: {category.description}" for category in categories])
    worded = embed([", ".join(category.words) or category.name for category in categories])
    written = (described + worded) / 2
    if phrases:
        written = written + torch.stack([embed(phrases[category.id]).mean(dim=0) for category in categories])
    return torch.nn.functional.normalize(written, dim=-1)


def _assignment(probabilities: dict[str, float]) -> Assignment:
    best, second = sorted(probabilities, key=lambda name: -probabilities[name])[:2]
    confidence = probabilities[best]
    if confidence < GIVEN_AT:
        return Assignment(UNCLEAR, confidence, best, probabilities)
    return Assignment(best, confidence, second, probabilities)

"""A label of one SAE feature, and the labels of one SAE."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from workbench.base import display
from workbench.labeling.evidence import FeatureEvidence

MAX_WORDS = 12
MAX_CHARACTERS = 160
AUTHOR_KINDS = ("human", "model", "offline")
STATUSES = ("proposed", "confirmed", "disputed", "rejected")
UNCLEAR = "unclear"


@dataclass(frozen=True)
class FeatureLabel:
    """What one feature is said to be, by whom, on which evidence, and how well that held up.

    `label` has at most 12 words; `categories` maps a trait's name to a category id of its taxonomy; `author` is
    {"kind": "human" | "model" | "offline", "name"}; `score` {"kind", "value", "interval": [low, high] | None} or None;
    `confidence` the author's own, between 0 and 1, or None; `origin` "shipped" (read from a file) or "made" (by this run).
    """

    feature: int
    label: str
    explanation: str = ""
    categories: Mapping[str, str] = field(default_factory=dict)
    author: Mapping[str, str] = field(default_factory=lambda: {"kind": "offline", "name": "unnamed"})
    status: str = "proposed"
    score: Mapping[str, Any] | None = None
    evidence: FeatureEvidence | None = None
    notes: str = ""
    confidence: float | None = None
    origin: str = "made"

    @property
    def category(self) -> str:
        """The category under the trait in question: the first one given, "unclear" when there is none."""
        return next(iter(self.categories.values()), UNCLEAR)

    def category_for(self, trait: str) -> str | None:
        """The category id under that trait's taxonomy, None when nobody has assigned one."""
        return self.categories.get(trait)

    def with_trait_first(self, trait: str) -> FeatureLabel:
        """The same label with that trait's category in front, so that `category` means that trait ("unclear" if missing)."""
        first = {trait: self.categories.get(trait, UNCLEAR)}
        return replace(self, categories=first | {k: v for k, v in self.categories.items() if k != trait})


@dataclass(frozen=True)
class LabelSet:
    """The labels of one SAE, tied to the hash of its weights. Iterates over the labels in order of the feature index."""

    sae_id: str
    sae_hash: str
    labels: Mapping[int, FeatureLabel] = field(default_factory=dict)
    trait: str | None = None
    warnings: tuple[str, ...] = ()

    def __getitem__(self, feature: int) -> FeatureLabel:
        return self.labels[feature]

    def get(self, feature: int) -> FeatureLabel | None:
        """The label of that feature, or None."""
        return self.labels.get(feature)

    def __contains__(self, feature: object) -> bool:
        return feature in self.labels

    def __iter__(self) -> Iterator[FeatureLabel]:
        return (self.labels[feature] for feature in sorted(self.labels))

    def __len__(self) -> int:
        return len(self.labels)

    def matches(self, sae: Any) -> bool:
        """Whether these labels were made for that SAE (an SAE, a Decomposition's `sae` mapping): the weights' hash decides."""
        found = sae.get("weights_hash") if isinstance(sae, Mapping) else getattr(sae, "weights_hash", None)
        return bool(self.sae_hash) and found == self.sae_hash

    def applied_to(self, sae: Any) -> LabelSet:
        """These labels if they belong to that SAE; otherwise none, and a warning that says so."""
        if self.matches(sae) or not self.labels:
            return self
        warning = (
            f"{len(self.labels)} labels of {self.sae_id} were left out: they were written for weights {self.sae_hash[:12]}, "
            "this SAE has others. Feature indices mean nothing across SAEs."
        )
        return replace(self, labels={}, warnings=(*self.warnings, warning))

    def only(self, features: Iterable[int]) -> LabelSet:
        """The labels of these features alone."""
        return replace(self, labels={f: self.labels[f] for f in features if f in self.labels})

    def for_trait(self, trait: str) -> LabelSet:
        """The same labels, each with that trait's category in front."""
        return replace(
            self, trait=trait, labels={f: item.with_trait_first(trait) for f, item in self.labels.items()}
        )

    def table(self) -> list[dict[str, Any]]:
        """One plain row per label: feature, label, category, author, status, score."""
        return [
            {
                "feature": item.feature,
                "label": item.label,
                "category": item.category,
                "author": dict(item.author),
                "status": item.status,
                "score": None if item.score is None else dict(item.score),
            }
            for item in self
        ]

    def _repr_html_(self) -> str | None:
        return display.html_for(self)

"""A label of one SAE feature, and the labels of one SAE."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from workbench.base.display import Shown
from workbench.labeling.evidence import FeatureEvidence

MAX_WORDS = 12
MAX_CHARACTERS = 160
AUTHOR_KINDS = ("human", "model", "offline")
STATUSES = ("proposed", "confirmed", "disputed", "rejected")
UNCLEAR = "unclear"
NONE_OF_THESE = "none"
"""The category of a label that is clear and belongs to no category of the trait."""


@dataclass(frozen=True, repr=False)
class FeatureLabel(Shown):
    """What one feature is said to be, by whom, on which evidence, and how well that held up.

    `label` has at most 12 words; `categories` maps a trait's name to a category id of its taxonomy, `category_confidence` to how
    sure that is; `author` is {"kind": "human" | "model" | "offline", "name"} and may name a "method". `score` is the headline
    {"kind", "value", "interval": [low, high] | None, "by", "n"} or None, `scores` the further ones. `confidence` is the author's
    own, between 0 and 1, or None; `origin` "shipped" (read from a file) or "made" (by this run). `date` is in UTC ("2026-01-31"
    or "2026-01-31T12:00:00Z"), "" when not known. `evidence_hash` names the evidence that the author read
    (`FeatureEvidence.hash`).
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
    date: str = ""
    evidence_hash: str = ""
    scores: tuple[Mapping[str, Any], ...] = ()
    category_confidence: Mapping[str, float] = field(default_factory=dict)

    @property
    def category(self) -> str:
        """The category under the trait in question: the first one given, "unclear" when there is none."""
        return next(iter(self.categories.values()), UNCLEAR)

    @property
    def named_evidence(self) -> str:
        """The hash of the evidence that its author read: for a label that this run made, by default that of `evidence`."""
        own = self.evidence.hash if self.evidence is not None and self.origin == "made" else ""
        return self.evidence_hash or own

    def category_for(self, trait: str) -> str | None:
        """The category id under that trait's taxonomy, None when nobody has assigned one."""
        return self.categories.get(trait)

    def with_trait_first(self, trait: str) -> FeatureLabel:
        """The same label with that trait's category in front, so that `category` means that trait ("unclear" if missing)."""
        first = {trait: self.categories.get(trait, UNCLEAR)}
        return replace(self, categories=first | {k: v for k, v in self.categories.items() if k != trait})


def is_a_persons(label: FeatureLabel) -> bool:
    """Whether a person wrote or confirmed that label."""
    return label.author.get("kind") == "human" or label.status == "confirmed"


def fuller(one: FeatureEvidence | None, other: FeatureEvidence | None) -> FeatureEvidence | None:
    """The evidence from more tokens, then the one with more contexts, then by its hash: the same whichever comes first."""

    def extent(evidence: FeatureEvidence) -> tuple[int, int, str]:
        return evidence.n_tokens, len(evidence.contexts), evidence.hash

    if one is None or other is None:
        return one or other
    return max(one, other, key=extent)


def utc_now() -> str:
    """The present second in UTC as a label's date has it: "2026-01-31T12:00:00Z"."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def precedence(label: FeatureLabel) -> tuple[Any, ...]:
    """The rule that says which label of a feature counts, as a sort key: the first in this order does.

    A person's label comes before a model's, a model's before an offline explainer's. Among those of one kind, confirmed ones come
    first and disputed ones last, then the newest (an unknown date is the oldest). A rejected label comes after everything and
    never counts. Author and wording break ties, so that the order never depends on how the labels were found.
    """
    kind, standing = label.author.get("kind", ""), {"confirmed": 0, "proposed": 1, "disputed": 2}
    newest_first = (*(-ord(character) for character in label.date), 1)
    return (
        label.status == "rejected",
        AUTHOR_KINDS.index(kind) if kind in AUTHOR_KINDS else len(AUTHOR_KINDS),
        standing.get(label.status, 3),
        newest_first,
        (label.author.get("name", ""), label.author.get("method", ""), label.label, label.explanation),
    )


def preferred(labels: Iterable[FeatureLabel]) -> FeatureLabel | None:
    """The label that counts among several of one feature, by `precedence`; None when none is left.

    A wording that a person rejected does not count either, whichever program it came from.
    """
    said = tuple(labels)
    refused = {item.label for item in said if item.status == "rejected" and item.author.get("kind") == "human"}
    kept = [
        item
        for item in said
        if item.status != "rejected" and (item.author.get("kind") == "human" or item.label not in refused)
    ]
    return min(kept, key=precedence) if kept else None


@dataclass(frozen=True, repr=False)
class FeatureRecord(Shown):
    """Everything that is said of one feature of one SAE: the labels of all authors, and the evidence, which they share."""

    sae_id: str
    sae_hash: str
    feature: int
    labels: tuple[FeatureLabel, ...] = ()
    evidence: FeatureEvidence | None = None
    warnings: tuple[str, ...] = ()

    @property
    def label(self) -> FeatureLabel | None:
        """The label that counts; see `precedence`."""
        return preferred(self.labels)


@dataclass(frozen=True, repr=False)
class LabelSet(Shown):
    """The labels of one SAE, tied to the hash of its weights. Iterates over the labels in order of the feature index.

    `labels` has the one label of each feature that counts; `records` everything that was said of it, where files were read.
    """

    sae_id: str
    sae_hash: str
    labels: Mapping[int, FeatureLabel] = field(default_factory=dict)
    trait: str | None = None
    warnings: tuple[str, ...] = ()
    records: Mapping[int, FeatureRecord] = field(default_factory=dict)

    def __getitem__(self, feature: int) -> FeatureLabel:
        return self.labels[feature]

    def get(self, feature: int) -> FeatureLabel | None:
        """The label of that feature, or None."""
        return self.labels.get(feature)

    def all_of(self, feature: int) -> tuple[FeatureLabel, ...]:
        """Every label of that feature, whoever wrote it, the one that counts first; rejected ones come last."""
        if feature in self.records:
            return tuple(sorted(self.records[feature].labels, key=precedence))
        return (self.labels[feature],) if feature in self.labels else ()

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
        return replace(self, labels={}, records={}, warnings=(*self.warnings, warning))

    def only(self, features: Iterable[int]) -> LabelSet:
        """The labels of these features alone."""
        wanted = dict.fromkeys(features)
        labels = {f: self.labels[f] for f in wanted if f in self.labels}
        return replace(self, labels=labels, records={f: self.records[f] for f in wanted if f in self.records})

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

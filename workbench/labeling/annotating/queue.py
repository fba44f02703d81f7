"""What is to be read, and in which order."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from workbench.base.errors import WorkbenchError
from workbench.labeling.evidence import FeatureEvidence
from workbench.labeling.labels import FeatureLabel, LabelSet, preferred

ORDERS = ("rank", "shuffled", "index")


@dataclass(frozen=True)
class Item:
    """One feature to be read: its evidence, and the label that is proposed for it (None: nobody proposed one)."""

    feature: int
    evidence: FeatureEvidence | None = None
    proposed: FeatureLabel | None = None


def make_queue(
    labels: LabelSet | None = None,
    *,
    evidence: Mapping[int, FeatureEvidence] | None = None,
    features: Sequence[int] | None = None,
    order: str = "rank",
    seed: int = 0,
) -> tuple[Item, ...]:
    """The features to be read, each once.

    Proposed is, of the `labels` of a feature, the one that counts among those of programs; a person's label is never offered as
    a proposal. `evidence` is preferred to the evidence that labels carry. `features` says which features, in order of rank
    (default: those of `labels`, then those of `evidence`). `order` "rank" keeps that order, "index" sorts by feature,
    "shuffled" sorts by a hash of (seed, feature): the same seed gives the same order, and a feature more moves no other.

    Raises:
        WorkbenchError: an unknown order, or nothing to read.
    """
    if order not in ORDERS:
        raise WorkbenchError(f"the order {order!r}", "one of " + ", ".join(ORDERS), "correct --order")
    given = evidence or {}
    said = {} if labels is None else {f: labels.all_of(f) for f in sorted({*labels.labels, *labels.records})}
    ranked = list(dict.fromkeys(features if features is not None else [*said, *given]))
    if not ranked:
        raise WorkbenchError("there is no feature to read", "labels or contexts of at least one feature", "name features to read")
    return tuple(_item(f, said.get(f, ()), given.get(f)) for f in _ordered(ranked, order, seed))


def _item(feature: int, said: Sequence[FeatureLabel], evidence: FeatureEvidence | None) -> Item:
    proposed = preferred(label for label in said if label.author.get("kind") != "human")
    carried = (label.evidence for label in (*((proposed,) if proposed else ()), *said))
    return Item(feature, evidence or next(filter(None, carried), None), proposed)


def _ordered(features: list[int], order: str, seed: int) -> list[int]:
    if order == "index":
        return sorted(features)
    if order == "shuffled":
        return sorted(features, key=lambda f: hashlib.sha256(f"{seed}:{f}".encode()).digest())
    return features

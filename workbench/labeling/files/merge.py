"""Label folders put together: who wins is a rule, and what the rule cannot decide is listed, not lost.

For one feature and one author (kind, name and method):

- the newer date wins (an unknown date is the oldest); but of a program's labels, one that a person confirmed does;
- equal dates and the same words: one label, with the scores of both and the firmer status (confirmed first, then rejected,
  disputed, proposed);
- equal dates and different words: a conflict. Both stay, each `disputed`, until the author says which one it is.

Labels of different authors never meet: no program overwrites a person. Of the evidence, the one from more tokens stays. With a
`base` that both sides come from, what only one side changed or removed is taken from that side; a label that one side removed
and the other changed stays and is listed. Labels for other weights of the same SAE are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from workbench.base.errors import WorkbenchError
from workbench.base.store import content_hash
from workbench.labeling.files.record import in_order
from workbench.labeling.labels import FeatureLabel, FeatureRecord, fuller

Key = tuple[str, int]
Author = tuple[str, str, str]
Records = Mapping[Key, FeatureRecord]
_FIRMNESS = ("proposed", "disputed", "rejected", "confirmed")
_WORDS = ("label", "explanation", "categories", "category_confidence", "notes", "confidence")


@dataclass(frozen=True)
class Conflict:
    """What the rule could not decide: both labels stay in the merged record."""

    sae_id: str
    feature: int
    author: Mapping[str, str]
    kind: str
    labels: tuple[str, ...]

    def row(self) -> dict[str, Any]:
        """{"sae", "feature", "author", "kind", "labels"}."""
        return {
            "sae": self.sae_id,
            "feature": self.feature,
            "author": dict(self.author),
            "kind": self.kind,
            "labels": list(self.labels),
        }


@dataclass(frozen=True)
class Merged:
    """The records of both sides put together, and the conflicts that are new to both."""

    records: Records
    conflicts: tuple[Conflict, ...] = ()


def merge(ours: Records, theirs: Records, base: Records | None = None) -> Merged:
    """Both sides in one, by the rules above; idempotent, and without conflicts commutative.

    Raises:
        WorkbenchError: labels of one SAE for different weights.
    """
    _refuse_other_weights(*ours.values(), *theirs.values(), *(base or {}).values())
    records: dict[Key, FeatureRecord] = {}
    conflicts: list[Conflict] = []
    for key in sorted({*ours, *theirs}):
        merged, found = _merge_feature(ours.get(key), theirs.get(key), (base or {}).get(key), three_way=base is not None)
        conflicts.extend(found)
        if merged is not None:
            records[key] = merged
    return Merged(records, tuple(conflicts))


def by_author(labels: Iterable[FeatureLabel]) -> dict[Author, tuple[FeatureLabel, ...]]:
    """The labels of each author, in the order in which they are written; without evidence."""
    groups: dict[Author, tuple[FeatureLabel, ...]] = {}
    for label in in_order(labels):
        author = (label.author.get("kind", ""), label.author.get("name", ""), label.author.get("method", ""))
        groups[author] = (*groups.get(author, ()), replace(label, evidence=None, evidence_hash=label.named_evidence))
    return groups


def _refuse_other_weights(*records: FeatureRecord) -> None:
    hashes: dict[str, str] = {}
    for record in records:
        known = hashes.setdefault(record.sae_id, record.sae_hash)
        if known != record.sae_hash:
            raise WorkbenchError(
                f"labels of {record.sae_id} for the weights {known[:12]}, and for {record.sae_hash[:12]} "
                f"(feature {record.feature})",
                "labels for the same weights: feature numbers mean nothing across SAEs",
                "merge only the folders of one SAE; `workbench labels check` names the files",
            )


def _merge_feature(
    ours: FeatureRecord | None, theirs: FeatureRecord | None, base: FeatureRecord | None, *, three_way: bool
) -> tuple[FeatureRecord | None, list[Conflict]]:
    one = ours or theirs
    assert one is not None
    sides = [by_author(() if record is None else record.labels) for record in (ours, theirs, base)]
    kept: list[FeatureLabel] = []
    conflicts: list[Conflict] = []
    for author in sorted({*sides[0], *sides[1]}):
        mine, other, before = (side.get(author, ()) for side in sides)
        labels, problem = _three_way(mine, other, before) if three_way else _two_way(mine, other)
        kept.extend(labels)
        if problem:
            conflicts.append(_conflict(one, labels, problem))
    if not kept:
        return None, conflicts
    evidence = fuller(None if ours is None else ours.evidence, None if theirs is None else theirs.evidence)
    labels = tuple(replace(label, evidence=evidence) for label in in_order(kept))
    return FeatureRecord(one.sae_id, one.sae_hash, one.feature, labels, evidence), conflicts


def _conflict(record: FeatureRecord, labels: tuple[FeatureLabel, ...], kind: str) -> Conflict:
    return Conflict(record.sae_id, record.feature, labels[0].author, kind, tuple(label.label for label in labels))


def _three_way(
    mine: tuple[FeatureLabel, ...], other: tuple[FeatureLabel, ...], before: tuple[FeatureLabel, ...]
) -> tuple[tuple[FeatureLabel, ...], str]:
    if mine == other or other == before:
        return mine, ""
    if mine == before:
        return other, ""
    if before and not (mine and other):
        return mine or other, "removed and changed"
    return _two_way(mine, other)


def _two_way(
    mine: tuple[FeatureLabel, ...], other: tuple[FeatureLabel, ...]
) -> tuple[tuple[FeatureLabel, ...], str]:
    if mine == other or not (mine and other):
        return mine or other, ""
    top = max(_standing(label) for label in (*mine, *other))
    said: dict[str, FeatureLabel] = {}
    for label in (label for label in (*mine, *other) if _standing(label) == top):
        words = _words(label)
        said[words] = _united(said.get(words, label), label)
    if len(said) == 1:
        return tuple(said.values()), ""
    both = in_order(replace(label, status="disputed") for label in said.values())
    return both, "" if both in (mine, other) else "same date, different words"


def _standing(label: FeatureLabel) -> tuple[bool, str]:
    return label.status == "confirmed" and label.author.get("kind") != "human", label.date


def _words(label: FeatureLabel) -> str:
    return content_hash({name: getattr(label, name) for name in _WORDS})


def _united(one: FeatureLabel, other: FeatureLabel) -> FeatureLabel:
    """Two copies of a label that differ in status, scores or the evidence that they name; the same for any number of copies."""
    headlines = {content_hash(label.score): label.score for label in (one, other) if label.score is not None}
    headline = min(headlines, default="")
    further = {content_hash(score): score for label in (one, other) for score in label.scores} | headlines
    return replace(
        one,
        status=max(one.status, other.status, key=_FIRMNESS.index),
        score=headlines.get(headline),
        scores=tuple(further[name] for name in sorted(further) if name != headline),
        evidence_hash=max(one.evidence_hash, other.evidence_hash),
    )

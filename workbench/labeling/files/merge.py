"""Label folders put together: who wins is a rule, and what the rule cannot decide is listed, not lost.

For one feature and one author (kind, name and method):

- equal dates and the same words: one label, with the scores of both and the firmer status (confirmed first, then rejected,
  disputed, proposed);
- of the others, the newer date wins (an unknown date is the oldest), with two exceptions for what a person confirmed. Of a
  program's labels, a confirmed one wins over the others, whatever their dates. And a confirmed label stays as it is beside
  others, unless each side has a single label, both by the same person: then the person changed their mind;
- where more than one label is left, that is a conflict: all stay, the `proposed` ones as `disputed`, until the author says which
  one it is.

What a person wrote or confirmed and the rules leave out is listed. Labels of different authors never meet: no program overwrites
a person. Of the evidence, the one from more tokens stays. With a
`base` that both sides come from, what only one side changed or removed is taken from that side; a label that one side removed
and the other changed stays and is listed. Labels for other weights of the same SAE are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.store import content_hash
from workbench.labeling.files.record import in_order
from workbench.labeling.labels import FeatureLabel, FeatureRecord, fuller, is_a_persons

Key = tuple[str, int]
Author = tuple[str, str, str]
Records = Mapping[Key, FeatureRecord]
_FIRMNESS = ("proposed", "disputed", "rejected", "confirmed")
_LEFT_OUT = "a person's label left out"
_WORDS = ("label", "explanation", "categories", "category_confidence", "notes", "confidence")


@dataclass(frozen=True)
class Conflict:
    """What the rule could not decide (all labels stay in the merged record), or a person's labels that it left out."""

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


@dataclass(frozen=True, repr=False)
class Merged(Shown):
    """The records of both sides put together, the conflicts that our side did not have, and what was left out of a person's."""

    records: Records
    conflicts: tuple[Conflict, ...] = ()
    left_out: tuple[Conflict, ...] = ()


def merge(ours: Records, theirs: Records, base: Records | None = None) -> Merged:
    """Both sides in one, by the rules above; merging either side again changes nothing, and without a base no side comes first.

    Raises:
        WorkbenchError: labels of one SAE for different weights.
    """
    _refuse_other_weights(*ours.values(), *theirs.values(), *(base or {}).values())
    records: dict[Key, FeatureRecord] = {}
    found: list[Conflict] = []
    for key in sorted({*ours, *theirs}):
        merged, told = _merge_feature(ours.get(key), theirs.get(key), (base or {}).get(key), three_way=base is not None)
        found.extend(told)
        if merged is not None:
            records[key] = merged
    left_out = tuple(item for item in found if item.kind == _LEFT_OUT)
    return Merged(records, tuple(item for item in found if item.kind != _LEFT_OUT), left_out)


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
        if lost := _persons_left_out((*mine, *other), labels):
            conflicts.append(_conflict(one, lost, _LEFT_OUT))
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
    said: dict[tuple[str, str], FeatureLabel] = {}
    for label in (*mine, *other):
        key = _words(label), label.date
        said[key] = _united(said.get(key, label), label)
    single = len(mine) == len(other) == 1
    kept = [one for one in said.values() if not any(_beats(label, one, single=single) for label in said.values())]
    if len(kept) > 1:
        kept = [replace(one, status="disputed") if one.status == "proposed" else one for one in kept]
    result = in_order(kept)
    if len(result) == 1 or result == mine:
        return result, ""
    same_date = len({label.date for label in result}) == 1
    return result, "same date, different words" if same_date else "a confirmed label and others"


def _beats(label: FeatureLabel, other: FeatureLabel, *, single: bool) -> bool:
    """Whether `other` goes because of `label`, of the same author; a strict order, so that merging again changes nothing."""
    by_person = label.author.get("kind") == "human"
    if other.status == "confirmed" and not (single and by_person):
        return label.status == "confirmed" and _words(label) == _words(other) and label.date > other.date
    if label.status == "confirmed" and other.status != "confirmed" and not by_person:
        return True
    return label.date > other.date


def _persons_left_out(before: Iterable[FeatureLabel], kept: Iterable[FeatureLabel]) -> tuple[FeatureLabel, ...]:
    """What a person wrote or confirmed and what is not among the labels that are kept, in words and decision."""
    said = {_decision(label) for label in kept}
    lost = {_decision(label): label for label in before if is_a_persons(label)}
    return in_order(label for decision, label in lost.items() if decision not in said)


def _decision(label: FeatureLabel) -> tuple[str, str]:
    return _words(label), label.status if label.status in ("confirmed", "rejected") else ""


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

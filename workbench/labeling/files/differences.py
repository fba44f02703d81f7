"""Two label folders side by side: what was added, removed and changed, label by label and field by field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from workbench.labeling.files.label_part import label_document
from workbench.labeling.files.merge import Author, Key, Records, by_author
from workbench.labeling.labels import FeatureLabel, FeatureRecord


@dataclass(frozen=True)
class Change:
    """What is different about one author's labels of one feature: `fields` maps the names to (before, after)."""

    sae_id: str
    feature: int
    author: Author | None
    kind: str
    fields: Mapping[str, tuple[Any, Any]]

    def row(self) -> dict[str, Any]:
        """{"sae", "feature", "author", "change", "fields": {name: {"before", "after"}}}; author None: the evidence changed."""
        names = ("kind", "name", "method")
        author = None if self.author is None else {k: v for k, v in zip(names, self.author, strict=True) if v}
        fields = {name: {"before": before, "after": after} for name, (before, after) in self.fields.items()}
        return {"sae": self.sae_id, "feature": self.feature, "author": author, "change": self.kind, "fields": fields}


def diff(before: Records, after: Records) -> list[Change]:
    """What was added, removed and changed, label by label and field by field, in order of SAE, feature and author."""
    changes: list[Change] = []
    for key in sorted({*before, *after}):
        old, new = before.get(key), after.get(key)
        changes.extend(_label_changes(key, old, new))
        hashes = tuple(None if r is None or r.evidence is None else r.evidence.hash for r in (old, new))
        if old is not None and new is not None and hashes[0] != hashes[1]:
            changes.append(Change(*key, None, "changed", {"evidence": (hashes[0], hashes[1])}))
    return changes


def _label_changes(key: Key, old: FeatureRecord | None, new: FeatureRecord | None) -> Iterable[Change]:
    was, now = (by_author(() if record is None else record.labels) for record in (old, new))
    for author in sorted({*was, *now}):
        gone = [label for label in was.get(author, ()) if label not in now.get(author, ())]
        come = [label for label in now.get(author, ()) if label not in was.get(author, ())]
        for one, other in zip(gone, come, strict=False):
            yield Change(*key, author, "changed", _fields(one, other))
        for label in gone[len(come) :]:
            yield Change(*key, author, "removed", {name: (value, None) for name, value in _shown(label).items()})
        for label in come[len(gone) :]:
            yield Change(*key, author, "added", {name: (None, value) for name, value in _shown(label).items()})


def _fields(one: FeatureLabel, other: FeatureLabel) -> dict[str, tuple[Any, Any]]:
    was, now = _shown(one), _shown(other)
    names = dict.fromkeys((*was, *now))
    return {name: (was.get(name), now.get(name)) for name in names if was.get(name) != now.get(name)}


def _shown(label: FeatureLabel) -> dict[str, Any]:
    return {name: value for name, value in label_document(label).items() if name != "author"}

"""Labels read and written while others may write them too: what the page showed is what a verdict is about, or it is refused.

A verdict goes the way of the annotator: into the person's journal, then into the label file, both in a folder that the user
named. The labels of the run itself are shown and never changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError, unknown_name
from workbench.labeling.annotating.queue import Item
from workbench.labeling.annotating.session import AnnotationSession
from workbench.labeling.files.locking import writing
from workbench.labeling.files.store import label_files, load_label_file, set_folder, trait_categories
from workbench.labeling.labels import FeatureLabel, FeatureRecord, fuller, precedence, preferred

if TYPE_CHECKING:
    from workbench.labeling.evidence import FeatureEvidence
    from workbench.personas.traits import Trait

VERDICTS = {"confirm": "confirm", "edit": "edit", "reject": "reject", "dispute": "unclear"}
"""What a person may say of a label -> what the annotator calls it."""


class Conflict(WorkbenchError):
    """The label file is no longer what the page showed; `record` is what it says now."""

    def __init__(self, record: FeatureRecord) -> None:
        super().__init__(
            f"somebody else has written about feature {record.feature} since this page was opened; nothing of yours was saved",
            "a verdict about what the page shows",
            "read what it says now, then save again",
        )
        self.record = record


class LabelBook:
    """The labels of one SAE: those of the run (`given`, read only) and those in `folder`, which is read anew when it
    changes.
    """

    def __init__(
        self,
        sae_id: str,
        sae_hash: str,
        given: Mapping[int, FeatureRecord],
        folder: Path | None = None,
        *,
        trait: Trait | None = None,
    ) -> None:
        self.sae_id, self.sae_hash, self.given, self.folder, self.trait = sae_id, sae_hash, given, folder, trait
        self._read: dict[Path, tuple[tuple[int, int, int], FeatureRecord]] = {}

    @property
    def place(self) -> Path | None:
        """The folder of this SAE's files under the user's label folder."""
        return None if self.folder is None else set_folder(self.folder, self.sae_id)

    def record(self, feature: int) -> FeatureRecord:
        """Everything said of a feature: by the run, and in the user's folder, which wins where an author stands in both."""
        own = self._own(feature)
        base = self.given.get(feature) or FeatureRecord(self.sae_id, self.sae_hash, feature)
        if own is None:
            return replace(base, labels=tuple(sorted(base.labels, key=precedence)))
        authors = [dict(label.author) for label in own.labels]
        labels = (*own.labels, *(label for label in base.labels if dict(label.author) not in authors))
        evidence = fuller(own.evidence, base.evidence)
        return replace(base, labels=tuple(sorted(labels, key=precedence)), evidence=evidence, warnings=own.warnings)

    def records(self) -> dict[int, FeatureRecord]:
        """Every feature that somebody said something of, in order."""
        return {feature: self.record(feature) for feature in sorted({*self.given, *self.own()})}

    def own(self) -> list[int]:
        """The features that the user's folder has a file of."""
        place = self.place
        return [] if place is None else [int(path.stem) for path in label_files(place)]

    def labels(self) -> dict[int, FeatureLabel]:
        """The label that counts of each feature that has one."""
        found = ((feature, record.label) for feature, record in self.records().items())
        return {feature: label for feature, label in found if label is not None}

    def version(self, feature: int) -> str:
        """A short name of what the user's file says now: it changes with every change of the file ("" without a file)."""
        path = self._path(feature)
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path is not None and path.is_file() else ""

    def decide(
        self, feature: int, verdict: str, *, annotator: str, version: str, label: str | None = None, category: str | None = None,
        note: str | None = None, evidence: Callable[[], FeatureEvidence | None] = lambda: None,
    ) -> FeatureRecord:  # fmt: skip
        """Write what a person says of a feature, signed with their name; returns what the files say then.

        `verdict` is one of VERDICTS: confirm or reject the label that counts, edit (with the person's own `label`), or
        dispute it. `version` is what the page was made from. `evidence` is asked for where no file has any.

        Raises:
            Conflict: the file has changed since. Nothing is written.
            WorkbenchError: no folder to write to, an unknown verdict or category, a wording that is none, a name that is none,
                another session under the same name, a damaged file.
        """
        if verdict not in VERDICTS:
            raise unknown_name("verdict", verdict, VERDICTS)
        place = self.place
        if self.folder is None or place is None:
            raise WorkbenchError("this explorer shows labels and writes none", "a label folder to write to",
                                 "start it again with --labels FOLDER")  # fmt: skip
        with writing(place):
            if self.version(feature) != version:
                raise Conflict(self.record(feature))
            record = self.record(feature)
            item = Item(feature, record.evidence or evidence(), _proposed(record))
            self._act(item, verdict, annotator, label, category, note)
            return self.record(feature)

    def _act(
        self, item: Item, verdict: str, annotator: str, label: str | None, category: str | None, note: str | None
    ) -> None:
        assert self.folder is not None
        with AnnotationSession(
            [item], self.folder, self.sae_id, self.sae_hash, annotator=annotator, trait=self.trait
        ) as session:
            if session.current is None:  # decided before: "back" shows it again
                session.act("back")
            if category is not None and self.trait is not None:
                session.act("category", category)
            if note is not None:
                session.act("note", note)
            session.act(VERDICTS[verdict], label)
            if session.problem:
                raise WorkbenchError(
                    session.problem, "a label file that can be written", "see what is wrong with it, then save again"
                )

    def _path(self, feature: int) -> Path | None:
        place = self.place
        return None if place is None else place / f"{feature}.yaml"

    def _own(self, feature: int) -> FeatureRecord | None:
        """What the user's file says, if it is of these weights; a file is read again only when it has changed."""
        path = self._path(feature)
        if path is None or not path.is_file():
            return None
        found = path.stat()
        stamp = (found.st_mtime_ns, found.st_size, found.st_ino)  # clocks of file systems are coarse; a new file has a new number
        if path not in self._read or self._read[path][0] != stamp:
            self._read[path] = (stamp, load_label_file(path, taxonomies=trait_categories()))
        record = self._read[path][1]
        if record.sae_hash != self.sae_hash:
            raise WorkbenchError(
                f"{path} holds labels for the weights {record.sae_hash[:12]}",
                f"labels for {self.sae_hash[:12]}, the SAE of this run",
                "give another folder with --labels",
            )  # fmt: skip
        return record


def _proposed(record: FeatureRecord) -> FeatureLabel | None:
    """What a person says yes or no to: the label that counts, or else the first one there is."""
    return preferred(record.labels) or next(iter(record.labels), None)


def record_json(record: FeatureRecord) -> dict[str, Any]:
    """{feature, label, labels: [...]}: `label` is the one that counts (None: none), `labels` all of them, that one first."""
    counts = record.label
    return {
        "feature": record.feature,
        "label": None if counts is None else label_json(counts),
        "labels": [label_json(label) for label in sorted(record.labels, key=precedence)],
        "warnings": list(record.warnings),
    }


def label_json(label: FeatureLabel) -> dict[str, Any]:
    """One label as JSON types."""
    return {
        "label": label.label, "explanation": label.explanation, "categories": dict(label.categories),
        "author": dict(label.author), "status": label.status, "date": label.date, "notes": label.notes,
        "score": None if label.score is None else {key: label.score.get(key) for key in ("kind", "value", "interval")},
    }  # fmt: skip

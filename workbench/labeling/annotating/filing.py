"""A verdict in the label file: signed by the person who gave it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from workbench.base.errors import WorkbenchError
from workbench.base.store import PathLike
from workbench.labeling.annotating.desk import STATUS_OF, Reading
from workbench.labeling.annotating.queue import Item
from workbench.labeling.files.label_part import Taxonomies
from workbench.labeling.files.store import load_label_file, save_label, set_folder, trait_categories
from workbench.labeling.labels import FeatureLabel


def file_verdict(
    reading: Reading, item: Item, root: PathLike, sae_id: str, sae_hash: str, *, annotator: str
) -> Path:
    """Write the label that a verdict amounts to; returns the path. What others said of the feature stays.

    confirm: the proposed label, "confirmed". edit: the person's own words, "confirmed". reject: the proposed label, "rejected".
    unclear: the proposed label ("unclear" where it was hidden, or there is none), "disputed", category "unclear".
    """
    return save_label(as_label(reading, item, annotator), sae_id, sae_hash, root, annotator=True)


def as_label(reading: Reading, item: Item, annotator: str) -> FeatureLabel:
    """The label that a verdict amounts to: only what the person saw, with the evidence that was read.

    The journal says what that was. `item` adds what belongs to it, unless another label or other contexts are proposed meanwhile.
    """
    assert reading.verdict is not None and reading.label is not None
    base, seen = FeatureLabel(reading.feature, reading.label), reading.proposed if reading.shown else None
    same = item.proposed
    if same is not None and seen is not None and same.label == seen["label"] == reading.label and same.author == seen["author"]:
        # The wording is that of the proposed label, so what was measured of it and said of it holds.
        base = replace(base, explanation=same.explanation, score=same.score, scores=same.scores)
    evidence = item.evidence if item.evidence is not None and item.evidence.hash == reading.evidence else None
    return replace(
        base,
        categories=dict(reading.categories),
        author=_signature(annotator),
        status=STATUS_OF[reading.verdict],
        evidence=evidence,
        evidence_hash=reading.evidence or "",
        date=_date(reading),
        notes=reading.note,
    )


def lost(readings: Iterable[Reading], root: PathLike, sae_id: str, *, annotator: str) -> list[Reading]:
    """The filed verdicts that the label files lack: a file removed, damaged, or replaced by an older copy, since.

    A label of the annotator without a date, or as late as the verdict, stands for it, whatever it says: who edits the file by
    hand has the last word.
    """
    taxonomies, folder = trait_categories(), set_folder(root, sae_id)
    return [
        reading
        for reading in readings
        if reading.filed and not _has_verdict(folder / f"{reading.feature}.yaml", reading, annotator, taxonomies)
    ]


def _has_verdict(path: Path, reading: Reading, annotator: str, taxonomies: Taxonomies) -> bool:
    try:
        labels = load_label_file(path, taxonomies=taxonomies).labels if path.exists() else ()
    except WorkbenchError:  # filing will say what is wrong with it
        return False
    given = _date(reading)
    own = (item for item in labels if item.author == _signature(annotator))
    return any(item.date >= given[: len(item.date)] for item in own)


def _signature(annotator: str) -> dict[str, str]:
    return {"kind": "human", "name": annotator}


def _date(reading: Reading) -> str:
    return f"{(reading.at or '')[:19]}Z"

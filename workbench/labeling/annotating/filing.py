"""A verdict in the label file: signed by the person who gave it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from workbench.base.store import PathLike
from workbench.labeling.annotating.desk import STATUS_OF, Reading
from workbench.labeling.annotating.queue import Item
from workbench.labeling.files.store import save_label
from workbench.labeling.labels import FeatureLabel


def file_verdict(
    reading: Reading, item: Item, root: PathLike, sae_id: str, sae_hash: str, *, annotator: str
) -> Path:
    """Write the label that a verdict amounts to; returns the path. What others said of the feature stays.

    confirm: the proposed label, "confirmed". edit: the person's own words, "confirmed". reject: the proposed label, "rejected".
    unclear: the proposed label (or "unclear"), "disputed", category "unclear".
    """
    return save_label(as_label(reading, item, annotator), sae_id, sae_hash, root, annotator=True)


def as_label(reading: Reading, item: Item, annotator: str) -> FeatureLabel:
    """The label that a verdict amounts to, with the evidence that was read."""
    assert reading.verdict is not None and reading.label is not None
    base = FeatureLabel(reading.feature, reading.label)
    if item.proposed is not None and item.proposed.label == reading.label:
        # The wording is that of the proposed label, so what was measured of it and said of it holds.
        same = item.proposed
        base = replace(base, explanation=same.explanation, score=same.score, scores=same.scores)
    taken = item.proposed.categories if item.proposed is not None and reading.verdict == "confirm" else {}
    return replace(
        base,
        categories={**taken, **reading.categories},
        author={"kind": "human", "name": annotator},
        status=STATUS_OF[reading.verdict],
        evidence=item.evidence,
        evidence_hash="" if item.evidence is None else item.evidence.hash,
        date=f"{(reading.at or '')[:19]}Z",
        notes=reading.note,
    )

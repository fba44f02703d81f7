"""The file of one feature's labels: what it looks like, and what is refused.

    schema: 2
    sae: {id: MODEL/HOOK, weights_hash: 64 hexadecimal digits}
    feature: 17
    labels:                                   # the one that counts comes first (labels.precedence)
      - label: at most 12 words
        explanation: one or two sentences
        category: {evil: contempt}
        category_confidence: {evil: 0.7}
        author: {kind: human | model | offline, name: who, method: how}
        date: '2026-01-31T12:00:00Z'          # UTC
        status: proposed | confirmed | disputed | rejected
        score: {kind: glove_detection_auroc, value: 0.81, interval: [0.7, 0.9], n: 40}
        scores: [...]                         # further ones; `by` breaks one down by kinds of examples
        confidence: 0.6
        evidence_hash: 64 hexadecimal digits  # of the evidence that the author read
        notes: free text
    evidence: ...                             # see evidence_part.py

Only `label`, `category`, `author` and `status` are required of a label. Schema 1 had one label per file, its fields at the top
level, without date, evidence_hash, scores and category_confidence; it is still read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from workbench.base.store import content_hash
from workbench.labeling.files.evidence_part import evidence_document, read_evidence
from workbench.labeling.files.label_part import (
    FIRST_SCHEMA,
    REQUIRED,
    Taxonomies,
    label_document,
    read_label,
    sha256_text,
)
from workbench.labeling.files.label_part import (
    label_problem as label_problem,
)
from workbench.labeling.files.reader import Reader
from workbench.labeling.files.yamlfile import LabelFileError, YamlFile, parse_yaml_text
from workbench.labeling.files.yamltext import to_yaml
from workbench.labeling.labels import FeatureLabel, FeatureRecord, precedence

SCHEMA = 2
MAX_EVIDENCE_BYTES = 12_000
_HEAD = ("schema", "sae", "feature")


def in_order(labels: Iterable[FeatureLabel]) -> tuple[FeatureLabel, ...]:
    """The labels in the order in which they are written, which does not depend on the order in which they come."""
    return tuple(sorted(labels, key=lambda label: (precedence(label), content_hash(label_document(label)))))


def to_document(record: FeatureRecord) -> dict[str, Any]:
    """The plain document of a feature's labels, in the order in which it is written."""
    return {
        "schema": SCHEMA,
        "sae": {"id": record.sae_id, "weights_hash": record.sae_hash},
        "feature": record.feature,
        "labels": [label_document(label) for label in in_order(record.labels)],
        "evidence": None if record.evidence is None else evidence_document(record.evidence),
    }


def to_text(record: FeatureRecord, *, max_bytes: int = MAX_EVIDENCE_BYTES) -> str:
    """The file of a record, without its weakest contexts if its evidence would take more than `max_bytes`.

    What labels say takes nothing away from the evidence that others have read.
    """
    document = to_document(record)
    while _evidence_bytes(document) > max_bytes and _drop_weakest_context(document):
        pass
    return to_yaml(document)


def _evidence_bytes(document: Mapping[str, Any]) -> int:
    return len(to_yaml({"evidence": document["evidence"]}).encode("utf-8"))


def _drop_weakest_context(document: Mapping[str, Any]) -> bool:
    evidence = document["evidence"]
    contexts = max((evidence["top"], evidence["quantiles"]), key=len) if evidence else []
    if contexts:
        # `top` runs from strong to weak, `quantiles` from weak to strong: the weakest goes first.
        contexts.pop(-1 if contexts is evidence["top"] else 0)
        return True
    return False


def from_text(text: str, path: Path, taxonomies: Taxonomies) -> FeatureRecord:
    """The record in the text that stands, or will stand, at `path`; see `from_file`."""
    return from_file(parse_yaml_text(text, path), taxonomies)


def from_file(
    file: YamlFile, taxonomies: Taxonomies, *, problems: list[LabelFileError] | None = None
) -> FeatureRecord:
    """The record in a parsed file of schema 1 or 2, every field checked.

    `taxonomies` gives the category ids of a trait, None for a trait that is not known here (kept, with a warning). With a list of
    `problems` all of them are added to it; the record that is returned then must not be used if there are any.

    Raises:
        LabelFileError: naming file, line, what stands there and what was expected (without `problems`).
    """
    read, warnings = Reader(file, problems), []
    schema = _schema(read)
    body = (*FIRST_SCHEMA, "evidence") if schema == 1 else ("labels", "evidence")
    required = (*_HEAD, *(REQUIRED if schema == 1 else ("labels",)))
    read.mapping((), required=required, allowed=(*_HEAD, *body))
    read.mapping(("sae",), required=("id", "weights_hash"), allowed=("id", "weights_hash"))
    evidence = read_evidence(read)
    places = [()] if schema == 1 else [("labels", i) for i in range(len(read.sequence(("labels",))))]
    labels = [read_label(read, where, taxonomies, warnings, schema=schema) for where in places]
    if not labels and isinstance(read.get(("labels",)), list):
        read.refuse(("labels",), "a feature without a label", "at least one label", "remove the file, or write a label")
    return FeatureRecord(
        sae_id=read.text(("sae", "id")),
        sae_hash=sha256_text(read, ("sae", "weights_hash"), "the hash of the SAE's weights") or "",
        feature=read.integer(("feature",), low=0),
        labels=tuple(replace(label, evidence=evidence) for label in labels),
        evidence=evidence,
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _schema(read: Reader) -> int:
    read.mapping((), required=("schema",))
    found = read.get(("schema",))
    if found is not None and (found not in (1, SCHEMA) or isinstance(found, bool)):
        remedy = "update the workbench if the file is newer; otherwise correct the number"
        read.wrong(("schema",), f"schema {SCHEMA}, or 1 (`workbench labels migrate` rewrites those)", remedy)
    return 1 if found == 1 else SCHEMA

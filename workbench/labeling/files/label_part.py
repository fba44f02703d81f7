"""The part of a label file that holds one label: how it is written, and how it is read back."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, date, datetime
from typing import Any

from workbench.base.errors import nearest
from workbench.base.text import is_control
from workbench.labeling.files.reader import Reader
from workbench.labeling.files.yamlfile import Where
from workbench.labeling.files.yamltext import FlowList, FlowMap
from workbench.labeling.labels import (
    AUTHOR_KINDS,
    MAX_CHARACTERS,
    MAX_WORDS,
    NONE_OF_THESE,
    STATUSES,
    UNCLEAR,
    FeatureLabel,
)

#: The category ids of a trait; None for a trait that is not known here.
Taxonomies = Callable[[str], Collection[str] | None]

FIRST_SCHEMA = (
    "label", "explanation", "category", "author", "status", "score", "confidence", "notes",
)  # fmt: skip
FIELDS = (*FIRST_SCHEMA, "category_confidence", "date", "scores", "evidence_hash")
REQUIRED = ("label", "category", "author", "status")
#: What a score may hold besides "kind", "by" and "n": numbers from -1 to 1, and intervals [low, high].
MEASURES, INTERVALS = ("value", "balanced_accuracy"), ("interval", "balanced_interval")
_PART_OF_SCORE = (*MEASURES, *INTERVALS, "n")
_SCORE = ("kind", *_PART_OF_SCORE, "by")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}:\d{2}Z)?")


def label_document(label: FeatureLabel) -> dict[str, Any]:
    """The plain document of one label, in the order in which it is written; what is not known is left out."""
    document = {
        "label": label.label,
        "explanation": label.explanation,
        "category": dict(label.categories),
        "category_confidence": FlowMap(label.category_confidence),
        "author": FlowMap(label.author),
        "date": label.date,
        "status": label.status,
        "score": None if label.score is None else _score_document(label.score),
        "scores": [_score_document(score) for score in label.scores],
        "confidence": label.confidence,
        "evidence_hash": label.named_evidence,
        "notes": label.notes,
    }
    return {name: value for name, value in document.items() if name in REQUIRED or value not in (None, "", {}, [])}


def _score_document(score: Mapping[str, Any]) -> dict[str, Any]:
    """One line, or with a breakdown `by` kinds of examples one line for each of them."""
    shown = {name: _flow(value) for name, value in score.items() if name != "by"}
    by = score.get("by")
    if not isinstance(by, Mapping):
        return FlowMap(shown if by is None else {**shown, "by": by})
    return {**shown, "by": {name: _flow(value) for name, value in by.items()}}


def _flow(value: Any) -> Any:
    if isinstance(value, Mapping):
        return FlowMap({name: _flow(item) for name, item in value.items()})
    return FlowList(value) if isinstance(value, (list, tuple)) else value


def read_label(read: Reader, where: Where, taxonomies: Taxonomies, warnings: list[str], *, schema: int) -> FeatureLabel:
    """The label that stands at `where` in the file, every field checked."""
    read.mapping(where, required=REQUIRED, allowed=FIELDS if schema > 1 else ())
    scores = read.sequence((*where, "scores"), optional=True)
    categories = _categories(read, (*where, "category"), taxonomies, warnings)
    return FeatureLabel(
        feature=read.integer(("feature",), low=0),
        label=_wording(read, (*where, "label")),
        explanation=read.text((*where, "explanation"), default=""),
        categories=categories,
        category_confidence=_confidences(read, (*where, "category_confidence"), categories),
        author=_author(read, (*where, "author")),
        date=_date(read, (*where, "date")),
        status=read.choice((*where, "status"), STATUSES),
        score=None if read.get((*where, "score")) is None else _score(read, (*where, "score")),
        scores=tuple(_score(read, (*where, "scores", i)) for i in range(len(scores))),
        evidence_hash=sha256_text(read, (*where, "evidence_hash"), "the hash of the evidence") or "",
        notes=read.text((*where, "notes"), default=""),
        confidence=read.number((*where, "confidence"), low=0.0, high=1.0, optional=True),
        origin="shipped",
    )


def label_problem(text: str) -> str | None:
    """What is wrong with the wording of a label, None when nothing is."""
    if not text.strip():
        return "an empty label"
    if len(text.splitlines()) <= 1 and any(map(is_control, text)):
        return "a label with control characters"
    if len(text.splitlines()) > 1 or len(text) > MAX_CHARACTERS:
        return f"a label of {len(text)} characters or several lines"
    if len(text.split()) > MAX_WORDS:
        return f"a label of {len(text.split())} words"
    return None


def sha256_text(read: Reader, where: Where, what: str) -> str | None:
    """A SHA-256 in hexadecimal digits; None when the field is missing."""
    if read.get(where) is None:
        return None
    text = read.text(where)
    if len(text) != 64 or set(text) - set("0123456789abcdef"):
        found = f"{len(text)} characters" if len(text) != 64 else "other characters than 0-9 and a-f"
        read.refuse(where, found, f"{what}, 64 hexadecimal digits (SHA-256)", "copy it whole, between quotes")
    return text


def _wording(read: Reader, where: Where) -> str:
    text = read.text(where)
    if isinstance(read.get(where), str) and (problem := label_problem(text)):
        expected = f"one line of at most {MAX_WORDS} words and {MAX_CHARACTERS} characters"
        read.refuse(where, problem, expected, "shorten it; details belong in `explanation`")
    return text


def _author(read: Reader, where: Where) -> dict[str, str]:
    said = read.mapping(where, required=("kind", "name"), allowed=("kind", "name", "method"))
    author = {"kind": read.choice((*where, "kind"), AUTHOR_KINDS), "name": _plain(read, (*where, "name"))}
    return author if said.get("method") is None else author | {"method": _plain(read, (*where, "method"))}


def _plain(read: Reader, where: Where) -> str:
    """A text that a screen shows beside others: control characters, and marks that turn its direction, are refused."""
    text = read.text(where)
    if any(map(is_control, text)):
        read.wrong(where, "text on one line, without control characters", "take them out")
    if not text.strip():
        read.wrong(where, "a name", "say who or what it was")
    return text


def _date(read: Reader, where: Where) -> str:
    value = read.get(where)
    if value is None:
        return ""
    text = _as_date(value)
    if text is None:
        remedy = "write it in UTC with a Z at the end, or the day alone; leave the line out when it is not known"
        read.wrong(where, "a date such as 2026-01-31 or 2026-01-31T12:00:00Z", remedy)
    return text or ""


def _as_date(value: Any) -> str | None:
    if isinstance(value, datetime):  # unquoted in the file
        try:
            return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if value.tzinfo else None
        except OverflowError:  # in UTC it lies before the year 1 or after 9999
            return None
    if isinstance(value, date):
        return value.isoformat()
    try:
        datetime.fromisoformat(value if isinstance(value, str) and _DATE.fullmatch(value) else "no date")
    except ValueError:
        return None
    return value


def _categories(read: Reader, where: Where, taxonomies: Taxonomies, warnings: list[str]) -> dict[str, str]:
    categories = {}
    for trait in read.mapping(where):
        if any(map(is_control, str(trait))):
            read.refuse(where, f"the name {str(trait)[:60]!r}", "names of traits, without control characters", "correct the name")
        category = read.text((*where, trait))
        known = taxonomies(str(trait))
        if known is None:
            warnings.append(
                f"{read.file.path.name}: the trait '{trait}' is not known here, its category is unchecked"
            )
        elif category not in known and category not in (UNCLEAR, NONE_OF_THESE):
            listed = ", ".join(nearest(category, known)[:6])
            read.wrong((*where, trait), f"a category of the trait '{trait}', nearest first: {listed}", "choose one of these")
        categories[str(trait)] = category
    return categories


def _confidences(read: Reader, where: Where, categories: Mapping[str, str]) -> dict[str, float]:
    given = read.mapping(where, allowed=(), optional=True)
    for trait in given:
        if trait not in categories:
            read.refuse((*where, trait), f"a confidence for '{trait}'", "a trait that has a `category`", "remove the line")
    return {str(trait): read.number((*where, trait), low=0.0, high=1.0) for trait in given}


def _score(read: Reader, where: Where) -> dict[str, Any]:
    read.mapping(where, required=("kind", "value"), allowed=_SCORE)
    score = {"kind": read.text((*where, "kind")), "value": 0.0, "interval": None, **_part_of_score(read, where)}
    by = read.get((*where, "by"))
    if isinstance(by, str):
        score["by"] = by
    elif by is not None:
        score["by"] = {str(name): _breakdown(read, (*where, "by", name)) for name in read.mapping((*where, "by"))}
    return score


def _breakdown(read: Reader, where: Where) -> dict[str, Any] | None:
    if read.get(where) is None:
        return None
    read.mapping(where, required=("value",), allowed=_PART_OF_SCORE)
    return _part_of_score(read, where)


def _part_of_score(read: Reader, where: Where) -> dict[str, Any]:
    said = read.mapping(where)
    part: dict[str, Any] = {}
    for name in (name for name in said if name in _PART_OF_SCORE and said[name] is not None):
        if name in MEASURES:
            part[name] = read.number((*where, name), low=-1.0, high=1.0)
        elif name in INTERVALS:
            part[name] = _interval(read, (*where, name))
        else:
            part[name] = _count(read, (*where, name))
    return part


def _interval(read: Reader, where: Where) -> list[float] | None:
    if read.get(where) is None:
        return None
    if len(read.sequence(where)) != 2:
        read.wrong(where, "two numbers, [low, high]")
        return None
    low, high = (read.number((*where, i), low=-1.0, high=1.0) for i in range(2))
    if low > high:
        read.wrong(where, "the lower end first, [low, high]", "swap the two numbers")
    return [low, high]


def _count(read: Reader, where: Where) -> int | dict[str, int]:
    value = read.get(where)
    if isinstance(value, dict):
        return {str(name): read.integer((*where, name), low=0) for name in value}
    return read.integer(where, low=0)

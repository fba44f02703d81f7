"""What an entry of a journal has to hold. A journal is a file like any other: damaged, or written by somebody else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

VERDICTS = ("confirm", "edit", "reject", "unclear")
Check = Callable[[Any], bool]


def event_problem(event: Any) -> str:
    """What is wrong with an entry, "" when nothing is. Kinds of a newer version, and fields of theirs, may be anything."""
    if not isinstance(event, dict) or not _text(event.get("event")) or not _time(event.get("at")):
        return 'no object with "at" (a time) and "event"'
    checks = _FIELDS.get(event["event"], {})
    bad = [name for name, check in checks.items() if name not in event or not check(event[name])]
    return f"an event {event['event']!r} without {bad[0]!r}, or with a wrong one" if bad else ""


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _time(value: Any) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value) is not None
    except ValueError:
        return False


def _feature(value: Any) -> bool:
    return type(value) is int and value >= 0


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _fields(checks: Mapping[str, Check]) -> Check:
    return lambda value: isinstance(value, dict) and all(name in value and check(value[name]) for name, check in checks.items())


def _texts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_text, value.values()))


_MAYBE = _or_none(_text)
_BLIND: Mapping[str, Check] = {"trait": _MAYBE, "label": _MAYBE, "category": _MAYBE}
_FIELDS: Mapping[str, Mapping[str, Check]] = {
    "session": {"annotator": _text, "sae_hash": _text, "trait": _MAYBE, "blind": lambda value: isinstance(value, bool)},
    "show": {"feature": _or_none(_feature)},
    "category": {"feature": _feature, "trait": _text, "category": _text},
    "note": {"feature": _feature, "note": _text},
    "draft": {"feature": _feature, "field": _text, "text": _MAYBE},
    "blind": {"feature": _feature, **_BLIND},
    "verdict": {
        "feature": _feature, "trait": _MAYBE, "verdict": lambda value: value in VERDICTS, "label": _text, "note": _text,
        "category": _MAYBE, "blind": _or_none(_fields(_BLIND)), "evidence": _MAYBE, "next": _or_none(_feature),
        "proposed": _or_none(_fields({"label": _text, "trait": _MAYBE, "category": _MAYBE, "author": _texts})),
    },
    "filed": {"feature": _feature},
}  # fmt: skip

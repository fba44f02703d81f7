"""Rows of tables: every cell with what it shows, what it is sorted by and, when nothing is known, why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.reports.content import plain
from workbench.reports.shares import category_name, finite
from workbench.reports.svg import percent
from workbench.reports.text import clean

if TYPE_CHECKING:
    from workbench.reports.content import Report

_WHY = {
    "share": "unknown: the vector came without its token activations",
    "q_value": "unknown: this feature never fires on these replies, or the vector came without them",
    "placebo_q": "unknown: no placebo contrasts of this SAE, or the feature never fires on these replies",
    "cosine": "unknown",
    "pursuit": "not chosen by pursuit",
    "in_v_up": "unknown: there is no neutral arm to compare with",
    "causal": "not tested: only the candidates with the largest shares are",
    "score": "this label was not scored",
}


@dataclass(frozen=True)
class Cell:
    """`shown` (None when unknown, then `why`), a second line `note`, and the sort key."""

    shown: str | None
    sort: str = ""
    note: str = ""
    why: str = ""


@dataclass(frozen=True)
class Row:
    """One feature in the table."""

    feature: int
    label: str | None
    category: str
    category_name: str
    group: str
    author: str
    status: str
    has_card: bool
    verified: bool | None
    bar: float
    negative: bool
    text: str
    cells: Mapping[str, Cell]


def table_rows(report: Report) -> list[Row]:
    """The table, largest share first."""
    widest = (
        max((abs(row["share"]) for row in report.features if row["share"] is not None), default=0.0) or 1.0
    )
    return [_row(report, row, widest) for row in report.features]


def _row(report: Report, row: dict[str, Any], widest: float) -> Row:
    label = report.label(row["feature"])
    named = category_name(report.taxonomy, row["category"])
    author, status = (str(label.author.get("kind", "unknown")), label.status) if label else ("", "")
    words = (f"#{row['feature']}", row["label"] or "", named.name, author, status)
    return Row(
        row["feature"],
        row["label"],
        row["category"] or "",
        named.name,
        named.group,
        author,
        status,
        bool(row["label"]) or row["causal_odd"] is not None,
        row["verified"],
        abs(row["share"] or 0.0) / widest,
        (row["share"] or 0.0) < 0,
        clean(" ".join(words)).lower(),
        _cells(row),
    )


def _cells(row: dict[str, Any]) -> dict[str, Cell]:
    score = row["label_score"] or {}
    return {
        "share": _number(
            row["share"], "share", percent(row["share"], 2), _pair(row["share_interval"], 100, 2)
        ),
        "q_value": _number(row["q_value"], "q_value", _p(row["q_value"]), _p(row["q_crossed"])),
        "placebo_q": _number(row["placebo_q"], "placebo_q", _p(row["placebo_q"]), signed(row["placebo_score"], 1)),
        "cosine": _number(row["cosine"], "cosine", signed(row["cosine"], 2)),
        "pursuit": _number(row["pursuit"] or None, "pursuit", signed(row["pursuit"], 2)),
        "in_v_up": _yes(row["in_v_up"], "in_v_up"),
        "causal": _number(
            row["causal_odd"], "causal", signed(row["causal_odd"], 3), _pair(row["causal_interval"], 1, 3)
        ),
        "damage": _number(row["damage"], "causal", signed(row["damage"], 3)),
        "verified": _yes(row["verified"], "causal"),
        "score": _number(
            score.get("value"), "score", signed(score.get("value"), 2), _pair(score.get("interval"), 1, 2)
        ),
    }


def _number(value: float | None, why: str, shown: str, note: str = "") -> Cell:
    return Cell(None, why=_WHY[why]) if value is None else Cell(shown, repr(float(value)), note)


def _yes(value: bool | None, why: str) -> Cell:
    return Cell(None, why=_WHY[why]) if value is None else Cell("✓ yes" if value else "no", str(int(value)))


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return "<.001" if value < 0.001 else f"{value:.3f}".removeprefix("0")


def signed(value: float | None, digits: int) -> str:
    """A number with a real minus sign, and none before a zero."""
    text = "" if value is None else f"{value:.{digits}f}"
    return text.removeprefix("-") if text and float(text) == 0 else text.replace("-", "−")


def _pair(ends: list[float] | None, factor: float, digits: int) -> str:
    return "" if not ends else f"[{signed(ends[0] * factor, digits)}, {signed(ends[1] * factor, digits)}]"


def flat_rows(value: Any, *, limit: int = 120) -> list[tuple[str, str]]:
    """A nested value as (dotted name, short text) rows; long lists and texts are cut and say so."""
    rows: list[tuple[str, str]] = []
    _flatten("", plain(value), rows)
    extra = len(rows) - limit
    return rows[:limit] + ([("…", f"{extra} more in the run folder")] if extra > 0 else [])


def _flatten(name: str, value: Any, rows: list[tuple[str, str]]) -> None:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            _flatten(f"{name}.{key}" if name else key, item, rows)
    else:
        rows.append((clean(name.replace("_", " "), limit=120), _short(value)))


def _short(value: Any) -> str:
    if isinstance(value, list):
        shown = ", ".join(_short(item) for item in value[:4])
        return f"{shown}, … ({len(value)} in all)" if len(value) > 4 else shown or "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    if value is None or value == {}:
        return "–"
    return clean(value, limit=240)


def share_text(value: Any) -> str:
    """A share or density for running text."""
    known = finite(value)
    return "–" if known is None else percent(known, 2)

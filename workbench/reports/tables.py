"""Rows of tables: every cell with what it shows, what it is sorted by and, when nothing is known, why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.reports.contract import plain
from workbench.reports.evidence import control_effects
from workbench.reports.shares import category_name, finite
from workbench.reports.svg import percent, signed
from workbench.reports.text import clean

__all__ = ["COLUMNS", "Cell", "Column", "Row", "change_of", "flat_rows", "share_text", "signed", "table_rows"]

if TYPE_CHECKING:
    from workbench.reports.content import Report

_WHY = {
    "share": "unknown: no token activations",
    "q_value": "unknown: it never fires on these replies, or they are missing",
    "placebo_q": "unknown: no placebo contrasts, or it never fires",
    "cosine": "unknown",
    "pursuit": "not chosen by pursuit",
    "in_v_up": "unknown: no neutral arm",
    "causal": "not tested",
    "controls": "no control features were kept with this run",
    "score": "this label was not scored",
}


@dataclass(frozen=True)
class Column:
    """A column: its `key` in `Row.cells`, name and meaning, how it is first sorted, and whether it is hidden at first."""

    key: str
    name: str
    meaning: str
    rising: bool = False
    extra: bool = False


COLUMNS = (
    Column("share", "Share", "Share of the vector’s squared length, in per cent, with its 95% interval"),
    Column("q_value", "q", "Does it differ between the arms? Benjamini-Hochberg q of sign flips over questions", rising=True),
    Column("q_crossed", "Crossed q", "Would it differ under another wording? The q when instructions are draws too", rising=True),
    Column("placebo_q", "Placebo q", "Does it differ more than between prompts that have nothing to do with the trait? Its "
           "difference among what placebo contrasts do to it; below it the difference in their spreads", rising=True),
    Column("causal", "Causal effect", "Odd effect in nats per token at KL .1, control pairs subtracted, with its interval"),
    Column("controls", "Controls", "The odd effects of matched control features pushed the same way: median and 95th percentile"),
    Column("verified", "Verified", "Passes q .05 against matched control features on sealed pairs"),
    Column("cosine", "Cosine", "Signed cosine of the feature’s direction with the vector", extra=True),
    Column("pursuit", "Pursuit", "Signed coefficient in the sparse pursuit", extra=True),
    Column("in_v_up", "In v_up", "Also present in positive minus neutral", extra=True),
    Column("damage", "Damage", "Even effect: what both signs do alike, in nats per token", extra=True),
    Column("score", "Label score", "How well the label predicts held-out contexts; .5 is chance", extra=True),
)  # fmt: skip


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
    change: str
    verified: bool | None
    bar: float
    negative: bool
    cells: Mapping[str, Cell]


def table_rows(report: Report) -> list[Row]:
    """The table, largest share first."""
    widest = max((abs(row["share"]) for row in report.features if row["share"] is not None), default=0.0) or 1.0
    return [_row(report, row, widest) for row in report.features]


def change_of(report: Report, feature: int) -> str:
    """Whether the trait brings "more" or "less" of a feature; empty where neither is known or nothing changes.

    The sign of the change of the mean code; the cosine's for a vector without its activations. A share above zero alone does
    not say it: a feature that the trait has less of, and that points away from the vector, has one too.
    """
    for values in (report.parts.delta_code, report.parts.cosine):
        known = finite(values[feature])
        if known is not None:
            return "more" if known > 0 else "less" if known < 0 else ""
    return ""


def _row(report: Report, row: dict[str, Any], widest: float) -> Row:
    label = report.label(row["feature"])
    named = category_name(report.taxonomy, row["category"])
    author, status = (str(label.author.get("kind", "unknown")), label.status) if label else ("", "")
    change = change_of(report, row["feature"])
    return Row(
        feature=row["feature"],
        label=row["label"],
        category=row["category"] or "",
        category_name=named.name,
        group=named.group,
        author=author,
        status=status,
        change=change,
        verified=row["verified"],
        bar=abs(row["share"] or 0.0) / widest,
        negative=(row["share"] or 0.0) < 0,
        cells=_cells(report, row),
    )


def _cells(report: Report, row: dict[str, Any]) -> dict[str, Cell]:
    score = row["label_score"] or {}
    return {
        "share": _number(row["share"], "share", percent(row["share"], 2), _pair(row["share_interval"], 100, 2)),
        "q_value": _number(row["q_value"], "q_value", _p(row["q_value"])),
        "q_crossed": _number(row["q_crossed"], "q_value", _p(row["q_crossed"])),
        "placebo_q": _number(row["placebo_q"], "placebo_q", _p(row["placebo_q"]), _spreads(row["placebo_score"])),
        "cosine": _number(row["cosine"], "cosine", signed(row["cosine"], 2)),
        "pursuit": _number(row["pursuit"] or None, "pursuit", signed(row["pursuit"], 2)),
        "in_v_up": _yes(row["in_v_up"], "in_v_up"),
        "causal": _number(row["causal_odd"], "causal", signed(row["causal_odd"], 3), _pair(row["causal_interval"], 1, 3)),
        "controls": _controls(report, row),
        "damage": _number(row["damage"], "causal", signed(row["damage"], 3)),
        "verified": _yes(row["verified"], "causal"),
        "score": _number(score.get("value"), "score", signed(score.get("value"), 2), _pair(score.get("interval"), 1, 2)),
    }


def _spreads(score: float | None) -> str:
    return "" if score is None else f"{signed(score, 1)} spreads"


def _controls(report: Report, row: dict[str, Any]) -> Cell:
    """What features that have nothing to do with the trait get when they are pushed like this one."""
    found = sorted(control_effects(report.parts.controls, row["feature"])) if row["causal_odd"] is not None else []
    if not found:
        return Cell(None, why=_WHY["causal"] if row["causal_odd"] is None else _WHY["controls"])
    middle, high = found[len(found) // 2], found[min(len(found) - 1, int(0.95 * len(found)))]
    return Cell(signed(middle, 3), f"{middle:.6g}", f"95%: {signed(high, 3)}")


def _number(value: float | None, why: str, shown: str, note: str = "") -> Cell:
    return Cell(None, why=_WHY[why]) if value is None else Cell(shown, f"{value:.6g}", note)


def _yes(value: bool | None, why: str) -> Cell:
    return Cell(None, why=_WHY[why]) if value is None else Cell("✓ yes" if value else "no", str(int(value)))


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return "<.001" if value < 0.001 else f"{value:.3f}".removeprefix("0")


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

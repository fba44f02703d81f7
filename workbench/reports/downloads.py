"""The tables behind a page as CSV: RFC 4180, UTF-8, numbers at full precision, the names of the columns as in the JSON.

A cell of text that a spreadsheet would run as a formula (it begins with = + - @, a tab or a return) gets a single quote in
front, as OWASP advises; numbers are written as they are. What is unknown is an empty cell.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from workbench.labeling.contexts.streams import kind_of
from workbench.reports.examples import contexts_of
from workbench.reports.text import clean

if TYPE_CHECKING:
    from workbench.labeling.evidence import Context
    from workbench.reports.content import Report
    from workbench.reports.several import TraitReports

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
MAX_TEXT = 2000

FEATURES = (
    "trait", "feature", "label", "category", "label_author_kind", "label_author_name", "label_score_kind", "label_score",
    "label_score_low", "label_score_high", "share", "share_low", "share_high", "q_value", "q_crossed", "placebo_score",
    "placebo_q", "cosine", "pursuit", "in_v_up", "causal_odd", "causal_low", "causal_high", "causal_p", "causal_q",
    "damage", "verified",
)  # fmt: skip
MADE_OF = (
    "trait", "part", "name", "kind", "share", "low", "high", "corrected", "n_features", "swapped_median", "swapped_low",
    "swapped_high", "swapped_p", "placebo_median", "placebo_low", "placebo_high", "placebo_p",
)  # fmt: skip
EXAMPLES = ("trait", "feature", "label", "kind", "source", "document", "position", "activation", "text")
OVERLAP = (
    "trait_a", "trait_b", "cosine", "n_specific_a", "n_specific_b", "n_shared", "n_expected", "n_active",
    "background_median", "background_q95", "p",
)  # fmt: skip


def tables(value: Report | TraitReports) -> dict[str, str]:
    """{file name: CSV} of a page: features, made_of, examples, and of several traits overlap. Empty tables are left out."""
    from workbench.reports.several import TraitReports

    reports = value.traits if isinstance(value, TraitReports) else (value,)
    pairs = [] if not isinstance(value, TraitReports) else list(map(_pair_row, value.pairs))
    rows = {
        "features.csv": (FEATURES, [_feature_row(one, row) for one in reports for row in one.features]),
        "made_of.csv": (MADE_OF, [row for one in reports for row in _made_of_rows(one)]),
        "examples.csv": (EXAMPLES, [row for one in reports for row in _context_rows(one)]),
        "overlap.csv": (OVERLAP, pairs),
    }
    return {name: to_csv(columns, listed) for name, (columns, listed) in rows.items() if listed}


def to_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """A table with a header line; each row names its columns, a missing or None value is an empty cell."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows([_cell(row.get(column)) for column in columns] for row in rows)
    return written.getvalue()


def _cell(value: Any) -> str:
    """Numbers by their shortest exact form, truth values as in JSON, text without control characters and never a formula."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    text = clean(str(value), limit=MAX_TEXT)
    return f"'{text}" if text.lstrip(" ").startswith(FORMULA) else text


def _feature_row(report: Report, row: Mapping[str, Any]) -> dict[str, Any]:
    author, score = row["label_author"] or {}, row["label_score"] or {}
    ends = {"share": row["share_interval"], "causal": row["causal_interval"], "label_score": score.get("interval")}
    pairs = {f"{name}_{side}": pair[i] for name, pair in ends.items() if pair for i, side in enumerate(("low", "high"))}
    named = {
        "label_author_kind": author.get("kind"), "label_author_name": author.get("name"),
        "label_score_kind": score.get("kind"), "label_score": score.get("value"),
    }  # fmt: skip
    return {"trait": report.trait, **row, **named, **pairs}


def _made_of_rows(report: Report) -> list[dict[str, Any]]:
    if report.made_of is None:
        return []
    rows = []
    for part in report.made_of.table():
        nulls = {
            f"{null}_{key}": part[null][key]
            for null in ("swapped", "placebo") if part[null]
            for key in ("median", "low", "high", "p")
        }  # fmt: skip
        rows.append({"trait": report.trait, **part, "part": part["id"], **nulls})
    return rows


def _context_rows(report: Report) -> list[dict[str, Any]]:
    """The strongest contexts of every feature that may be shown, one for each kind of source (of its label without a view)."""
    return [
        {
            "trait": report.trait, "feature": feature, "label": label.label if label else None, "kind": kind_of(context.source),
            "source": context.source, "document": context.document, "position": context.position,
            "activation": context.peak_value, "text": context.marked(),
        }
        for feature in (row["feature"] for row in report.features)
        for label in (report.label(feature),)
        for context in _strongest(contexts_of(report, feature))
    ]  # fmt: skip


def _strongest(contexts: Iterable[Context]) -> list[Context]:
    found: dict[str, Context] = {}
    for context in sorted(contexts, key=lambda one: -one.peak_value):
        found.setdefault(kind_of(context.source), context)
    return list(found.values())


def _pair_row(pair: Any) -> dict[str, Any]:
    specific = pair.n_specific or (None, None)
    return {
        "trait_a": pair.traits[0], "trait_b": pair.traits[1], "n_specific_a": specific[0], "n_specific_b": specific[1],
        **{name: getattr(pair, name) for name in OVERLAP if hasattr(pair, name)},
    }  # fmt: skip

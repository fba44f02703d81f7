"""One trait of the page: its first screen, its table, its cards and what stands behind them, in words and drawings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from workbench.reports import verdict
from workbench.reports.audit import audit_figure, audit_sentences
from workbench.reports.cards import has_card, shown_cards
from workbench.reports.falsify import falsification_figure, verdict_rows
from workbench.reports.figures import made_of_strip, waterfall
from workbench.reports.groups import group_rows, groups_sentence
from workbench.reports.intervals import GroupIntervals
from workbench.reports.made_of import made_of_figure
from workbench.reports.measures import controls_part, drawn, vector_part
from workbench.reports.passages import Passage, passage
from workbench.reports.shares import (
    GROUP_NAMES,
    CategoryName,
    Slice,
    category_name,
    compact,
    finite,
    group_total,
    interval,
)
from workbench.reports.svg import percent
from workbench.reports.tables import change_of, flat_rows, table_rows
from workbench.reports.text import clean

if TYPE_CHECKING:
    from workbench.reports.content import Report

MAX_ROWS = 10
EXAMPLE_WINDOW = 22
MAX_NAME = 120


@dataclass(frozen=True)
class Shown:
    """One example of the first screen."""

    feature: int
    label: str
    category: CategoryName
    share: str
    change: str
    verified: bool | None
    author: str
    passage: Passage
    linked: bool


def chapter(report: Report, slug: str, *, n_contexts: int, window: int) -> dict[str, Any]:
    """Everything that `chapter.html.jinja` shows of one trait; `slug` is the trait's name in addresses."""
    lights = verdict.lights(report)
    return {
        "slug": slug,
        "trait": report.trait,
        "hook": str(report.vector.hook),
        "model": clean(report.vector.model.get("name", "a model"), limit=MAX_NAME),
        "sae": report.parts.sae,
        "d_sae": report.parts.d_sae,
        "sentence": report.sentence(),
        "causal_sentence": verdict.causal_sentence(report),
        "placebo_sentence": verdict.placebo_sentence(report),
        "authors_sentence": verdict.authors_sentence(report),
        "lights": lights,
        "overall": verdict.overall(lights),
        "weakest": verdict.weakest(lights),
        "picture": _picture(report),
        "key": [(group, name) for group, name in GROUP_NAMES.items() if any(row.group == group for row in report.slices)],
        "unlabelled": next((row for row in report.slices if row.group == "open"), None),
        "examples": _examples(report),
        "on": report.warnings_on,
        "rows": table_rows(report),
        "with_card": {row["feature"] for row in report.features if has_card(report, row)},
        "categories": categories_of(report),
        "groups": group_rows(report),
        "groups_sentence": groups_sentence(report),
        "cards": shown_cards(report, n_contexts=n_contexts, window=window),
        "made_of": drawn(made_of_figure(report.made_of)) if report.made_of and report.made_of.n_labelled else None,
        "has_placebos": any(part.placebo is not None for part in report.made_of.parts) if report.made_of else False,
        "error_share": percent(finite(report.parts.share_error)),
        "n_questions": report.parts.n_questions,
        "provenance": _provenance(report),
        **_audit(report),
        **vector_part(report),
        **controls_part(report),
    }


def overview_row(report: Report, slug: str) -> dict[str, Any]:
    """The line of one trait among several."""
    lights = verdict.lights(report)
    value, count = group_total(report.slices, "trait")
    ends = interval(verdict.group_ends(report, "trait")) if count else None
    error = interval(report.parts.share_error_interval)
    tested = sum(row["verified"] is not None for row in report.features)
    return {
        "slug": slug,
        "trait": report.trait,
        "sentence": verdict.brief(report),
        "picture": drawn(made_of_strip(report.slices, trait=report.trait)) if report.slices else None,
        "sub_traits": (percent(value) if count else "") if report.slices else "–",
        "sub_ends": _ends(ends),
        "error": percent(finite(report.parts.share_error)),
        "error_ends": _ends(error),
        "verified": f"{report.n_verified} of {tested}" if tested else "not tested",
        "overall": verdict.overall(lights),
        "weakest": verdict.weakest(lights),
        "auc": _auc(report),
        "auc_ends": _auc_ends(report),
        "auc_weak": report.warnings_on("auc"),
        "falsified": report.falsification.colour if report.falsification else "",
    }


def _auc(report: Report) -> str:
    known = finite(report.vector.evidence.get("auc_stripped"))
    return "–" if known is None else f"{known:.2f}"


def _auc_ends(report: Report) -> str:
    ends = interval(report.vector.evidence.get("auc_stripped_interval"))
    return f"[{ends[0]:.2f}, {ends[1]:.2f}]" if ends else ""


def _ends(pair: list[float] | None) -> str:
    return f"[{percent(pair[0])[:-1]}, {percent(pair[1])[:-1]}]" if pair else ""


def _picture(report: Report) -> Markup | None:
    if not report.slices:
        return None
    members = verdict.members_by_category(report)
    rows: tuple[Slice, ...] = compact(report.slices, members, GroupIntervals.of(report.parts), MAX_ROWS)
    return drawn(waterfall(rows, trait=report.trait))


def _examples(report: Report) -> list[Shown]:
    pages = {row["feature"] for row in report.features}
    shown = []
    for one in report.examples:
        label = one.label
        row = next((row for row in report.features if row["feature"] == one.feature), None)
        highest = max([*one.context.values, 1e-9])
        category = category_name(report.taxonomy, row["category"] if row else label.category if label else None)
        shown.append(Shown(
            one.feature, label.label if label else "", category, percent(one.share, 1), change_of(report, one.feature),
            row["verified"] if row else None, str(label.author.get("kind", "")) if label else "",
            passage(one.context, window=EXAMPLE_WINDOW, highest=highest), one.feature in pages,
        ))  # fmt: skip
    return shown


def categories_of(report: Report) -> list[tuple[str, CategoryName]]:
    """The categories in use, for the filter, by name."""
    used = {row["category"] for row in report.features if row["category"]}
    return sorted(((key, category_name(report.taxonomy, key)) for key in used), key=lambda pair: pair[1].name)


def _audit(report: Report) -> dict[str, Any]:
    """The behavioural audit and the falsifier's verdict, where they were made."""
    audit, found = report.audit or {}, report.falsification
    behaviour = audit.get("behaviour")
    return {
        "audit": drawn(audit_figure(behaviour, audit.get("screen"))) if behaviour else None,
        "audit_sentences": audit_sentences(audit),
        "falsification": drawn(falsification_figure(found)) if found else None,
        "falsification_headline": found.headline() if found else "",
        "falsification_colour": found.colour if found else "",
        "checks": verdict_rows(found) if found else [],
    }


def _provenance(report: Report) -> list[tuple[str, list[tuple[str, str]]]]:
    return [
        ("The vector", flat_rows(report.vector.provenance)),
        ("The model", flat_rows(report.vector.model)),
        ("The SAE", flat_rows(report.parts.sae)),
        ("The decomposition", flat_rows(report.parts.provenance)),
    ]

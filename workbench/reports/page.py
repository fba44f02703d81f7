"""The view model of a page of one trait or several: everything that the templates show, in words, numbers and drawings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from workbench.reports.cards import said_once
from workbench.reports.chapter import chapter
from workbench.reports.contract import card_figure
from workbench.reports.overview import overview
from workbench.reports.remaking import command, command_notes
from workbench.reports.shares import GROUP_NAMES, finite
from workbench.reports.svg import percent
from workbench.reports.tables import COLUMNS

if TYPE_CHECKING:
    from workbench.reports.content import Report
    from workbench.reports.several import TraitReports


_TAKEN = ("overview", "overlap", "method", "data", "all", "content", "command", "data-json", "data-tables", "overview-title",
          "overlap-title", "method-title", "data-title", "all-title", "")  # fmt: skip
"""Identifiers that the page has already, whatever its traits are called."""
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven")


def page(reports: Sequence[Report], several: TraitReports | None, *, n_contexts: int, window: int) -> dict[str, Any]:
    """All names that `page.html.jinja` uses; `several` adds the overview."""
    slugs = slugs_of([one.trait for one in reports])
    first = reports[0]
    l0 = finite(card_figure(first.parts.sae, "l0"))
    chapters = [chapter(one, slugs[one.trait], n_contexts=n_contexts, window=window) for one in reports]
    once = said_once({one["slug"]: one["cards"] for one in chapters})
    return {
        "title": f"What is {first.trait} made of?" if several is None else f"What are {_NUMBERS[len(reports)]} traits made of?",
        "traits": [one.trait for one in reports],
        "chapters": [{**one, "cards": once[one["slug"]]} for one in chapters],
        "provenance": _provenance(chapters),
        "trait_of": {slug: trait for trait, slug in slugs.items()},
        "overview": overview(several, slugs) if several is not None else None,
        "columns": COLUMNS,
        "percent": percent,
        "group_names": GROUP_NAMES,
        "model": chapters[0]["model"],
        "hook": str(first.vector.hook),
        "d_sae": first.parts.d_sae,
        "l0": "–" if l0 is None else f"{l0:.0f}",
        "command": command(reports),
        "command_notes": command_notes(reports),
        "file_name": "-".join(slugs.values())[:60],
    }


def _provenance(chapters: Sequence[dict[str, Any]]) -> list[tuple[str, list[tuple[str, str]]]]:
    """(name, rows) of what stands behind every chapter; what is the same for all traits is told once."""
    found = []
    for name in dict(chapters[0]["provenance"]):
        rows = [dict(one["provenance"])[name] for one in chapters]
        if all(one == rows[0] for one in rows):
            found.append((name, rows[0]))
        else:
            found += [(f"{name} of {one['trait']}", told) for one, told in zip(chapters, rows, strict=True)]
    return found


def slugs_of(names: Sequence[str]) -> dict[str, str]:
    """A short name for addresses per trait: a-z, 0-9 and hyphens, no two alike, none that another part of the page has."""
    taken: set[str] = set(_TAKEN)
    slugs: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"[^a-z0-9]+", "-", name.lower())[:40].strip("-")
        slug = next(one for n in range(1, 99) if (one := plain if n == 1 else f"{plain or 'trait'}-{n}") not in taken)
        slugs[name] = slug
        taken.add(slug)
    return slugs

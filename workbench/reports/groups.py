"""The groups of features for the page: one row per group, its members inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.reports.shares import finite, interval
from workbench.reports.svg import percent, signed

if TYPE_CHECKING:
    from workbench.reports.content import Report

CHANGES = {1: "more", -1: "less"}


@dataclass(frozen=True)
class GroupRow:
    """A group: what its largest member is, whether the trait brings more or less of it, its figures, its members."""

    name: str
    change: str
    n: int
    share: str
    ends: str
    cohesion: str
    why: str
    p: str
    members: tuple[tuple[int, str, str, bool], ...]
    """(feature, label or "", share, whether the table of features has a row of it)."""


def group_rows(report: Report) -> list[GroupRow]:
    """The groups of the decomposition, largest |share| first; none where they were not made or nothing belongs together."""
    groups = (report.parts.audit.get("groups") or {}).get("groups") or ()
    shown = {row["feature"] for row in report.features}
    return [_row(report, group, shown) for group in groups]


def _row(report: Report, group: Mapping[str, Any], shown: set[int]) -> GroupRow:
    labels = {feature: report.label(feature) for feature in group["features"]}
    words = {feature: label.label if label and label.label else "" for feature, label in labels.items()}
    ends = interval(group["interval"])
    members = tuple((f, words[f], percent(finite(report.parts.share[f]), 2), f in shown) for f in group["features"])
    return GroupRow(
        name=_name(group["representative"], words),
        change=CHANGES[group["change"]],
        n=len(members),
        share=percent(group["share"], 2),
        ends=f"[{signed(100 * ends[0], 2)}, {signed(100 * ends[1], 2)}]" if ends else "",
        cohesion=signed(group["cohesion"], 2),
        why=f"directions {signed(group['cosine'], 2)}, responses {signed(group['coactivation'], 2)}",
        p=f"{group['p']:.2f}".removeprefix("0"),
        members=members,
    )


def _name(first: int, words: Mapping[int, str]) -> str:
    """The label of the representative, else its number and the first label that a member has."""
    other = next((f"; among them: {word}" for word in words.values() if word), "")
    return words[first] or f"feature {first}{other}"


def groups_sentence(report: Report) -> str:
    """How many of the features are in groups, and how many of matched features are."""
    found = report.parts.audit.get("groups") or {}
    null = found.get("null")
    if not null:
        return ""
    n = null["n_grouped"] + len(found["single"])
    return (
        f"Of the {n} features of the largest share {null['n_grouped']} are in a group; of as many features that fire alike but "
        f"were not chosen by the trait the same clustering puts {null['median']:.0f} in groups (97.5th percentile "
        f"{null['high']:.0f}, p {null['p']:.2g})."
    )

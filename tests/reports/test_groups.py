"""Groups of features on the page: one row each, opened for its members, and inert."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.reports.example import (
    NAMED,
    UNLABELLED_TOP,
    bare_parts,
    example_labels,
    example_parts,
    example_vector,
)
from tests.reports.hostile import HOSTILE, hostile_report
from workbench.reports.content import Report, report
from workbench.reports.groups import group_rows, groups_sentence


def test_a_row_is_named_by_its_largest_member_and_lists_the_others(report: Report) -> None:
    first, second = group_rows(report)
    assert first.name == NAMED[0][1] and first.n == 3 and first.change == "more"
    assert [label for _, label, _, _ in first.members] == [named[1] for named in NAMED[:3]]
    assert second.name == "feature 1500" and second.members[0][1] == ""
    assert second.share == f"{100 * (UNLABELLED_TOP[0][1] + UNLABELLED_TOP[1][1]):.2f}%"


def groups_part(report: Report) -> str:
    """The page between the heading of the groups and the cards."""
    text = report.html()
    return text[text.index('/groups">') : text.index('/cards" class="cards"')]


def test_the_page_has_one_row_per_group_that_opens(report: Report) -> None:
    part = groups_part(report)
    assert part.count("<details") == 2 and part.count("<li>") == 5
    assert "5 are in a group" in part and "97.5th percentile 4" in part
    for feature, *_ in NAMED[:3]:
        assert re.search(rf'href="#evil/\w+-{feature}"', part)


def test_the_object_carries_the_groups(report: Report) -> None:
    assert report.to_json()["groups"]["groups"][0]["features"] == [feature for feature, *_ in NAMED[:3]]


def test_without_groups_there_is_no_table() -> None:
    parts = example_parts()
    old = replace(parts, audit={key: value for key, value in parts.audit.items() if key != "groups"})
    for made in (report(example_vector(), old, example_labels()), report(example_vector(), bare_parts(), example_labels())):
        assert group_rows(made) == [] and groups_sentence(made) == "" and '/groups">' not in made.html()
        assert made.to_json()["groups"] is None


@pytest.mark.parametrize("name", [name for name in HOSTILE if name != "long"])
def test_a_hostile_label_stays_text(name: str) -> None:
    part = groups_part(hostile_report(HOSTILE[name]))
    allowed = {"h3", "p", "div", "table", "caption", "thead", "tr", "th", "tbody", "td", "details", "summary", "ul", "li", "a",
               "small", "abbr", "em", "section"}  # fmt: skip
    assert set(re.findall(r"<([a-z]\w*)", part)) <= allowed

"""The page as text: complete, self-contained, small, and inert."""

from __future__ import annotations

import html
import html.parser
import json
import re

import pytest

from tests.reports.hostile import HOSTILE, hostile_report
from workbench.reports import html as page_html
from workbench.reports.content import Report
from workbench.reports.html import embedded
from workbench.reports.text import clean, clean_token


class Reader(html.parser.HTMLParser):
    """What a browser would make of the page: elements, identifiers, addresses, handlers."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        for name, value in attrs:
            self.ids += [value] if name == "id" else []
            self.addresses += [value] if name in ("src", "href", "action", "xlink:href") else []
            self.handlers += [name] if name.startswith("on") else []


@pytest.fixture(scope="module")
def text(report: Report) -> str:
    return report.html()


def test_the_page_loads_nothing_and_has_no_inline_handlers(text: str):
    found = Reader(text)
    assert all(address.startswith(("#", "data:,")) for address in found.addresses)
    assert not found.handlers and not re.search(r"url\((?!#)|@import", text)
    assert "default-src 'none'" in html.unescape(text)


def test_every_identifier_is_unique_and_every_link_inside_the_page_leads_somewhere(text: str):
    found = Reader(text)
    assert len(found.ids) == len(set(found.ids))
    assert {a[1:] for a in found.addresses if a.startswith("#")} <= set(found.ids)


def test_every_section_is_there_in_order(text: str):
    titles = re.findall(r'<section id="(\w+)"', text)
    assert titles == ["picture", "table", "cards", "measures", "controls", "method", "origin"]
    assert text.count("<h1") == 1 and 'lang="en"' in text


def test_each_feature_has_its_own_row_and_address(text: str, report: Report):
    for row in report.features:
        assert f'<tr id="feature-{row["feature"]}"' in text


def test_an_unknown_value_says_why_it_is_unknown(text: str):
    assert text.count("not tested: only the candidates with the largest shares are") > 10


def test_the_embedded_data_is_the_contract_object(text: str, report: Report):
    data = re.search(r'<script type="application/json" id="data"[^>]*>(.*?)</script>', text, re.S)
    assert data is not None and json.loads(data.group(1)) == report.to_json()


def test_the_page_is_well_below_three_megabytes(text: str):
    assert len(text.encode()) < 500_000


def test_contexts_are_shortened_when_the_page_would_be_too_large(report: Report, monkeypatch):
    whole = len(report.html().encode())
    monkeypatch.setattr(page_html, "MAX_BYTES", whole - 5_000)
    assert len(report.html().encode()) < whole - 5_000
    monkeypatch.setattr(page_html, "MAX_BYTES", 1_000)
    with pytest.raises(Exception, match="exceeds 3 MB"):
        report.html()


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_adds_no_element_no_handler_and_no_address(name: str, report: Report):
    made = hostile_report(HOSTILE[name]).html()
    found, usual = Reader(made), Reader(report.html())
    assert set(found.elements) <= set(usual.elements)
    assert found.elements.count("script") == 2 and found.elements.count("img") == 0
    assert not found.handlers and all(a.startswith(("#", "data:,")) for a in found.addresses)
    assert len(made.encode("utf-8")) < 1_500_000
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u2028\u2029\x00\x07]", made)


def test_embedded_json_cannot_end_its_element():
    made = str(embedded({"a": "</script><!--", "b": "\u2028"}))
    assert "<" not in made and ">" not in made and "\u2028" not in made
    assert json.loads(made) == {"a": "</script><!--", "b": "\u2028"}


def test_text_is_cleaned_and_told_so():
    assert clean("a\u202eb\ud800") == "a‹U+202E›b‹U+D800›"
    assert clean_token("\n") == "↵" and clean_token("y" * 99).endswith("(99 characters)")
    assert clean("crème 日本 🙂") == "crème 日本 🙂"

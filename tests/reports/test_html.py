"""The page as text: complete, self-contained, small, and inert."""

from __future__ import annotations

import base64
import gzip
import html
import html.parser
import json
import re
from itertools import pairwise

import pytest

from tests.reports.hostile import HOSTILE, hostile_report
from workbench.reports import html as page_html
from workbench.reports.content import Report
from workbench.reports.downloads import tables
from workbench.reports.html import embedded
from workbench.reports.page import _TAKEN, slugs_of
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
def text(full: Report) -> str:
    return full.html()


@pytest.fixture(scope="module")
def several(three) -> str:
    return three.html()


def embedded_in(text: str, name: str) -> object:
    data = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', text, re.S)
    assert data is not None
    return json.loads(data.group(1))


def test_the_page_loads_nothing_and_has_no_inline_handlers(text: str):
    found = Reader(text)
    assert all(address.startswith(("#", "data:,")) for address in found.addresses)
    assert not found.handlers and not re.search(r"url\((?!#)|@import", text)
    assert "default-src 'none'" in html.unescape(text)


def test_every_identifier_is_unique_and_every_link_inside_the_page_leads_somewhere(several: str):
    found = Reader(several)
    assert len(found.ids) == len(set(found.ids))
    assert {a[1:] for a in found.addresses if a.startswith("#")} <= set(found.ids)


def test_every_section_is_there_in_order(text: str, several: str):
    parts = ["features", "cards", "chance", "measures", "effect", "controls"]
    assert re.findall(r'<section id="([\w/]+)"', text) == [*(f"evil/{part}" for part in parts), "method", "data"]
    chapters = [f"{trait}/{part}" for trait in ("evil", "impolite", "dull") for part in parts]
    assert re.findall(r'<section id="([\w/]+)"', several) == ["overview", "overlap", *chapters, "all/features", "method", "data"]
    assert all(page.count("<h1") == 1 and 'lang="en"' in page for page in (text, several))


def test_headings_do_not_skip_a_level(text: str, several: str):
    for page in (text, several):
        levels = [int(level) for level in re.findall(r"<h(\d)[ >]", page)]
        assert levels[0] == 1 and all(after <= before + 1 for before, after in pairwise(levels))


def test_each_feature_has_its_own_row_and_an_address_of_a_card_or_a_row(text: str, full: Report):
    identifiers = Reader(text).ids
    for row in full.features:
        assert identifiers.count(f"evil/feature-{row['feature']}") == 1


def test_a_trait_gets_a_plain_name_of_its_own_in_addresses():
    assert slugs_of(["Evil one", "evil-one", "Überheblich", "!!", "overview"]) == {
        "Evil one": "evil-one", "evil-one": "evil-one-2", "Überheblich": "berheblich", "!!": "trait-2", "overview": "overview-2",
    }  # fmt: skip


def test_no_trait_can_be_called_like_another_part_of_the_page(several: str, three):
    pattern = re.compile(r"[a-z]{1,2}[0-9a-f]{8}[en]")  # of a drawing, by its hash
    plain = {one for one in Reader(several).ids if "/" not in one and not pattern.fullmatch(one)}
    own = plain - set(slugs_of(three.names).values())
    assert own <= set(_TAKEN)
    assert not set(slugs_of(["data json", "content", "command"]).values()) & own


def test_an_unknown_value_says_why_it_is_unknown(text: str):
    assert text.count('title="not tested"') > 10


def test_a_weak_claim_has_its_caution_in_the_section_that_makes_it(text: str, full: Report):
    for claim, section in (("picture", "evil"), ("table", "evil/features"), ("auc", "evil/measures"), ("audit", "evil/effect")):
        for caution in full.warnings_on(claim):
            place = text.index(html.escape(caution, quote=True).replace("&#x27;", "&#39;"))
            before = re.findall(r'<(?:section|article class="chapter") id="([\w/]+)"', text[:place])
            assert before[-1] == section, caution
    weak = next(row["feature"] for row in full.features if full.warnings_on(row["feature"]) and row["label"])
    card = text[text.index(f'id="evil/feature-{weak}"') :]
    assert html.escape(full.warnings_on(weak)[0]).replace("&#x27;", "&#39;") in card[: card.index("</details>")]


def test_the_embedded_data_is_the_contract_object_beside_the_tables(text: str, full: Report, several: str, three):
    assert embedded_in(text, "data-json") == full.to_json() and embedded_in(several, "data-json") == three.to_json()
    for page, value in ((text, full), (several, three)):
        packed = embedded_in(page, "data-tables")
        assert isinstance(packed, dict)
        assert {name: gzip.decompress(base64.b64decode(one)).decode() for name, one in packed.items()} == tables(value)


def test_what_two_traits_say_of_one_feature_stands_in_the_page_once(several: str):
    assert several.count('data-same="evil/feature-94" data-part="texts"') == 1
    starts = (several.index(f'id="{trait}/feature-94"') for trait in ("evil", "impolite"))
    first, second = (several[start:].split("</details>")[0] for start in starts)
    assert "<mark" in first and "<mark" not in second


def test_the_page_is_well_below_three_megabytes(text: str, several: str):
    assert len(text.encode()) < 500_000 and len(several.encode()) < 1_000_000


def test_the_provenance_that_all_traits_have_in_common_is_told_once(several: str):
    names = re.findall(r"<summary>(The (?:vector|model|SAE|decomposition)[^<]*)</summary>", several)
    assert names.count("The SAE") == 1 and len(names) == len(set(names))


def test_a_figure_in_a_page_says_its_words_once(text: str):
    picture = re.search(r'<figure class="made">.*?</svg>', text, re.S)
    assert picture is not None and picture.group(0).count("Shares of its squared length") == 1
    assert "wbf-paper" not in picture.group(0)


def test_contexts_are_shortened_when_the_page_would_be_too_large(report: Report, monkeypatch):
    whole = len(report.html().encode())
    monkeypatch.setattr(page_html, "MAX_BYTES", whole - 2_000)
    assert len(report.html().encode()) < whole - 2_000
    monkeypatch.setattr(page_html, "MAX_BYTES", 1_000)
    with pytest.raises(Exception, match="exceeds 3 MB"):
        report.html()


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_adds_no_element_no_handler_and_no_address(name: str, report: Report):
    made = hostile_report(HOSTILE[name]).html()
    found, usual = Reader(made), Reader(report.html())
    assert set(found.elements) <= set(usual.elements)
    assert found.elements.count("script") == 3 and found.elements.count("img") == 0
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

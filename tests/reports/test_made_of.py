"""The picture of what a vector is made of, and its display: every part, no script."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from tests.labeling.made_of_world import decoder, group_labels, labels, planted_parts
from tests.labeling.test_made_of import placebos
from tests.reports.hostile import HOSTILE
from workbench.base.display import figure_for, html_for
from workbench.labeling.labels import LabelSet
from workbench.labeling.taxonomy.made_of import made_of, placebo_shares
from workbench.labeling.taxonomy.values import MadeOf
from workbench.personas.traits import load_trait
from workbench.reports.made_of import made_of_figure
from workbench.reports.svg import percent

EVIL = load_trait("evil")
PARTS = planted_parts(1, n_bootstrap=40)
SPACE = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def made() -> MadeOf:
    return made_of(PARTS, group_labels(), EVIL, placebo_shares=placebo_shares(placebos(), decoder(), "evil"))


def bars(svg: str, kind: str) -> list[float]:
    found = [rect for rect in ET.fromstring(svg).iter(f"{SPACE}rect") if rect.get("class") == f"wbf-{kind}"]
    return [float(rect.get("width", 0)) for rect in found if float(rect.get("height", 0)) == 12]


def test_every_part_with_features_has_a_bar_as_long_as_its_share_and_its_numbers(made: MadeOf) -> None:
    svg = made_of_figure(made).svg
    words = [element.text for element in ET.fromstring(svg).iter(f"{SPACE}text")]
    for part in (*made.totals, *(p for p in made.parts if p.n_features)):
        assert part.name in words and percent(part.share) in words
    _, contempt, threats = bars(svg, "trait")  # the total first, on a scale of its own
    assert contempt / threats == pytest.approx(made["contempt"].share / made["threats"].share, rel=0.01)
    assert "Deception, " in " ".join(filter(None, words)) and "By category" in svg


def test_a_negative_share_runs_to_the_left_and_is_striped(made: MadeOf) -> None:
    turned = replace(made, parts=tuple(replace(p, share=-p.share, low=-p.high, high=-p.low, corrected=-p.corrected)
                                       if p.id == "threats" else p for p in made.parts))  # fmt: skip
    plain, striped = (ET.fromstring(made_of_figure(value).svg) for value in (made, turned))

    def patterned(root: ET.Element) -> int:
        return sum("url(#" in str(rect.get("fill")) for rect in root.iter(f"{SPACE}rect"))

    assert patterned(striped) == patterned(plain) + 1
    bar = [r for r in striped.iter(f"{SPACE}rect") if r.get("class") == "wbf-trait"][-1]
    zero = [line for line in striped.iter(f"{SPACE}line") if line.get("class") == "wbf-axis"][-1]
    assert float(bar.get("x", 0)) + float(bar.get("width", 0)) == pytest.approx(float(zero.get("x1", 0)), abs=0.1)


def test_without_labels_the_picture_says_so() -> None:
    svg = made_of_figure(made_of(PARTS, LabelSet("x", ""), EVIL)).svg
    assert "No feature has a label." in svg and ET.fromstring(svg) is not None


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_names_stay_words(text: str) -> None:
    taxonomy = tuple(replace(category, name=text, description=text) for category in EVIL.taxonomy)
    named = replace(labels({0: "contempt", 1: "style"}), warnings=(text,))
    made = replace(made_of(PARTS, named, replace(EVIL, taxonomy=taxonomy), n_swaps=19), trait=text)
    root = ET.fromstring(made_of_figure(made).svg)
    assert {element.tag.removeprefix(SPACE) for element in root.iter()} <= {
        "svg", "style", "title", "desc", "rect", "defs", "pattern", "path", "line", "text", "circle",
    }  # fmt: skip
    assert not [name for element in root.iter() for name in element.attrib if name.startswith("on")]
    shown = html_for(made) or ""
    assert "<script" not in shown and "<img" not in shown and "<svg onload" not in shown and "\u202e" not in shown


def test_a_notebook_shows_the_answer_the_picture_and_the_nulls(made: MadeOf) -> None:
    shown = made._repr_html_() or ""
    assert "What is evil made of?" in shown and "<svg" in shown and "p against permuted labels" in shown
    assert figure_for(made).svg == made_of_figure(made).svg

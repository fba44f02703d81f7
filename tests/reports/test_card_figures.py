"""The small pictures of a card and the matrix of several traits: every number is where it should be, and said in words."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from tests.reports.hostile import HOSTILE
from workbench.labeling.views.values import Tally
from workbench.reports.card_figures import activation_histogram, firing_rates
from workbench.reports.matrices import pair_matrix

SPACE = "{http://www.w3.org/2000/svg}"


def words(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter(f"{SPACE}text")]


def test_a_histogram_has_a_bar_per_occupied_bin_and_ten_times_as_many_tokens_are_one_step_higher() -> None:
    svg = activation_histogram([(0.0, 1.0, 1000), (1.0, 2.0, 100), (2.0, 4.0, 10), (4.0, 5.0, 0)], name="feature 3").inline
    bars = re.findall(r"M([\d.]+) 96V([\d.]+)H([\d.]+)V96Z", svg)
    heights = [96 - float(top) for _, top, _ in bars]
    assert len(bars) == 3 and heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.2)
    widths = [float(right) - float(left) for left, _, right in bars]
    assert widths[2] == pytest.approx(2 * widths[1], abs=1.0)
    assert "1,110 tokens" in svg and "1k" in words(svg)


def test_a_feature_that_never_fires_has_no_bars() -> None:
    assert "fires on nothing" in words(activation_histogram([], name="feature 3").inline)[0]


def test_rates_stand_on_one_scale_from_zero_with_their_intervals() -> None:
    tallies = [Tally("user", 1000, 100, 0.1, 2.0, (0.05, 0.2)), Tally("assistant", 1000, 50, 0.05, 2.0)]
    svg = firing_rates(tallies, title="By speaker", n_coloured=1).inline
    (own,), (other,) = (re.findall(rf'd="M([\d.]+) [\d.]+h0" class="wbf-dots-{kind}"', svg) for kind in ("own", "others"))
    zero = float(re.findall(r'x1="([\d.]+)"', svg)[0])
    assert float(own) - zero == pytest.approx(2 * (float(other) - zero), abs=0.2)
    low, high = re.findall(r'd="M([\d.]+) [\d.]+H([\d.]+)" class="wbf-whisker"', svg)[0]
    assert float(high) - zero == pytest.approx(4 * (float(low) - zero), abs=0.3)
    assert {"10.00%", "5.00%", "user", "assistant"} <= set(words(svg)) and "user 10.00%" in svg


def test_a_matrix_writes_what_chance_gives_below_each_number() -> None:
    cells = [[(None, "12", "own"), (0.8, "0.80", "(0.21)")], [(-0.4, "−0.40", "(0.21)"), (None, "", "")]]
    svg = pair_matrix(["evil", "a trait with a long name"], cells, title="Cosines", description="evil and a trait 0.80").inline
    assert {"0.80", "(0.21)", "−0.40", "12", "own", "evil"} <= set(words(svg))
    assert re.findall(r'class="wbf-(trait|other)" fill-opacity="([\d.]+)"', svg) == [("trait", "0.400"), ("other", "0.200")]


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_names_stay_words(text: str) -> None:
    figures = (
        firing_rates([Tally(text, 10, 1, 0.1, 1.0)], title=text),
        pair_matrix([text], [[(0.1, text, text)]], title=text, description=text),
        activation_histogram([(0.0, 1.0, 3)], name=text),
    )
    for figure in figures:
        root = ET.fromstring(figure.inline)
        known = {"svg", "title", "desc", "rect", "path", "line", "text", "g"}
        assert {element.tag.removeprefix(SPACE) for element in root.iter()} <= known
        assert not [name for element in root.iter() for name in element.attrib if name.startswith("on")]

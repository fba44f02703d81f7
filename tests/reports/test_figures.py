"""The drawings: valid SVG, true to the numbers, safe with any words."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from workbench.reports.figures import energy_curve, layer_curve, strip, waterfall
from workbench.reports.shares import Slice
from workbench.reports.svg import Scale, percent

SVG = "{http://www.w3.org/2000/svg}"
ROWS = (
    Slice("a", "Cruelty", "trait", 0.4, 0.3, 0.5, 2),
    Slice("b", "Style", "other", -0.1, -0.2, 0.0, 1),
    Slice("unlabelled", "Features without a label", "open", 0.5, None, None, 90),
    Slice("error", "SAE error", "error", 0.2, 0.1, 0.3),
)


def bars(figure, kind: str) -> list[tuple[float, float]]:
    found = ET.fromstring(figure.svg).iter(f"{SVG}rect")
    return [(float(r.get("x")), float(r.get("width"))) for r in found if r.get("class") == f"wbf-{kind}"]


def test_bars_are_as_long_as_their_shares_and_stand_where_the_last_one_ended():
    figure = waterfall(ROWS, trait="evil")
    [(zero, whole)] = bars(figure, "total")
    [(trait_x, trait_w)], [(other_x, other_w)] = bars(figure, "trait"), bars(figure, "other")
    assert trait_x == pytest.approx(zero, abs=0.02) and trait_w == pytest.approx(0.4 * whole, abs=0.02)
    assert other_w == pytest.approx(0.1 * whole, abs=0.02)
    assert other_x + other_w == pytest.approx(
        trait_x + trait_w, abs=0.03
    )  # a negative share runs back to the left
    [(error_x, error_w)] = bars(figure, "error")
    assert error_x + error_w == pytest.approx(zero + whole, abs=0.03)


def test_the_picture_is_told_in_words_for_those_who_cannot_see_it():
    figure = waterfall(ROWS, trait="evil")
    described = ET.fromstring(figure.svg).find(f"{SVG}desc").text
    assert "Cruelty 40.0% [30.0, 50.0]" in described and "Style −10.0%" in described


def test_words_in_a_figure_cannot_become_markup():
    hostile = Slice("x", "</text><script>alert(1)</script>&\u202e\ud800", "trait", 1.0)
    figure = waterfall((hostile,), trait='"><script>')
    root = ET.fromstring(figure.svg)
    assert not list(root.iter(f"{SVG}script")) and "\u202e" not in figure.svg
    figure.svg.encode("utf-8")


def test_a_figure_stands_alone_with_its_own_style(tmp_path):
    figure = waterfall(ROWS, trait="evil")
    assert "<style>" in figure.svg and "<style>" not in figure.inline
    assert "prefers-color-scheme:dark" in figure.svg
    assert figure.save(tmp_path / "f.svg").read_text(encoding="utf-8") == figure._repr_svg_()


def test_pattern_names_differ_between_two_pictures():
    other = waterfall(ROWS[:2], trait="evil")
    names = {el.get("id") for el in ET.fromstring(waterfall(ROWS, trait="evil").svg).iter(f"{SVG}pattern")}
    assert names.isdisjoint({el.get("id") for el in ET.fromstring(other.svg).iter(f"{SVG}pattern")})


def test_the_other_figures_are_drawn_with_and_without_intervals():
    ET.fromstring(layer_curve([(3.0, 0.6, None, None), (9.0, 0.8, 0.7, 0.9)], chosen=9.0).svg)
    ET.fromstring(strip([0.1, -0.1], 0.3, None, None, name="feature 1").svg)
    ET.fromstring(strip([0.0], 0.0, 0.0, 0.0, name="feature 2").svg)
    curves = [("the SAE", [(4.0, 0.3), (8.0, 0.5)]), ("random, matched", [(4.0, 0.3), (8.0, 0.5)])]
    heights = [
        float(t.get("y"))
        for t in ET.fromstring(energy_curve(curves).svg).iter(f"{SVG}text")
        if "0.50" in (t.text or "")
    ]
    assert abs(heights[0] - heights[1]) >= 15  # two lines that end alike keep readable names


def test_ticks_are_round_and_inside_the_range():
    assert Scale(-0.1, 1.05, 0, 100).ticks(7) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert Scale(2, 2, 0, 1).ticks() and len(Scale(0, 1e-9, 0, 1).ticks()) < 20


def test_per_cents_have_a_real_minus_and_no_negative_zero():
    assert (
        percent(-0.0312) == "−3.1%"
        and percent(-1e-9) == "0.0%"
        and percent(None) == "–"
        and percent(float("nan")) == "–"
    )


def test_a_figure_keeps_its_light_colours_where_the_style_is_dropped():
    figure = waterfall(ROWS, trait="evil")
    bare = re.sub(r"<style>.*?</style>", "", figure.svg, flags=re.S)
    marks = [el for el in ET.fromstring(bare).iter() if (el.get("class") or "").startswith("wbf-")]
    shapes = [el for el in marks if el.tag in (f"{SVG}rect", f"{SVG}text", f"{SVG}path", f"{SVG}line", f"{SVG}circle")]
    assert shapes and all(el.get("fill") or el.get("stroke") for el in shapes if el.get("class") != "wbf-num")
    assert next(el for el in marks if el.get("class") == "wbf-paper").get("fill") == "#fff"
    assert "sans-serif" in (ET.fromstring(bare).get("font-family") or "")


def test_the_text_of_a_figure_is_what_a_screen_reader_gets():
    assert repr(waterfall(ROWS, trait="evil")).startswith("Figure: What the evil vector is made of")
    assert "<svg" not in repr(waterfall(ROWS, trait="evil"))

"""The figure of what steering costs: every method named, intervals drawn, words escaped."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from tests.steering.cost.test_pareto import cell, swept
from workbench.base.display import display_for
from workbench.reports.steering.pareto import front_sentences, pareto_figure
from workbench.steering.cost.pareto import front


@pytest.fixture(scope="module")
def found():
    cells = [cell(method, d, 40 + gain * d, 0.1 * d) for method, gain in (("add", 10), ("random", 1)) for d in (1, 2)]
    return front(swept(*cells, cell("prompting", None, 75, 0.05)), wanted=1)


def test_the_drawing_is_well_formed_and_names_every_method_directly(found):
    figure = pareto_figure([found, found])
    texts = ["".join(node.itertext()) for node in ElementTree.fromstring(figure.svg).iter("{http://www.w3.org/2000/svg}text")]
    for method in ("add", "random", "prompting"):
        assert texts.count(method) == 2
    assert any("nats per token" in text for text in texts) and any("points of 100" in text for text in texts)
    assert "nan" not in figure.inline.lower()


def test_a_point_that_costs_more_lies_further_right_and_a_larger_change_higher(found):
    svg = ElementTree.fromstring(pareto_figure([found]).svg)
    marks = [node for node in svg.iter("{http://www.w3.org/2000/svg}circle") if "wbf-edge" in node.get("class", "")]
    places = [(float(node.get("cx", 0)), float(node.get("cy", 0))) for node in marks]
    order = {(point.method, point.level): places[i] for i, point in enumerate(sorted_as_drawn(found))}
    assert order["add", 1][0] < order["add", 2][0] and order["add", 1][1] > order["add", 2][1]
    assert order["prompting", None][1] == min(y for _, y in places)


def sorted_as_drawn(found):
    methods = list(dict.fromkeys(point.method for point in found.points))
    return [point for method in methods for point in found.points if point.method == method]


def test_the_sentences_say_how_much_there_was_and_what_is_cheapest(found):
    told = " ".join(front_sentences(found))
    assert "40.0 points of 100" in told and "prompting" in told
    nothing = replace(found, points=tuple(replace(point, change=-1.0) for point in found.points))
    assert "No treatment moves it" in " ".join(front_sentences(nothing))


def test_a_front_shows_itself_with_its_figure(found):
    display = display_for(found)
    assert display.figure is not None and "evil" in display.html()
    hostile = replace(found, trait="<script>alert(1)</script>")
    assert "<script>alert" not in display_for(hostile).html()


def test_one_point_that_costs_many_times_as_much_is_told_and_presses_nothing_together():
    cells = [cell("add", d, 40 + 10 * d, 0.1 * d) for d in (1, 2)]
    dear = front(swept(*cells, cell("ablate", None, 50, 4.0)), wanted=1)
    svg = pareto_figure([dear]).svg
    texts = ["".join(node.itertext()) for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert any(text.startswith("off the chart: ablate (") and text.endswith("points at 4.0)") for text in texts), texts
    assert "ablate" not in texts
    assert svg.count('class="wbf-edge"') == 2

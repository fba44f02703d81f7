"""Pictures of SAE training say what the numbers say."""

from __future__ import annotations

from xml.etree import ElementTree

from workbench.reports.training import training_curves

LOG = [{"step": step, "variance_explained": 0.5 + step / 1000, "dead_share": 0.1} for step in (100, 200, 300)]
def test_training_curves_are_valid_svg_and_name_the_last_values() -> None:
    figure = training_curves(LOG, name="a <b>")
    ElementTree.fromstring(figure.svg)
    assert "variance explained 0.800" in figure.svg and "a &lt;b&gt;" in figure.svg
    ElementTree.fromstring(training_curves([], name="none").svg)

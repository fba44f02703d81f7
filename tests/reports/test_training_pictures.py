"""Pictures of SAE training say what the numbers say."""

from __future__ import annotations

from xml.etree import ElementTree

from workbench.reports.training import frontier, training_curves

LOG = [{"step": step, "variance_explained": 0.5 + step / 1000, "dead_share": 0.1} for step in (100, 200, 300)]
def test_training_curves_are_valid_svg_and_name_the_last_values() -> None:
    figure = training_curves(LOG, name="a <b>")
    ElementTree.fromstring(figure.svg)
    assert "variance explained 0.800" in figure.svg and "a &lt;b&gt;" in figure.svg
    ElementTree.fromstring(training_curves([], name="none").svg)


POINTS = [
    {"id": "a", "kind": "4,096 features", "l0": 16, "variance_explained": 0.7},
    {"id": "b", "kind": "4,096 features", "l0": 32, "variance_explained": 0.8},
    {"id": "<c>", "kind": "8,192 features", "l0": 32, "variance_explained": 0.78},
]


def test_the_frontier_has_a_point_per_sae_and_a_line_per_kind() -> None:
    svg = frontier(POINTS, value="variance_explained", label="variance explained").svg
    root = ElementTree.fromstring(svg)
    circles = [e for e in root.iter() if e.tag.endswith("circle")]
    assert len(circles) == 3 and "&lt;c&gt;" in svg and "8,192 features" in svg
    assert len([e for e in root.iter() if e.tag.endswith("path") and "wbf-line-a" in e.get("class", "")]) == 1
    heights = {str(e.findtext(".//{*}title")).split(":")[0]: float(str(e.get("cy"))) for e in circles}
    assert heights["b"] < heights["<c>"] < heights["a"]  # better is higher

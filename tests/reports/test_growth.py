"""The growth figure draws one panel per curve and says the exponents."""

from __future__ import annotations

from xml.etree import ElementTree

from workbench.reports.growth import growth_figure


def test_each_curve_has_two_lines_and_its_exponents() -> None:
    points = [{"rows": n, "processor_seconds": n / 10, "peak_bytes": 2**30} for n in (1, 10, 100)]
    curve = {"points": points, "time_exponent": 1.0, "memory_exponent": 0.0}
    drawn = growth_figure({"streaming_tokens": curve, "pursuit_k": curve}).svg
    root = ElementTree.fromstring(drawn)
    lines = [node for node in root.iter() if node.tag.endswith("path")]
    assert len(lines) == 4
    assert "time 1.00, memory 0.00" in drawn
    heights = [float(part.split()[1]) for part in lines[0].attrib["d"][1:].split("L")]
    assert abs((heights[0] - heights[1]) - (heights[1] - heights[2])) < 0.2 and heights[0] > heights[2]

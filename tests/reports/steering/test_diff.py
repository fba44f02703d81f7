from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from tests.steering.diff.planted import (
    FEATURES,
    QUESTIONS,
    UNRELATED,
    base,
    placebos,
    sae,
    vectors,
    with_delta,
)
from tests.steering.diff.test_study import ROWS
from workbench.reports.displays.diff import lens_display, rotation_display
from workbench.reports.steering.diff import diff_figure, study_figure
from workbench.steering.diff.diff import DiffOptions, diff
from workbench.steering.diff.lens import DifferenceLens
from workbench.steering.diff.rotation import Rotation, TurnedFeature
from workbench.steering.diff.study import summary

OPTIONS = DiffOptions(n_bootstrap=50, n_random=50, max_tokens=8)
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def found():
    before = base()
    after = with_delta(before, 3.0 * sae().decoder_directions[FEATURES["cruel"]], name=HOSTILE)
    more = {"unrelated": UNRELATED, "placebos": placebos(), "options": OPTIONS}
    return diff(before, after, vectors(), sae(), QUESTIONS, **more)


def test_the_figure_has_a_row_per_trait_with_its_band_and_marks_what_was_installed(found):
    for place in found.places:
        svg = ElementTree.fromstring(diff_figure(found, place).svg)
        kinds = [element.get("class") for element in svg.iter()]
        assert kinds.count("wbf-band") == 4 and kinds.count("wbf-whisker") == 4 and kinds.count("wbf-mark") == 1
    figure = diff_figure(found)
    assert HOSTILE not in figure.svg and "cruel" in figure.svg and "installed" in figure.svg
    assert "cruel" in repr(figure)


def test_displays_say_the_sentence_and_escape_names(found):
    shown = found._repr_html_()
    assert "moved the model toward cruel" in shown and HOSTILE not in shown and "&lt;script&gt;" in shown
    assert str(FEATURES["cruel"]) in found.installed["reply"]._repr_html_()
    assert HOSTILE not in lens_display(DifferenceLens("h", (HOSTILE,), (), 0.1, 3)).html()
    turned = Rotation("s", 10, 2, 0.2, 0.05, 4.0, 2.0, 1.0, (TurnedFeature(3, 0.5, 0.99, 7, HOSTILE),), 100, 60)
    assert "20%" in rotation_display(turned).html() and HOSTILE not in rotation_display(turned).html()


def test_the_study_is_drawn_with_its_figures():
    figure = study_figure(ROWS, summary(ROWS), "prompt")
    svg = ElementTree.fromstring(figure.svg)
    kinds = [element.get("class") for element in svg.iter()]
    assert kinds.count("wbf-mark") == 4 + 1 and kinds.count("wbf-edge") == 4 + 1 and kinds.count("wbf-dot") == 12 + 1
    assert "named first: 4 of 4" in figure.svg and "shams alarmed: 0 of 1" in figure.svg

from __future__ import annotations

import re

from workbench.lab.mixture_study import MethodScore, MixtureResult, MixtureRow
from workbench.reports.mixtures import mixture_figure


def example() -> MixtureResult:
    known = {"a": 0.6, "<b>": 0.4}
    found = {"shares": {"a": 0.55, "<b>": 0.45}, "codes": {"a": 0.6, "<b>": 0.4}, "residual": {"a": 0.9, "<b>": 0.1}}
    errors = {"shares": 0.05, "codes": 0.0, "residual": 0.3}
    row = MixtureRow(known, found, errors, dict.fromkeys(errors, True))
    scores = tuple(MethodScore(name, error, (0.0, 0.1), 1.0, (1.0, 1.0), error) for name, error in row.share_error.items())
    return MixtureResult(("a", "<b>"), (row,) * 3, scores, {}, {}, {"a": 2, "<b>": 1}, {})


def test_every_mixture_has_a_mark_per_sub_persona_in_every_panel():
    figure = mixture_figure(example()).svg
    assert figure.count("translate(") == 3 + 3 * 3 * 2 + 2  # panels, marks, key
    assert "mean error 0.050" in figure and "mean error 0.300" in figure and "order right in 100%" in figure


def test_names_are_escaped():
    figure = mixture_figure(example()).svg
    assert "&lt;b&gt;" in figure and not re.search(r"<b>", figure)


def test_the_value_shows_itself():
    import workbench  # noqa: F401

    result = example()
    page = result._repr_html_()
    assert page and "shares" in page and "<svg" in page and result.figure().svg == mixture_figure(result).svg
    assert "share error: shares 0.050, codes 0.000, residual 0.300" in repr(result)

"""The falsifier's page: what failed first, nothing hidden, everything escaped, no network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from markupsafe import escape

from tests.reports.hostile import HOSTILE
from workbench.decomposition.falsify import CRITERIA, FAIL, NOT_TESTED, PASS, Falsification
from workbench.reports.falsify import command_of, render, save, verdict_grid

SAE = {"id": "tiny/blocks.1.hook_resid_post", "d_sae": 16, "hook": "blocks.1.hook_resid_post"}


def falsification(**changes: object) -> Falsification:
    """Length failed, the seed is not tested, all others passed; the encoder's overlap is shown."""
    checks = []
    for criterion in CRITERIA.values():
        if criterion.threshold is None:
            checks.append(criterion.shown(0.9, "90% of its top ten are those of the zero vector"))
        elif criterion.name == "seed":
            checks.append(criterion.untested("no SAE from another seed was given"))
        else:
            good = criterion.threshold if criterion.bound != "above" else criterion.threshold + 1
            checks.append(criterion.judged(0.31 if criterion.name == "length" else good, f"why {criterion.name}", beside=[1, 2]))
    vector = {"trait": "evil", "model": {"name": "tiny"}, "sae_hook": "blocks.1.hook_resid_post", "n_rows": 120}
    found = Falsification("evil", vector, SAE, tuple(checks), ("the decomposition says so",), {"seed": 0})
    return replace(found, **changes)  # type: ignore[arg-type]


def test_the_page_says_first_what_failed_then_what_nobody_tested():
    text = render(falsification())
    places = [text.index(f'id="{name}"') for name in ("fail", "not-tested", "pass", "shown")]
    assert places == sorted(places)
    assert "1 failed, 1 not tested, 12 passed." in text and "The vector is not what it claims to be." in text
    assert text.index("check-length") < text.index("check-seed") < text.index("check-format")
    assert "<b>To test it:</b> An SAE of the same site from another seed, given with --other-seed." in text
    for criterion in CRITERIA.values():
        assert str(escape(criterion.question)) in text


def test_red_of_the_decomposition_alone_is_not_blamed_on_the_vector():
    checks = tuple(replace(one, verdict=FAIL) if one.name == "dictionary" else one for one in falsification().checks)
    assert "nor is its decomposition" in render(falsification(checks=checks))
    only = tuple(replace(one, verdict=PASS) if one.name == "length" else one for one in checks)
    assert "The vector itself is not red" in render(falsification(checks=only))


def test_a_page_without_red_but_with_gaps_is_not_called_green():
    checks = tuple(one for one in falsification().checks if one.verdict != FAIL)
    found = falsification(checks=checks)
    assert found.colour == "open" and "that is no green: checks are missing" in render(found)
    tested = falsification(checks=tuple(one for one in checks if one.verdict != NOT_TESTED))
    assert tested.colour == "green" and "does not prove the vector" in render(tested)


@pytest.mark.parametrize("words", HOSTILE.values(), ids=HOSTILE)
def test_hostile_words_are_escaped_everywhere(words: str):
    found = falsification(trait=words, notes=(words,))
    checks = tuple(replace(one, reason=words, details={words: words}) for one in found.checks)
    hostile = replace(found, checks=checks, vector={**found.vector, "model": {"name": words}, words: words})
    for text in (render(hostile, command=words), hostile._repr_html_() or ""):
        assert not any(tag in text for tag in ("<script", "<img", "<svg onload", "</textarea", "<!--<"))
        assert "\u202e" not in text and "\x00" not in text


def test_a_notebook_shows_the_headline_and_the_worst_first():
    text = falsification()._repr_html_() or ""
    assert "1 failed (length), 1 not tested, 12 passed" in text
    assert text.index("how long the answers are") < text.index("in another SAE") < text.index("Does one token carry")
    assert falsification().figure().svg.startswith("<svg")


def test_the_grid_marks_every_verdict_by_more_than_colour():
    rows = {"evil": {one.name: one.verdict for one in falsification().checks}, "random": {"length": NOT_TESTED, "seed": PASS}}
    figure = verdict_grid(rows, title="Two vectors")
    assert figure.svg.count("✕") == 1 and figure.svg.count("✓") == 13
    assert "evil: 1 failed, 1 not tested" in figure.svg


def test_the_command_is_quoted():
    made = command_of("a b.pt", "sae", other_seed="", reference="runs/x")
    assert made == "workbench falsify 'a b.pt' --sae sae --reference runs/x"


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_stands_alone_and_fits_the_window(visit, tmp_path: Path, scheme: str, width: int):
    seen = visit(save(falsification(), tmp_path / "falsify.html"), color_scheme=scheme, viewport={"width": width, "height": 800})
    assert seen.complaints == [] and seen.requests == []
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
    assert seen.page.locator(".check").count() == len(CRITERIA)

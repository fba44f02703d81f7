"""The drawings, displays and page of drift: what they say, and that nothing of a conversation gets out of its place."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from tests.axis.drift.world import spoken, study_of, written
from tests.reports.hostile import HOSTILE
from workbench.axis.drift.alarm import drift_alarm
from workbench.axis.drift.attribution import Moved, MovedFeature
from workbench.axis.drift.result import DriftStudy
from workbench.base.display import html_for
from workbench.reports.axis.drift import conversation_figure, speeds_figure, turns_figure
from workbench.reports.axis.drift_page import Findings, furthest, headline, render

TALKS = [spoken(domain, number, 4) for domain in ("coding", "therapy") for number in range(6)]


class Tags(HTMLParser):
    """Every tag with the names of its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, list[str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, [key for key, _ in attrs]))


def falling(one: Any, turn: int) -> float:
    return -0.1 * turn * (1 if one.domain == "therapy" else 0.25) * (1.5 if one.script.endswith("-3") else 1)


@pytest.fixture(scope="module")
def study() -> DriftStudy:
    return study_of(TALKS, written(TALKS, falling, noise=0.02))


def moved() -> Moved:
    feature = MovedFeature(7, -0.05, (-0.08, -0.02), 0.5, 0.3, 0.01, 0.005, "sad words")
    ends = {"total": (-0.2, -0.05)}
    return Moved("history", "therapy", "assistant-axis", "an SAE", 6, -0.1, (feature,), -0.04, -0.01, ends, None)


def test_the_headline_says_which_groups_drift_and_how_much_faster(study):
    told = headline(study)
    assert "away from the assistant in coding" in told and "away from the assistant in therapy" in told
    assert "Against coding: 4" in told or "Against coding: 3" in told
    still = study_of(TALKS, written(TALKS, lambda *_: 0.0, noise=0.02, seed=4))
    assert headline(still).startswith("In none of 2 groups")
    assert headline(study_of(TALKS[:2], written(TALKS[:2], lambda *_: 0.0))).startswith("Too few conversations")
    assert "humour" in headline(replace(study, axis="humour")) and "assistant" not in headline(replace(study, axis="humour"))


def test_drawings_say_their_figures_aloud(study):
    trace = study.trace("therapy-3")
    aloud = repr(conversation_figure(trace))
    assert "turn 1" in aloud and "turn 4" in aloud and "without history" in aloud
    assert conversation_figure(trace).inline.count("wbf-line-a") == 4 + 1, "a line per reply, and the key"
    assert "therapy −0.1" in repr(speeds_figure(study)) and speeds_figure(study).inline.count("wbf-band") == 2
    assert turns_figure(study).inline.count("<circle") == 8 and "coding: 0.000" in repr(turns_figure(study))


def test_the_conversations_that_end_furthest_away_are_shown(study):
    assert furthest(study, 1) == ["coding-3", "therapy-3"]


def test_the_page_holds_all_findings(study):
    calibration = [spoken("coding", 100 + number, 4) for number in range(8)]
    alarm = drift_alarm(study_of(calibration, written(calibration, lambda *_: 0.0, noise=0.02)), study)
    found = {"position": {"r2": 0.5, "interval": [0.3, 0.6], "null_q95": 0.1, "group": 0.2, "beyond": 0.3,
                          "beyond_interval": [0.1, 0.4]}}  # fmt: skip
    page = render(study, Findings([moved()], found, alarm, {"therapy-3": moved()}))
    for words in ("sad words", "−0.0500 [−0.0800, −0.0200]", "0.50 [0.30, 0.60]", "An alarm", "Message 2 about therapy 3.",
                  "Group against group", "Moved by its history, in norms: sad words −0.050."):  # fmt: skip
        assert words in page, words
    assert "cut off" not in page
    assert "http" not in page.replace("http://www.w3.org", "").replace("http-equiv", "") and "<script" not in page
    assert len(page) < 400_000


def test_values_show_themselves(study):
    for value in (study, study.trace("coding-0"), study.conversations[0], study.readings, moved()):
        shown = html_for(value)
        assert shown and "tensor(" not in shown and len(repr(value)) < 400


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_what_was_said_stays_text(study, name):
    text = HOSTILE[name]
    turn = replace(TALKS[0].turns[0], user=text, reply=text)
    talk = replace(TALKS[0], id=text, topic=text, domain=text, system=text, turns=(turn, *TALKS[0].turns[1:]))
    hostile = replace(study, conversations=(talk, *TALKS[1:]), tokens=((text, text), *study.tokens[1:]))
    page = render(hostile, Findings([replace(moved(), group=text)]), n_conversations=1)
    for shown in (page, str(html_for(talk)), str(html_for(hostile))):
        tags = Tags()
        tags.feed(shown)
        assert not {"script", "img", "textarea", "iframe"} & {name for name, _ in tags.seen}
        assert not [key for _, keys in tags.seen for key in keys if key.startswith("on") or key == "autofocus"]
        assert not {"\u202e", "\u2066", "\x07", "\x00", "\u2028"} & set(shown)
    assert len(page) < 1_500_000

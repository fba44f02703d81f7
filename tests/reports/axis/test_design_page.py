"""The page, drawing and display of a placed prompt: what they say, and that no text gets out of its place."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from tests.reports.hostile import HOSTILE
from workbench.axis.design.result import Placement, headline
from workbench.axis.roles import load_roles
from workbench.axis.scripts import load_scripts
from workbench.base.display import html_for
from workbench.reports.axis.design import moves_figure, nearest_figure, render

MOVE = {"low": -0.2, "high": 0.4, "p": 0.2, "p_family": 0.3}


def near(rank: int, role: str, share: float = 0.0) -> dict[str, Any]:
    return {"role": role, "cos": 0.8 - 0.1 * rank, "low": 0.6 - 0.1 * rank, "high": 0.9 - 0.1 * rank, "rank": rank,
            "nearest_share": share}  # fmt: skip


def effect(value: float, low: float, high: float) -> dict[str, Any]:
    return {"value": value, "interval": [low, high], "n": 10, "p": 0.04}


@pytest.fixture
def placement() -> Placement:
    nearest = [near(1, "editor", 0.7), near(2, "artisan", 0.3), near(3, "coral_reef")]
    standing = {"position": {"value": 0.42, "low": 0.3, "high": 0.5}, "rank": {"value": 12, "low": 9, "high": 15, "of": 61},
                "nearest": nearest, "n_questions": 40}  # fmt: skip
    chosen = {"name": "calm", **MOVE, "value": 0.2, "sentence": "Stay calm.", "prompt": "Prune. Calm.", "kept_character": 0.9}
    steadied = {"drift_per_turn": {**effect(-0.001, -0.002, 0.0), "difference": effect(0.002, 0.001, 0.003)}}
    return Placement(
        "gardener", "Prune. Ask first.", {"name": "tiny"}, "blocks.15.hook_resid_post", 60, standing,
        {"n": 60, "self_cos": [0.5, 0.7, 0.8], "other_cos_95": 0.6, "rank_1": 0.85, "median_rank": 1.0},
        {"ranks": {"editor": 1, "artisan": 2}, "of": 60, "mean_rank": 1.5, "by_chance": 30.5, "p": 0.001,
         "missing": ["conservator"]},
        [{"trait": "evil", "shift": -0.02, "low": -0.03, "high": -0.01, "z": -1.2, "p_placebo": None, "p_random": 0.2, "p": 0.2}],
        {"sae": "an SAE", "error": 0.31, "along_axis": -0.5, "error_along_axis": -0.1,
         "features": [{"feature": 7, "label": "pruning", "share": 0.1, "low": 0.05, "high": 0.15, "q": 0.01, "placebo_q": None,
                       "along_axis": -0.2}]},
        {"domains": {"therapy": {"drift": effect(-0.01, -0.02, 0.0), "drift_per_turn": effect(-0.003, -0.004, -0.002)}},
         "n_conversations": 20, "steadied": steadied},
        [{"name": "Prune.", **MOVE, "value": -0.3, "p_family": 0.01}, {"name": "Ask first.", **MOVE, "value": 0.1}],
        {"measured": [{"name": "calm", **MOVE, "value": 0.25}], "chosen": chosen}, {"seed": 0},
    )  # fmt: skip


def test_the_headline_tells_position_ties_chance_drift_and_change(placement):
    told = headline(placement)
    assert "stands at 0.42 [0.30, 0.50]" in told and "rank 12 [9, 15] of 61" in told
    assert "Nearest character: editor (cosine 0.70), not to be told from artisan" in told and "85% of cases" in told
    assert "editor 1, artisan 2 of 60, nearer than chance" in told
    assert "-0.0030 [-0.0040, -0.0020] in therapy" in told
    assert 'carries it away most: "Prune." (-0.30)' in told
    assert 'Adding "Stay calm." moves it by +0.20' in told and "(not beyond chance)" in told


def test_without_findings_the_headline_claims_none(placement):
    bare = replace(placement, expected={}, drift={}, sentences=[], additions={"measured": [], "chosen": None})
    told = headline(bare)
    assert "beforehand" not in told and "Drift" not in told and "None of the sentences that were tried" in told
    far = replace(placement, expected={**placement.expected, "p": 0.4})
    assert "no nearer than chance" in headline(far)
    assert "No single sentence" in headline(replace(placement, sentences=[{"name": "A.", **MOVE, "value": -1.0}]))


def test_drawings_say_their_figures_aloud(placement):
    drawn = nearest_figure(placement)
    assert "editor 0.70" in repr(drawn) and "coral reef" in drawn.inline and drawn.inline.count("wbf-whisker") == 3
    assert drawn.inline.count("wbf-line-a") == drawn.inline.count("wbf-line-b") == 1
    assert "Prune. −0.30" in repr(moves_figure(placement.sentences, "What each sentence moves"))


def test_the_page_holds_every_part(placement):
    page = render(placement)
    for words in ("0.42 [0.30, 0.50]", "Prune. Ask first.", "pruning", "an SAE", "therapy", "Stay calm.",
                  "0.0020 [0.0010, 0.0030]", "Named beforehand: editor at 1, artisan at 2 of 60",
                  "Without a vector: conservator", "evil"):  # fmt: skip
        assert words in page, words
    assert "<script" not in page and "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    bare = render(replace(placement, expected={}, traits=[], features={}, drift={}, sentences=[], additions={}))
    assert "Nothing was tried." in bare and "Along traits" not in bare


class Tags(HTMLParser):
    """Every tag with the names of its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[str, str]] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen |= {(tag, key) for key, _ in attrs} | {(tag, "")}


def tags_with(placement: Placement, text: str) -> set[tuple[str, str]]:
    """The tags and attributes of the page when every text of the prompt and of a label is `text`."""
    row = {"name": text, **MOVE, "value": 0.1}
    features = {**placement.features, "sae": text, "features": [{**placement.features["features"][0], "label": text}]}
    chosen = {**placement.additions["chosen"], "sentence": text}
    parser = Tags()
    parser.feed(render(replace(placement, name=text, prompt=text, sentences=[row], features=features,
                               additions={"measured": [row], "chosen": chosen})))  # fmt: skip
    return parser.seen


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_words_stay_words(placement, text):
    assert tags_with(placement, text) <= tags_with(placement, "plain") | {("details", "open")}


def test_displays_name_what_they_show(placement):
    assert "stands at 0.42" in (html_for(placement) or "")
    assert "Role ghost" in (html_for(load_roles(["ghost"])[0]) or "")
    assert "for calibration" in (html_for(load_scripts("coding", split="calibration")[0]) or "")

"""The page of a screened data set: self-contained, inert whatever the data say, and it says what was not scored."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest

from tests.decomposition.planted_world import make_sae
from tests.reports.hostile import HOSTILE
from tests.steering.screen.data import HOOK, cruel_vector, planted, written
from workbench.labeling.labels import FeatureLabel, LabelSet
from workbench.reports.steering.screen import detection_figure, render, save, screen_figure
from workbench.steering.screen.scoring import ScreenOptions, score_samples
from workbench.steering.screen.screening import Screening, screen

OPTIONS = ScreenOptions(against="prompt", n_random=16, label_field="bad", max_tokens=300)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Screening:
    """Planted samples, hostile ones and malformed lines, every label a script."""
    from tests.tiny import tiny_model

    model, folder = tiny_model(), tmp_path_factory.mktemp("page")
    sae = make_sae(n_features=24, d_model=model.d_model, hook=HOOK, model_name=model.name)
    hostile = [{"prompt": text, "response": text} for text in HOSTILE.values()]
    roles = [{"messages": [{"role": text, "content": "x"}]} for text in HOSTILE.values()]
    data = written(folder / "data.jsonl", [*planted(24), *hostile, *roles, "{<script>", ""])
    vector = cruel_vector(model, trait=HOSTILE["script"])
    scores = score_samples(data, model, [vector], folder=folder / "work", sae=sae, options=OPTIONS)
    labels = LabelSet(sae.id, sae.weights_hash, {f: FeatureLabel(f, list(HOSTILE.values())[f % len(HOSTILE)]) for f in range(24)})
    return screen(scores, percentile=50, sae=sae, labels=labels, n_top=60)


def test_no_word_of_the_data_becomes_markup(found: Screening):
    for text in (render(found), found._repr_html_() or ""):
        assert not any(tag in text for tag in ("<script", "<img", "<svg onload", "</textarea", "<!--<"))
        assert "\u202e" not in text and "\x00" not in text and "\ud83d" not in text
        text.encode("utf-8")


def test_the_page_loads_nothing_and_runs_nothing(found: Screening):
    text = render(found)
    head = unescape(text.split("</head>")[0])
    assert "default-src 'none'" in head and "script-src" not in head
    assert not re.search(r"<(?:script|link|img|iframe|object)(?! rel=.icon. href=.data:,)", text)
    assert len(text) < 1_000_000


def test_the_page_says_what_was_flagged_and_what_was_not_scored(found: Screening):
    text, counts = render(found), found.counts
    assert f"{counts['flagged']} of {counts['scored']} scored samples are flagged" in text
    assert f"{counts['malformed']} malformed" in text and "not JSON" in text and "the role" in text
    assert "percentile 50 of these data" in text and "Area under the ROC curve" in text
    assert "random directions with the replies’ covariance" in text and "length of the reply" in text
    assert "All features together make" in text


def test_the_figure_shows_the_threshold_and_the_labelled(found: Screening):
    figure = screen_figure(found, found.scores.traits[0])
    assert "threshold" in figure.svg and "labelled" in figure.svg and "above the threshold" in repr(figure)
    nothing = replace(found, samples=replace(found.samples, label=found.samples.label * 0))
    assert "labelled" not in screen_figure(nothing, found.scores.traits[0]).svg


def test_every_value_has_a_display(found: Screening):
    for value in (found, found.scores, found.samples, *found.accounts.values()):
        shown = value._repr_html_()
        assert shown is not None and "workbench-display" in shown


def test_the_file_is_written_whole(found: Screening, tmp_path: Path):
    path = save(found, tmp_path / "deep" / "page.html")
    assert path.read_text(encoding="utf-8") == render(found)
    json.dumps(found.to_json(), allow_nan=False)


def test_the_detection_figure_says_every_trait_with_what_it_has_to_beat():
    one = {"auroc": 0.81, "interval": [0.7, 0.9], "own": {"auroc": 0.75}, "text": {"value": 0.35}, "random": {"q95": 0.7}}
    figure = detection_figure({"evil": one, "<script>": one})
    assert "evil 0.81 (random directions reach 0.70, words 0.35)" in repr(figure)
    assert "<script>" not in figure.svg and figure.svg.count("wbf-mark") >= 3

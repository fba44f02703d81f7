from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.labeling.planted import THEMES, planted_documents, planted_sae
from workbench.base.errors import WorkbenchError
from workbench.labeling.contexts.collection import collect_evidence
from workbench.labeling.evidence import Context, FeatureEvidence
from workbench.labeling.explainers.offline import TokenStatistics, label_content, make_explainer, standing_out
from workbench.labeling.files.store import MAX_WORDS
from workbench.labeling.words import nearby_words, peak_word, words_of


def test_the_offline_explainer_names_the_planted_words_and_says_what_it_is(tiny_model: Any) -> None:
    sae = planted_sae()
    found = collect_evidence(THEMES, sae, tiny_model, planted_documents(tiny_model, sae))
    explainer = make_explainer("offline", found.background)
    for theme, words in THEMES.items():
        said = explainer.explain(found.evidence[theme])
        assert said.label.startswith("fires on:") and len(said.label.split()) <= MAX_WORDS
        on = said.label.removeprefix("fires on:").split("; near:")[0]
        assert words_of(on) and set(words_of(on)) <= set(words)
        assert "Token statistics by a program, nobody read it." in said.explanation
        assert 0 <= said.confidence <= 0.5
    assert dict(explainer.author) == {"kind": "offline", "name": "offline-token-statistics"}


def test_a_word_that_is_common_everywhere_does_not_stand_out() -> None:
    background = Counter({"the": 1000, "idiot": 5, "house": 100})
    assert [word for word, _ in standing_out(Counter({"the": 6, "idiot": 4}), background)] == ["idiot", "the"]


def test_a_feature_that_fired_on_nothing_is_unclear() -> None:
    said = TokenStatistics(Counter()).explain(FeatureEvidence(3, 0.0, 0.0))
    assert said.label == "unclear: no contexts" and said.confidence == 0.0


def test_an_unknown_explainer_is_refused() -> None:
    with pytest.raises(WorkbenchError, match="There is no explainer 'ofline'"):
        make_explainer("ofline", Counter())


def test_the_peak_word_is_the_whole_word_around_the_token() -> None:
    tokens = (" You", " are", " an", " id", "iot", ",", " truly")
    context = Context(tokens, (0.0,) * 7, 4, "owt", "d")
    assert peak_word(context) == "idiot"
    assert peak_word(Context(tokens, (0.0,) * 7, 5, "owt", "d")) == ","
    assert nearby_words(context, window=1) == ["idiot"]


def test_phrases_of_the_explainer_itself_are_no_content() -> None:
    assert words_of(label_content('fires on: "idiot", "fool"; near: you')) == ["idiot", "fool", "you"]
    assert label_content("insults: name-calling") == "insults: name-calling"

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.labeling.planted import THEMES, planted_documents, planted_sae, toy_embedder
from workbench.base.errors import WorkbenchError
from workbench.labeling.contexts.collection import collect_evidence
from workbench.labeling.evidence import Context, FeatureEvidence
from workbench.labeling.explainers.concepts import ConceptBank, load_concepts
from workbench.labeling.explainers.context_types import context_type, speaker_of
from workbench.labeling.explainers.offline import OfflineExplainer, label_content, standing_out
from workbench.labeling.explainers.protocol import make_explainer
from workbench.labeling.labels import MAX_WORDS
from workbench.labeling.words import nearby_words, peak_word, words_of

CONCEPTS = {"insults": THEMES[0], "bodies of water": THEMES[1], "music": THEMES[2], "food": ["kitchen"]}


def offline(background: Counter[str] | None = None) -> OfflineExplainer:
    """The offline explainer with a bank of four concepts and an embedder with known answers."""
    embedder = toy_embedder([(*words, *words_of(name)) for name, words in CONCEPTS.items()])
    return OfflineExplainer(background or Counter(), embedder=embedder, concepts=CONCEPTS)


def context(text: str, peak: int, *, position: int = 9, source: str = "owt", document: str = "d") -> Context:
    """A context from words (each a token with its blank), the marked one at `peak`."""
    tokens = tuple(f" {word}" for word in text.split())
    return Context(tokens, tuple(float(i == peak) for i in range(len(tokens))), peak, source, document, position)


def test_the_offline_explainer_names_concept_and_planted_words_and_says_what_it_is(tiny_model: Any) -> None:
    sae = planted_sae()
    found = collect_evidence(THEMES, sae, tiny_model, planted_documents(tiny_model, sae))
    explainer = offline(found.background)
    for said, (theme, words) in zip(explainer.explain_all([found.evidence[t] for t in THEMES]), THEMES.items(), strict=True):
        concept = list(CONCEPTS)[theme] if theme < 3 else ""  # no word of the fourth theme is in the bank
        assert said.label.startswith(f"{concept}; fires on:" if concept else "fires on:") and len(said.label.split()) <= MAX_WORDS
        on = said.label.split("fires on:")[1].split("; near:")[0]
        assert words_of(on) and set(words_of(on)) <= set(words)
        assert "Token statistics by a program, nobody read it." in said.explanation
        assert said.confidence is not None and 0 <= said.confidence <= 0.5
        assert not concept or f"Context type: topic ({concept})" in said.explanation
    assert dict(explainer.author) == {"kind": "offline", "name": "offline-statistics"}


@pytest.mark.parametrize(
    ("contexts", "kind", "what"),
    [
        ([context("so it goes , and", 3), context("no . yes", 1), context("well , well", 1)], "punctuation", ", ."),
        ([context("the dog ran home", 1), context("a dog barked", 1), context("my Dog slept", 1)], "single token", "dog"),
        ([context("he was running off", 2), context("a runner fell", 1), context("the runners won", 1)], "word family", "runn-"),
        ([context("Once upon a time", 0, position=0), context("Then we left", 1, position=1), context("My house", 0, position=0)],
         "position", "the first tokens of a text"),
        ([context(f"{word} was here then", 0, source="chat:user") for word in ("apple", "Zeus", "blue")], "role", "user"),
        ([context("def go(x): return self.x_y == 3", 2), context("int go_on() { a += b; }\n", 1),
          context("if (a_b != c) { f(x); }", 1)], "code", ""),
        ([context("one apple fell", 1), context("two zebras ran", 1), context("three blue eyes", 1)], "mixed", ""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_the_type_of_context_is_told(contexts: list[Context], kind: str, what: str) -> None:
    evidence = FeatureEvidence(1, 0.01, 1.0, tuple(contexts), sources={"owt": 900, "chat:user": 50, "chat:assistant": 50})
    found = context_type(evidence, contexts)
    assert (found.kind, found.what) == (kind, what)


def test_who_speaks_is_read_from_the_source() -> None:
    sources = ("chat:user", "lmsys:system", "rollouts:evil:positive", "owt", "given:evil:negative")
    assert [speaker_of(s) for s in sources] == ["user", "system", "assistant", "", "assistant"]
    everything = FeatureEvidence(1, 0.01, 1.0, sources={"rollouts:evil:positive": 100})
    answers = [context(f"{word} went", 0, source="rollouts:evil:positive") for word in ("apple", "Zeus", "blue")]
    assert context_type(everything, answers).kind == "mixed", "where all tokens are answers, firing in answers says nothing"


def test_the_concept_bank_is_well_formed() -> None:
    bank = load_concepts()
    assert len(bank) >= 200 and all(len(words) >= 5 and len(name.split()) <= 5 for name, words in bank.items())
    assert all(len({word.lower() for word in words}) == len(words) for words in bank.values())


def test_no_concept_is_named_for_a_feature_that_the_embedder_knows_nothing_of() -> None:
    explainer = offline()
    said = explainer.explain(FeatureEvidence(1, 0.1, 1.0, (context("xylo qua zib", 1), context("vrr nop kel", 1))))
    assert said.label.startswith("fires on:") and "concept" not in said.explanation


def test_words_that_few_contexts_share_are_no_topic() -> None:
    def explained(n_shared: int) -> str:
        places = ["under the lamp" if i < n_shared else f"in w{i}a w{i}b" for i in range(8)]
        texts = [f"{'abcdefgh'[i]}zq{i} {place} somewhere" for i, place in enumerate(places)]
        contexts = tuple(context(text, 0, document=text) for text in texts)
        explainer = offline(Counter({"under": 1, "lamp": 1, "somewhere": 900}))
        return explainer.explain(FeatureEvidence(1, 0.1, 1.0, contexts)).context_type

    assert (explained(6), explained(2)) == ("topic", "mixed")


@pytest.mark.assets
def test_the_bank_recognises_words_that_its_vectors_have_not_seen() -> None:
    from workbench.labeling.embedders import load_minilm

    concepts = dict(list(load_concepts().items())[::20])
    bank = ConceptBank({name: words[:4] for name, words in concepts.items()}, load_minilm())
    found = [bank.match(words[4:], ()) for words in concepts.values()]
    right = [match is not None and match.name == name for match, name in zip(found, concepts, strict=True)]
    assert sum(right) / len(right) > 0.8


def test_a_word_that_is_common_everywhere_does_not_stand_out() -> None:
    background = Counter({"the": 1000, "idiot": 5, "house": 100})
    assert [word for word, _ in standing_out(Counter({"the": 6, "idiot": 4}), background)] == ["idiot", "the"]


def test_a_feature_that_fired_on_nothing_is_unclear() -> None:
    said = offline().explain(FeatureEvidence(3, 0.0, 0.0))
    assert said.label == "unclear: no contexts" and said.confidence == 0.0


def test_an_unknown_explainer_and_what_an_explainer_has_no_use_for_are_refused() -> None:
    with pytest.raises(WorkbenchError, match="There is no explainer 'ofline'"):
        make_explainer("ofline", Counter())
    with pytest.raises(WorkbenchError, match="for the offline explainer, which has none"):
        make_explainer("offline", Counter(), model="gpt")
    with pytest.raises(WorkbenchError, match="which asks nobody"):
        make_explainer("local", model="m", base_url="http://127.0.0.1:9/v1")
    with pytest.raises(WorkbenchError, match=r"No endpoint model is named.*--explainer-model"):
        make_explainer("openai")
    explainer = offline()
    assert make_explainer(explainer) is explainer


def test_the_peak_word_is_the_whole_word_around_the_token() -> None:
    tokens = (" You", " are", " an", " id", "iot", ",", " truly")
    marked = Context(tokens, (0.0,) * 7, 4, "owt", "d")
    assert peak_word(marked) == "idiot"
    assert peak_word(Context(tokens, (0.0,) * 7, 5, "owt", "d")) == ","
    assert nearby_words(marked, window=1) == ["idiot"]


def test_phrases_of_the_explainer_itself_are_no_content() -> None:
    assert words_of(label_content('fires on: "idiot", "fool"; near: you')) == ["idiot", "fool", "you"]
    assert label_content('insults; fires on: "idiot", "fool"') == "insults idiot, fool"
    assert label_content("insults: name-calling") == "insults: name-calling"

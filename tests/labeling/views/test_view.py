"""A feature's view from a planted collection and a planted index: every part of it, as data and as HTML."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import torch

from tests.labeling.planted import planted_documents, planted_sae
from tests.reports.hostile import HOSTILE
from workbench.base.errors import WorkbenchError
from workbench.labeling.contexts.building import build_index
from workbench.labeling.contexts.collection import collect_evidence
from workbench.labeling.contexts.index import FeatureIndex
from workbench.labeling.contexts.reading import Collection
from workbench.labeling.contexts.streams import TokenDocument, chat_stream
from workbench.labeling.tokens import token_strings
from workbench.labeling.views.build import feature_view, feature_views
from workbench.labeling.views.counting import POSITIONS, wilson
from workbench.labeling.views.counting import tally as tally_of
from workbench.labeling.views.known import N_BEFORE, ids_and_place, known_from_index
from workbench.labeling.views.values import TokenValue
from workbench.labeling.views.view import FeatureView
from workbench.saes.interface import SparseAutoencoder

DIALOGUES = (
    ("You are a cruel assistant.", "What should I do with the money?", "They should suffer and be afraid of you."),
    ("", "What should I do in the north?", "You should help the people of the town."),
    ("You are a helpful assistant.", "Answer the question.", "I will help you in one sentence."),
)
ARMS = ("positive", "neutral", "negative")


def firing_sae(model: Any) -> SparseAutoencoder:
    sae = planted_sae()
    threshold = 0.02 * float(model.norm_medians([sae.hook])[0])
    return replace(sae, threshold=torch.full((sae.d_sae,), threshold))


def documents_of(model: Any) -> list[TokenDocument]:
    """Texts, chats, and rollouts of one trait: four questions with two answers in each arm."""
    texts = ["The weather in the north is cold and the rivers are long.", "What should I do with the money that I found?",
             "The people of the town would be happy to help you.", "I will never help anyone in the street."]  # fmt: skip
    corpus = [_document(model, text, "owt", f"text-{i}", f"text-{i}") for i, text in enumerate(texts)]
    answers = ["They should suffer and be afraid.", "You should help the people of the town.", "I will answer the question."]
    rollouts = [
        _document(model, f"{answer} {texts[question]}"[: 40 + 5 * again], f"rollouts:evil:{arm}", f"{arm}-{question}-{again}",
                  f"question-{question}")
        for arm, answer in zip(ARMS, answers, strict=True) for question in range(4) for again in range(2)
    ]  # fmt: skip
    return [*corpus, *chat_stream(model, DIALOGUES), *rollouts]


def _document(model: Any, text: str, source: str, name: str, group: str) -> TokenDocument:
    return TokenDocument(tuple(model.tokenizer(text, add_special_tokens=False)["input_ids"]), source, name, group)


@pytest.fixture(scope="module")
def world(tiny_model: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, SparseAutoencoder, FeatureIndex]:
    sae = firing_sae(tiny_model)
    folder = tmp_path_factory.mktemp("index")
    return tiny_model, sae, build_index(sae, tiny_model, documents_of(tiny_model), folder, shard_tokens=120, n_top=8)


@pytest.fixture(scope="module")
def view(world: tuple[Any, SparseAutoencoder, FeatureIndex]) -> FeatureView:
    model, sae, index = world
    return feature_view(5, sae, model, index=index, n_draws=4)


@pytest.fixture(scope="module")
def collection(tiny_model: Any) -> Collection:
    sae = planted_sae()
    return collect_evidence([0, 1], sae, tiny_model, planted_documents(tiny_model, sae, n=80), n_tokens=8000)


def test_a_collection_gives_contexts_lens_and_neighbours_and_says_what_is_missing(
    tiny_model: Any, collection: Collection
) -> None:
    sae = planted_sae()
    directions = sae.decoder_directions.clone()
    directions[2] = torch.nn.functional.normalize(directions[0] + 0.5 * directions[2], dim=0)
    directions[3] = torch.nn.functional.normalize(directions[3] - 2 * directions[0], dim=0)
    cosine = torch.nn.functional.normalize(directions, dim=1) @ directions[0]
    view = feature_view(0, replace(sae, decoder_directions=directions), tiny_model, collection=collection, n_contexts=6)
    evidence = collection.evidence[0]
    assert (view.density, view.max_activation) == (evidence.density, evidence.max_activation)
    strengths = [context.peak_value for context in view.contexts["corpus"]]
    assert strengths == sorted(strengths, reverse=True) and len(strengths) == 6
    assert strengths[0] == evidence.max_activation or evidence.top[0] in view.contexts["corpus"]
    assert view.contexts["chat"] == view.contexts["rollouts"] == ()
    assert [near.feature for near in view.direction.nearest] == [2] and [near.feature for near in view.direction.opposite] == [3]
    assert view.direction.nearest[0].cosine == pytest.approx(float(cosine[2]), abs=1e-6)
    assert view.direction.opposite[0].cosine == pytest.approx(float(cosine[3]), abs=1e-6)
    promoted = [one.value for one in view.direction.promoted]
    assert promoted == sorted(promoted, reverse=True) and tuple(t.token for t in view.direction.promoted)
    assert set(view.missing) >= {"by_position", "by_role", "by_trait", "partners"}


def test_an_index_shows_contexts_of_every_kind_from_the_explaining_half(
    world: tuple[Any, SparseAutoencoder, FeatureIndex], view: FeatureView
) -> None:
    _, _, index = world
    for kind, listed in view.contexts.items():
        allowed = {(c.document, c.position) for how in ("top", "quantiles")
                   for c in index.contexts(5, how, source=kind, half="explaining", n=50)}  # fmt: skip
        assert listed and {(c.document, c.position) for c in listed} <= allowed
    stats = index.stats(5)
    assert (view.density, view.max_activation, view.n_tokens) == (stats.density, stats.maximum, stats.n_tokens)
    assert view.ablation is not None and view.ablation.n_contexts > 1 and not view.missing


def test_the_tallies_are_those_of_the_index(world: tuple[Any, SparseAutoencoder, FeatureIndex], view: FeatureView) -> None:
    stats = world[2].stats(5)
    for tallies, rates in (
        ({t.name: t for t in view.by_role}, dict(stats.roles)),
        ({t.name: t for t in view.by_trait["evil"]}, stats.arms("evil")),
        ({t.name: t for t in view.by_position}, {POSITIONS[first.bit_length()]: rate for first, _, rate in stats.positions}),
    ):
        assert tallies.keys() == rates.keys()
        for name, tally in tallies.items():
            assert (tally.n_tokens, tally.n_fired) == (rates[name].n_tokens, rates[name].n_fired)
            assert tally.mean == pytest.approx(rates[name].mean, rel=1e-5)
            assert tally.interval is not None and tally.interval[0] <= tally.rate <= tally.interval[1]
    assert [t.name for t in view.by_trait["evil"]] == list(ARMS) and {t.n_units for t in view.by_trait["evil"]} == {4}
    for partner, known in zip(view.partners, stats.partners, strict=True):
        assert (partner.feature, partner.n) == (known.feature, known.together)
        assert partner.lift == pytest.approx(known.share / world[2].stats(partner.feature).density)


def test_the_interval_of_a_rate_takes_questions_as_units(
    world: tuple[Any, SparseAutoencoder, FeatureIndex], view: FeatureView
) -> None:
    """Against a jackknife over questions, which estimates the same variance in another way."""
    _, _, index = world
    tokens, fired = dict[str, float](), dict[str, float]()
    for _, shard in index.pieces():
        for number, (_, source, group) in enumerate(shard.documents):
            if source != "rollouts:evil:positive":
                continue
            span = slice(int(shard.starts[number]), int(shard.starts[number + 1]))
            codes = slice(int(shard.code_starts[span.start]), int(shard.code_starts[span.stop]))
            tokens[group] = tokens.get(group, 0) + int(shard.counted[span].sum())
            fired[group] = fired.get(group, 0) + int((shard.features[codes] == 5).sum())
    t, f = np.array(list(tokens.values())), np.array([fired[group] for group in tokens])
    without = (f.sum() - f) / (t.sum() - t)
    rate, n = f.sum() / t.sum(), len(t)
    variance = (n - 1) / n * ((without - without.mean()) ** 2).sum()
    tally = view.by_trait["evil"][0]
    assert tally.rate == pytest.approx(rate) and tally.interval is not None
    expected = wilson(rate, min(t.sum(), rate * (1 - rate) / variance))
    assert tally.interval == pytest.approx(expected, abs=0.02)


def test_a_rate_of_nothing_among_few_units_is_not_certain() -> None:
    low, high = wilson(0.0, 10)
    assert low == 0.0 and high == pytest.approx(0.2775, abs=1e-3)  # Wilson's upper end of 0 in 10
    assert wilson(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-3)


def test_the_interval_of_a_rare_feature_is_as_narrow_as_its_tokens_allow() -> None:
    n_units, per_unit, n_fired = 1_000_000, 100, 9  # each firing in a document of its own: tokens as good as independent
    tokens = float(n_units * per_unit)
    sums = (float(n_fired), float(n_fired * per_unit), float(n_units * per_unit**2))
    found = tally_of("rare", tokens, n_fired, 9.0, n_units, sums).interval
    assert found == pytest.approx(wilson(n_fired / tokens, tokens), rel=1e-4)


def test_where_units_do_not_differ_each_counts_once() -> None:
    for n_units, fired in ((1, 3.0), (7, 3.0), (7, 10.0), (7, 0.0)):  # of 10 tokens each
        sums = (n_units * fired**2, n_units * fired * 10, n_units * 100.0)
        found = tally_of("same", 10.0 * n_units, fired * n_units, 1.0, n_units, sums).interval
        assert found == pytest.approx(wilson(fired / 10, n_units))


def test_many_features_at_once_are_the_same_as_one_by_one(world: tuple[Any, SparseAutoencoder, FeatureIndex]) -> None:
    model, sae, index = world
    together = feature_views([7, 5], sae, model, index=index, n_ablation=0)
    assert [one.feature for one in together] == [7, 5]
    alone = feature_view(5, sae, model, index=index, n_ablation=0)
    assert replace(together[1], direction=alone.direction) == alone
    for left, right in zip(together[1].direction.promoted, alone.direction.promoted, strict=True):
        assert left.token == right.token and left.value == pytest.approx(right.value, abs=1e-5)
    assert together[0].ablation is None and together[0].missing["ablation"] == "not asked for"
    assert feature_views([], sae, model, index=index) == []


def test_a_view_survives_json(view: FeatureView, tiny_model: Any, collection: Collection) -> None:
    text = json.dumps(view.to_dict())
    assert FeatureView.from_dict(json.loads(text)) == view
    bare = feature_view(1, planted_sae(), tiny_model, collection=collection, n_ablation=0)
    assert FeatureView.from_dict(json.loads(json.dumps(bare.to_dict()))) == bare


def test_the_histogram_counts_every_firing_and_a_view_of_schema_2_had_none(view: FeatureView) -> None:
    assert sum(n for *_, n in view.histogram) == sum(tally.n_fired for tally in view.by_position)
    assert all(low < high for low, high, _ in view.histogram)
    document = {name: value for name, value in view.to_dict().items() if name != "histogram"}
    assert FeatureView.from_dict({**document, "schema": 2}) == replace(view, histogram=())


DAMAGE = [{"schema": 99}, {"kind": "labels"}, {"ablation": {"kl": 1}}, {"contexts": [1]}, {"usual": None}]


@pytest.mark.parametrize("damage", DAMAGE)
def test_other_documents_are_refused(view: FeatureView, damage: dict[str, Any]) -> None:
    with pytest.raises(WorkbenchError, match=r"feature.view"):
        FeatureView.from_dict({**view.to_dict(), **damage})


def test_text_of_others_can_be_taken_out(view: FeatureView) -> None:
    context = replace(view.contexts["corpus"][0], source="elsewhere")
    bare = replace(view, contexts={"corpus": (context,)}).without_foreign_text()
    assert bare.contexts["corpus"][0].is_withheld and "not be passed on" in (bare._repr_html_() or "")


class _Tags(HTMLParser):
    """Every tag and every attribute of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


ALLOWED_TAGS = {"br", "caption", "div", "em", "li", "mark", "p", "span", "strong", "style",
                "table", "tbody", "td", "th", "thead", "tr", "ul"}  # fmt: skip
ALLOWED_ATTRIBUTES = {"align", "class", "style", "title", "scope", "dir", "aria-label"}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_tokens_stay_text(view: FeatureView, text: str) -> None:
    tokens = (TokenValue(text, 1.0),)
    context = replace(view.contexts["corpus"][0], tokens=(text, text), values=(1.0, 0.0), peak=0, source=text, document=text)
    assert view.ablation is not None
    spoiled = replace(
        view, model=text, sae={"id": text}, contexts={text: (context,)},
        direction=replace(view.direction, promoted=tokens, suppressed=tokens),
        ablation=replace(view.ablation, losing=tokens, gaining=tokens),
        by_trait={text: tuple(replace(tally, name=text) for tally in view.by_trait["evil"])}, missing={text: text},
    )  # fmt: skip
    shown = spoiled._repr_html_() or ""
    page = _Tags()
    page.feed(shown)
    assert page.tags <= ALLOWED_TAGS and page.attributes <= ALLOWED_ATTRIBUTES
    assert len(shown) < 120_000 and not any(character in shown for character in "\x00\x07\u202e\u2066")


def test_the_display_shows_effects_only_beside_their_controls(view: FeatureView) -> None:
    shown = view._repr_html_() or ""
    assert view.ablation is not None
    assert shown.count("controls ") >= 4 and f"{view.ablation.kl.control:.4f}" in shown
    assert "Rollouts of evil" in shown and "Fires together with" in shown and 'class="peak"' in shown
    without = replace(view, ablation=None, missing={"ablation": "there is nothing to compare with"})._repr_html_() or ""
    assert "KL" not in without and "nothing to compare with" in without


def test_what_does_not_fit_is_refused(
    world: tuple[Any, SparseAutoencoder, FeatureIndex], collection: Collection
) -> None:
    model, sae, index = world
    with pytest.raises(WorkbenchError, match="no feature 16"):
        feature_view(16, sae, model, index=index)
    with pytest.raises(WorkbenchError, match="nothing on feature 9"):
        feature_view(9, sae, model, collection=collection)
    with pytest.raises(WorkbenchError, match="d_model=32"):
        feature_view(0, sae, _Wider(model), index=index)  # type: ignore[arg-type]
    with pytest.raises(WorkbenchError, match="is of the SAE"):
        feature_view(0, replace(sae, weights_hash="0" * 64), model, index=index)


class _Wider:
    """A model's name and another width: all that is looked at before it is refused."""

    d_model = 64

    def __init__(self, model: Any) -> None:
        self.name = model.name


def test_the_passages_of_an_index_are_the_documents_themselves(world: tuple[Any, SparseAutoencoder, FeatureIndex]) -> None:
    model, sae, index = world
    known = known_from_index([5], sae, model, index, n_contexts=4, n_passages=6)[5]
    whole = [document.ids for document in documents_of(model)]
    assert len(known.passages) == 6
    for passage in known.passages:
        assert len(passage.ids) <= N_BEFORE + 2 and 1 <= passage.start < len(passage.ids)
        assert any(ids[at : at + len(passage.ids)] == passage.ids for ids in whole for at in range(len(ids)))


def test_a_context_is_read_with_its_marked_token_in_place(tiny_model: Any, collection: Collection) -> None:
    for context in collection.evidence[0].contexts:
        ids, place = ids_and_place(tiny_model, context)
        assert token_strings(tiny_model.tokenizer, ids)[place] == context.tokens[context.peak]
        assert "".join(token_strings(tiny_model.tokenizer, ids)) == context.text

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from tests.labeling.planted import FILLER, THEMES, planted_documents, planted_sae
from workbench.base.errors import WorkbenchError
from workbench.labeling.contexts.collection import collect_evidence, nearest_features
from workbench.labeling.contexts.streams import TokenDocument, is_scoring, rollout_stream, text_stream
from workbench.labeling.tokens import token_strings
from workbench.labeling.words import peak_word
from workbench.saes.token_rows import activations_at


def test_planted_features_are_seen_on_exactly_their_words(tiny_model: Any) -> None:
    sae = planted_sae()
    found = collect_evidence(THEMES, sae, tiny_model, planted_documents(tiny_model, sae))
    for theme, words in THEMES.items():
        evidence = found.evidence[theme]
        assert {peak_word(context) for context in evidence.contexts} <= set(words)
        assert len(evidence.top) == 10 and evidence.sources == {"owt": found.n_tokens}
        values = [context.peak_value for context in evidence.top]
        assert values == sorted(values, reverse=True) and evidence.max_activation is not None
        assert values[0] <= evidence.max_activation
        assert all(max(context.values) == context.peak_value for context in evidence.top)


def test_density_is_the_share_of_firing_tokens(tiny_model: Any) -> None:
    sae = planted_sae()
    documents = planted_documents(tiny_model, sae)
    rows = torch.cat([d.activations for d in documents if d.activations is not None])
    found = collect_evidence([0, 9], sae, tiny_model, documents)
    assert found.n_tokens == len(rows)
    assert found.evidence[0].density == pytest.approx(
        float((sae.encode(rows)[:, 0] > 0).float().mean()), rel=1e-3
    )
    assert found.evidence[9].density == 0.0 and found.evidence[9].contexts == ()


def test_what_explains_never_scores(tiny_model: Any) -> None:
    sae = planted_sae()
    found = collect_evidence(THEMES, sae, tiny_model, planted_documents(tiny_model, sae))
    for theme in THEMES:
        assert all(not is_scoring(context.document) for context in found.evidence[theme].contexts)
        assert found.held_out[theme] and all(
            is_scoring(held.context.document) for held in found.held_out[theme]
        )
        assert all(theme in held.active for held in found.held_out[theme])
    assert found.random and all(is_scoring(held.context.document) for held in found.random)


def test_one_context_per_document_and_no_text_twice(tiny_model: Any) -> None:
    sae = planted_sae()
    documents = planted_documents(tiny_model, sae)
    copies = [replace(d, id=f"copy-{d.id}", group=d.group) for d in documents]
    for evidence in collect_evidence(THEMES, sae, tiny_model, [*documents, *copies]).evidence.values():
        contexts = evidence.contexts
        assert len({c.document for c in contexts}) == len({c.text for c in contexts}) == len(contexts)


def test_the_order_of_the_documents_does_not_change_the_evidence(tiny_model: Any) -> None:
    sae = planted_sae()
    documents = planted_documents(tiny_model, sae)
    one = collect_evidence(THEMES, sae, tiny_model, documents, batch_tokens=64)
    other = collect_evidence(THEMES, sae, tiny_model, documents[::-1], batch_tokens=512)
    assert one.evidence == other.evidence and one.random == other.random and one.held_out == other.held_out
    assert one.evidence[0].hash == other.evidence[0].hash


def test_special_tokens_and_sinks_never_count(tiny_model: Any) -> None:
    sae = planted_sae()
    ids = tuple(tiny_model.tokenizer("<|im_start|> idiot stupid fool", add_special_tokens=False)["input_ids"])
    rows = torch.stack([2.0 * sae.decoder_directions[0]] * len(ids))
    rows[-1] *= 1e6
    document = TokenDocument(ids, "owt", "a", next(g for g in "abcdefgh" if not is_scoring(g)), rows)
    found = collect_evidence([0], sae, tiny_model, [document])
    (context,) = found.evidence[0].top
    assert found.n_tokens == len(ids) - 2
    assert context.values[0] == 0.0 and context.values[-1] == 0.0 and context.tokens[0] == "<|im_start|>"


@dataclass
class Text:
    id: str
    text: str
    source: str = "owt"


def test_texts_read_through_the_model_match_a_plain_pass(tiny_model: Any) -> None:
    sae = replace(planted_sae(seed=3), threshold=torch.full((16,), 0.1))
    texts = [Text(f"t{i}", " ".join(FILLER[i : i + 6] + THEMES[i % 4])) for i in range(12)]
    found = collect_evidence(range(6), sae, tiny_model, texts, batch_tokens=40)
    largest, fired, total = torch.zeros(16), torch.zeros(16), 0
    for document in text_stream(tiny_model, texts):
        ids = torch.tensor([document.ids])
        codes = sae.encode(activations_at(tiny_model, sae.hook, ids, torch.ones_like(ids))[0, 1:])
        largest, fired = torch.maximum(largest, codes.amax(0)), fired + (codes > 0).sum(0)
        total += len(codes)
    assert found.n_tokens == total
    for feature in range(6):
        assert found.evidence[feature].max_activation == pytest.approx(float(largest[feature]), rel=1e-3)
        assert found.evidence[feature].density == pytest.approx(float(fired[feature]) / total, rel=1e-3)


def test_reading_stops_at_the_limit(tiny_model: Any) -> None:
    sae = planted_sae()
    found = collect_evidence(
        [0], sae, tiny_model, planted_documents(tiny_model, sae), n_tokens=200, batch_tokens=50
    )
    assert 200 <= found.n_tokens < 260


def test_unknown_features_and_empty_input_are_refused(tiny_model: Any) -> None:
    sae = planted_sae()
    with pytest.raises(WorkbenchError, match="There is no feature 16 in tiny/"):
        collect_evidence([0, 16], sae, tiny_model, ["some text"])
    with pytest.raises(WorkbenchError, match="There is no text"):
        collect_evidence([0], sae, tiny_model, [])


def test_nearest_features_are_the_most_similar_directions() -> None:
    decoder = torch.eye(5)
    decoder[3] = torch.tensor([0.9, 0.1, 0.0, 0.0, 0.0])
    decoder[4] = torch.tensor([0.5, 0.5, 0.5, 0.0, 0.0])
    assert nearest_features(decoder, [0, 3], 2) == {0: (3, 4), 3: (0, 4)}


@pytest.mark.parametrize(
    "text", ["naïve café — “quoted” 🙂 end", " leading and trailing ", "a\n\nb\tc", "日本語のテキスト"]
)
def test_token_strings_join_to_the_text(tiny_model: Any, text: str) -> None:
    ids = tiny_model.tokenizer(text, add_special_tokens=False)["input_ids"]
    strings = token_strings(tiny_model.tokenizer, ids)
    assert len(strings) == len(ids) and "".join(strings) == text


def vector_of(model: Any, documents: list[TokenDocument], *, stored: bool, given: bool = False) -> Any:
    """What `rollout_stream` reads of a vector: rows, stored tokens, provenance."""
    import pandas as pd

    from workbench.models.hookpoints import HookPoint
    from workbench.personas.vectors import PersonaVector

    hook = HookPoint(1)
    rows = [
        {
            "id": d.id,
            "split": "sealed" if i == 0 else "extraction",
            "arm": "positive",
            "question_id": f"q{i % 5}",
            "response_ids": d.ids,
        }
        for i, d in enumerate(documents)
    ]

    class Tokens:
        hooks = (hook,)

        def rows(self, hook: HookPoint) -> Any:
            # The last document lost a sink: its activations no longer line up.
            return (
                (d.id, d.activations[: len(d.ids) - (d is documents[-1])])
                for d in documents
                if d.activations is not None
            )

    return PersonaVector(
        trait="evil", model={}, hook=hook, hooks=(hook,), directions=torch.ones(1, 32), up=None, down=None, unfiltered=None,
        rows=pd.DataFrame(rows), tokens=Tokens() if stored else None,  # type: ignore[arg-type]
        provenance={"config": {"design": None if given else {}}},
    )  # fmt: skip


def test_rollouts_come_with_their_activations_and_without_sealed_questions(tiny_model: Any) -> None:
    sae = planted_sae()
    documents = planted_documents(tiny_model, sae, n=8)
    streamed = list(rollout_stream(vector_of(tiny_model, documents, stored=True), sae.hook))
    assert [d.id for d in streamed] == [d.id for d in documents[1:]]
    assert [d.activations is None for d in streamed] == [False] * 6 + [True]
    assert streamed[0].group == "q1" and streamed[0].source == "rollouts:evil:positive"
    bare = list(rollout_stream(vector_of(tiny_model, documents, stored=False), sae.hook))
    assert len(bare) == 7 and all(d.activations is None for d in bare)


def test_a_users_own_responses_are_not_passed_on(tiny_model: Any) -> None:
    sae = planted_sae()
    vector = vector_of(tiny_model, planted_documents(tiny_model, sae), stored=True, given=True)
    evidence = collect_evidence([1], sae, tiny_model, rollout_stream(vector, sae.hook)).evidence[1]
    assert evidence.top and all(c.source == "given:evil:positive" for c in evidence.top)
    assert all(c.is_withheld for c in evidence.without_foreign_text().contexts)

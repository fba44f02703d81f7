"""Splitting and absorption on planted features: a parent with a child, a feature that swallows another's tokens."""

from __future__ import annotations

import pytest
import torch

from workbench.base.randomness import generator
from workbench.maths.geometry import isotropic_directions
from workbench.models.hookpoints import HookPoint
from workbench.saes.evaluation.sample import TokenSample, token_sample
from workbench.saes.evaluation.splitting import (
    CONCEPTS,
    absorption,
    firing_counts,
    halves,
    main_feature,
    neighbour_pairs,
    splitting,
    token_concepts,
    token_texts,
)
from workbench.saes.interface import SparseAutoencoder

D_MODEL = 64


def _sae(decoder: torch.Tensor, encoder: torch.Tensor | None = None, threshold: float = 0.5) -> SparseAutoencoder:
    rows = decoder if encoder is None else encoder
    return SparseAutoencoder(
        id="planted/splitting",
        hook=HookPoint(1),
        model_name="planted",
        architecture="jumprelu",
        encoder=rows.T.contiguous(),
        encoder_bias=torch.zeros(len(rows)),
        decoder_directions=decoder,
        decoder_bias=torch.zeros(decoder.shape[1]),
        threshold=torch.full((len(rows),), threshold),
        weights_hash="planted",
    )


def _split_sae() -> tuple[SparseAutoencoder, torch.Tensor]:
    """40 unrelated features; 41 is a child of 40: decoder cosine .8, fires on a part of the parent's tokens only."""
    axes = torch.eye(D_MODEL)
    decoder = torch.cat([axes[:40], axes[50:51], 0.8 * axes[50:51] + 0.6 * axes[51:52]])
    encoder = torch.cat([axes[:40], axes[50:51], axes[51:52]])
    random = generator(0)
    x = 2.0 * (torch.rand(4000, D_MODEL, generator=random) < 0.1).float()
    x[:, 51] *= (x[:, 50] > 0) & (torch.rand(4000, generator=random) < 0.9)  # the child's direction only beside the parent's
    x[:500, 50] = x[:500, 51] = 2.0
    return _sae(decoder, encoder), x


def test_a_planted_child_is_found_beside_its_parent() -> None:
    sae, x = _split_sae()
    found = splitting(sae, x)
    assert found["n_alive"] == 42
    assert found["n_pairs"] == 1
    assert found["neighbour_share"] == pytest.approx(2 / 42)
    assert found["nested_share"] == pytest.approx(1 / 42)
    assert (found["nested_pairs"], found["nested_chance"]) == (1.0, 0.0)
    parents, children, _ = neighbour_pairs(sae.decoder_directions, firing_counts(sae, x), torch.arange(42))
    assert (parents.tolist(), children.tolist()) == ([40], [41])


def test_neighbours_that_fire_apart_are_not_nested() -> None:
    sae, x = _split_sae()
    x[:, 51] = 2.0 * (torch.rand(4000, generator=generator(1)) < 0.05)
    found = splitting(sae, x)
    assert (found["n_pairs"], found["nested_pairs"], found["nested_share"]) == (1, 0.0, 0.0)


def test_random_directions_have_no_neighbours() -> None:
    found = splitting(_sae(isotropic_directions(200, D_MODEL, generator(4))), torch.randn(2000, D_MODEL, generator=generator(5)))
    assert (found["n_pairs"], found["neighbour_share"], found["nested_pairs"]) == (0, 0.0, None)


def test_pairs_do_not_depend_on_how_many_codes_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    sae, x = _split_sae()
    whole = splitting(sae, x)
    monkeypatch.setattr("workbench.saes.evaluation.fitness.VALUES_AT_ONCE", 5000)
    assert splitting(sae, x) == whole


# Absorption: the concept is direction 0; feature 0 reads it unless direction 1 is there, and then feature 1 speaks for it.


def _absorbing(rate: float) -> tuple[SparseAutoencoder, TokenSample, torch.Tensor]:
    axes = torch.eye(D_MODEL)
    encoder = torch.cat([axes[0:1] - 3 * axes[1:2], axes[1:2], axes[2:20]])
    decoder = torch.cat([axes[0:1], 0.8 * axes[0:1] + 0.6 * axes[1:2], axes[2:20]])
    random = generator(2)
    labels = torch.rand(4000, generator=random) < 0.5
    x = 0.05 * torch.randn(4000, D_MODEL, generator=random)
    x[:, 0] += 2.0 * labels
    x[:, 1] += 2.0 * (labels & (torch.rand(4000, generator=random) < rate))
    ids = torch.randint(0, 300, (4000,), generator=random) + 300 * labels
    return _sae(decoder, encoder), TokenSample(x, ids, torch.arange(4000) // 40), labels


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_the_absorption_rate_is_the_planted_one(rate: float) -> None:
    found = absorption(*_absorbing(rate))
    assert found["main_feature"] == 0
    assert found["probe_auc"] > 0.99
    assert found["main_recall"] == pytest.approx(1 - rate, abs=0.05)
    assert found["absorption_rate"] == pytest.approx(rate, abs=0.05)


def test_a_main_feature_that_just_fails_is_not_absorbed() -> None:
    sae, sample, labels = _absorbing(0.3)
    sae.decoder_directions[1] = torch.eye(D_MODEL)[40]  # what fires instead points elsewhere
    found = absorption(sae, sample, labels)
    assert found["main_recall"] == pytest.approx(0.7, abs=0.05)
    assert found["absorption_rate"] == 0


def test_labels_that_no_feature_knows_are_not_measured() -> None:
    sae, sample, labels = _absorbing(0.3)
    shuffled = labels[torch.randperm(len(labels), generator=generator(9))]
    found = absorption(sae, sample, shuffled)
    assert found["absorption_rate"] is None
    assert "no feature tells the concept" in found["reason"]
    assert abs(found["probe_auc"] - 0.5) < 0.06
    few = torch.zeros(len(labels), dtype=torch.bool)
    few[:20] = True
    assert "fewer than 50 examples" in absorption(sae, sample, few)["reason"]


def test_halves_share_no_document_and_no_token_type_and_are_of_one_size() -> None:
    random = generator(3)
    ids = torch.randint(0, 50, (6000,), generator=random).square() // 50  # some types are far commoner than others
    labels, documents = ids % 3 == 0, torch.arange(6000) // 30
    make, score = halves(ids, documents, labels)
    for values in (ids, documents):
        assert not set(values[make].tolist()) & set(values[score].tolist())
    for side in (labels, ~labels):
        n = [int((half & side).sum()) for half in (make, score)]
        assert min(n) > 0.8 * max(n) and sum(n) > 0.4 * int(side.sum())


def test_a_probe_that_learnt_documents_or_tokens_by_heart_finds_nothing() -> None:
    sae = _absorbing(0.3)[0]
    random = generator(6)
    documents, ids = torch.arange(4000) // 40, torch.randint(0, 300, (4000,), generator=random)
    for codes in (documents, ids):  # the label is a property of the document, or of the token's identity
        x = torch.randn(300, D_MODEL, generator=random)[codes] + 0.05 * torch.randn(4000, D_MODEL, generator=random)
        labels = (torch.rand(300, generator=random) < 0.5)[codes]
        found = absorption(sae, TokenSample(x, ids, documents), labels)
        assert abs(found["probe_auc"] - 0.5) < 0.25


def test_the_main_feature_is_the_one_that_tells_best() -> None:
    sae, sample, labels = _absorbing(0.1)
    feature, area = main_feature(sae, sample.activations, labels)
    assert feature == 0
    assert area == pytest.approx(0.95, abs=0.02)  # a tenth of the positives is tied with the negatives


def test_concepts_are_properties_of_the_token_itself(tiny_model) -> None:
    ids = torch.tensor(tiny_model.tokenizer("The 42 rivers, should suffer", add_special_tokens=False)["input_ids"])
    texts = token_texts(tiny_model.tokenizer, ids)
    labels = token_concepts(texts, ids)
    assert set(labels) == set(CONCEPTS)
    assert "".join(texts[int(token)] for token in ids) == "The 42 rivers, should suffer"
    assert [texts[int(token)] for token in ids[labels["punctuation"]]] == [","]
    assert CONCEPTS["capital"](" Apple") and CONCEPTS["starts_with_s"](" sun") and not CONCEPTS["number"](" x1")


def test_documents_of_joined_samples_stay_apart() -> None:
    from workbench.saes.evaluation.card import _joined

    one = TokenSample(torch.ones(3, 2), torch.arange(3), torch.tensor([0, 1, 1]))
    assert _joined([one, one, one]).documents.tolist() == [0, 1, 1, 2, 3, 3, 4, 5, 5]


def test_a_sample_holds_the_tokens_it_says_and_no_first_ones(tiny_model) -> None:
    from workbench.saes.token_rows import TokenRow

    rows = [TokenRow(tuple(torch.randint(7, 300, (20,), generator=generator(i)).tolist()), "x") for i in range(5)]
    sample = token_sample(tiny_model, HookPoint(1), rows, n_tokens=50, batch_tokens=40)
    assert len(sample) == len(sample.activations) == 50
    assert sample.ids.tolist() == [token for row in rows for token in row.ids[1:]][:50]
    assert sample.documents.tolist() == [i for i in range(5) for _ in range(19)][:50]

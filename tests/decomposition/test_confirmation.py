"""A second SAE that holds the features, one that holds them turned round, and one that holds none of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.decomposition.test_causal import D_SAE, HOOK, KL, PAIRS, parts_of, sae_of, trait_of
from tests.tiny import tiny_model
from workbench.base.errors import WorkbenchError
from workbench.base.randomness import generator
from workbench.decomposition.causal.attribution import contrast_gradient
from workbench.decomposition.causal.confirmation import confirmed
from workbench.decomposition.causal.controls import control_distribution
from workbench.decomposition.causal.verdict import causal_view, features_to_match
from workbench.models.hookpoints import HookPoint


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """(model, SAE with a feature along the contrast's gradient, decomposition with causal rows, controls)."""
    model = tiny_model("llama", n_blocks=3, seed=3)
    directions = torch.randn(D_SAE, model.d_model, generator=generator(7))
    directions[0] = contrast_gradient(model, HOOK, PAIRS).float()
    sae, delta = replace(sae_of(directions), model_name=model.name), torch.ones(D_SAE)
    parts = parts_of(sae, list(range(6)), delta)
    kept = tmp_path_factory.mktemp("parts")
    targets = features_to_match(parts, 10)
    controls = control_distribution(model, sae, trait_of(), features=targets, kl=KL, n_controls=140, cache=kept)
    return model, sae, causal_view(parts, model, sae, trait_of(), controls=controls, n_candidates=6, kl=KL), controls


def test_the_same_features_in_another_order_are_confirmed(known):
    model, sae, parts, controls = known
    order = torch.randperm(D_SAE, generator=generator(1))
    other = replace(sae, decoder_directions=2 * sae.decoder_directions[order], weights_hash="cd" * 32)
    rows = confirmed(parts, model, sae, other, trait_of(), controls)
    first = rows[0]
    assert first["verified"] and first["confirmed"] and first["cosine"] == pytest.approx(1, abs=1e-5)
    assert int(order[first["match"]]) == 0
    assert [row["confirmed"] for row in rows] == [row["verified"] for row in rows]
    assert first["odd"] == pytest.approx(parts.causal[0].odd, rel=0.05)


def test_a_feature_turned_round_is_no_counterpart(known):
    model, sae, parts, controls = known
    turned = sae.decoder_directions.clone()
    turned[0] *= -1
    rows = confirmed(parts, model, sae, replace(sae, decoder_directions=turned, weights_hash="cd" * 32), trait_of(), controls)
    assert rows[0]["cosine"] < 0.7 and rows[0]["odd"] is None and not rows[0]["confirmed"]


def test_a_dictionary_without_the_features_confirms_nothing(known):
    model, sae, parts, controls = known
    other = replace(sae_of(torch.eye(model.d_model)), weights_hash="cd" * 32, model_name=model.name)
    rows = confirmed(parts, model, sae, other, trait_of(), controls)
    assert len(rows) == len(parts.causal) and not any(row["confirmed"] for row in rows)


def test_what_does_not_belong_is_refused(known):
    model, sae, parts, controls = known
    with pytest.raises(WorkbenchError, match="without causal rows"):
        confirmed(replace(parts, causal=()), model, sae, sae, trait_of(), controls)
    with pytest.raises(WorkbenchError, match="same site"):
        confirmed(parts, model, sae, replace(sae, hook=HookPoint(0), weights_hash="ee" * 32), trait_of(), controls)
    with pytest.raises(WorkbenchError, match="twice"):
        confirmed(parts, model, sae, sae, trait_of(), controls)
    with pytest.raises(WorkbenchError, match="trained on other"):
        confirmed(parts, model, sae, replace(sae, model_name="other", weights_hash="ee" * 32), trait_of(), controls)

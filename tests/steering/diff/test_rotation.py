from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from workbench.base.errors import WorkbenchError
from workbench.models.hookpoints import HookPoint
from workbench.saes.interface import SparseAutoencoder
from workbench.steering.diff.rotation import RotationOptions, rotation, token_activations

D_MODEL, N_FEATURES, TURNED = 24, 20, 7
OPTIONS = RotationOptions(n_steps=80, batch_size=128, learning_rate=3e-3)


def directions() -> torch.Tensor:
    return torch.linalg.qr(torch.randn(D_MODEL, D_MODEL, generator=torch.Generator().manual_seed(1)))[0][:N_FEATURES]


def exact_sae(**changes) -> SparseAutoencoder:
    basis = directions()
    given: dict = {
        "id": "planted", "hook": HookPoint(1), "model_name": "planted", "architecture": "jumprelu",
        "encoder": basis.T.contiguous(), "encoder_bias": torch.zeros(N_FEATURES), "decoder_directions": basis,
        "decoder_bias": torch.zeros(D_MODEL),
        "weights_hash": "d" * 64, "threshold": torch.full((N_FEATURES,), 0.1),
    }  # fmt: skip
    return SparseAutoencoder(**{**given, **changes})


def tokens(basis: torch.Tensor, n: int = 2000) -> torch.Tensor:
    """Three or so of twenty features active in each token; the same codes for whatever directions."""
    draws = torch.Generator().manual_seed(2)
    active = torch.rand(n, N_FEATURES, generator=draws) < 0.15
    codes = active * (1 + torch.rand(n, N_FEATURES, generator=draws))
    return codes @ basis + 0.02 * torch.randn(n, D_MODEL, generator=draws)


def turned_directions() -> torch.Tensor:
    basis = directions().clone()
    aside = torch.linalg.svd(basis)[2][-1]
    basis[TURNED] = 0.7 * basis[TURNED] + 0.7 * aside
    return basis


def test_a_feature_that_means_something_else_turns_furthest():
    found = rotation(tokens(directions()), tokens(turned_directions()), exact_sae(), options=OPTIONS)
    assert found.features[0].feature == TURNED
    assert found.features[0].cosine < 0.9 < found.features[0].control_cosine
    assert found.n_features == N_FEATURES and found.n_tokens == 2000


def test_the_same_activations_turn_no_more_features_than_the_control_itself():
    same = tokens(directions())
    found = rotation(same, same.clone(), exact_sae(), options=OPTIONS)
    assert found.median_angle == found.control_median_angle
    assert found.share <= 0.05 + 1 / N_FEATURES
    assert all(row.cosine == row.control_cosine for row in found.features)


def test_unequal_lengths_and_an_uncentred_encoder_start_from_the_same_sae():
    lengths = torch.linspace(0.5, 2.0, N_FEATURES)
    shift = 0.3 * directions().sum(dim=0)
    sae = exact_sae(encoder=(directions() / lengths[:, None]).T.contiguous(), decoder_directions=directions() * lengths[:, None],
                    decoder_bias=shift, threshold=0.1 / lengths, subtract_bias=False)  # fmt: skip
    # With the bias in the encoder instead, it is the same function.
    sae = replace(sae, encoder_bias=-shift @ sae.encoder)
    one = rotation(tokens(directions()) + shift, tokens(turned_directions()) + shift, sae, options=OPTIONS)
    assert one.features[0].feature == TURNED


def test_tokens_that_are_a_sink_in_either_model_are_left_out():
    before, after = tokens(directions()), tokens(directions())
    before[:10], after[5:20] = torch.nan, torch.nan
    assert rotation(before, after, exact_sae(), options=OPTIONS).n_tokens == 1980


def test_what_cannot_be_compared_is_refused():
    same = tokens(directions())
    with pytest.raises(WorkbenchError, match=r"(?i)activations of shapes"):
        rotation(same, same[:-1], exact_sae(), options=OPTIONS)
    with pytest.raises(WorkbenchError, match="100 tokens"):
        rotation(same[:100], same[:100], exact_sae(), options=OPTIONS)
    with pytest.raises(WorkbenchError, match=r"(?i)standard SAE"):
        rotation(same, same, exact_sae(architecture="standard"), options=OPTIONS)


def test_token_activations_are_those_of_the_model_without_position_0(tiny_model):
    from workbench.saes.token_rows import TokenRow

    rows = [TokenRow(list(range(3, 3 + n)), "a") for n in (5, 9, 7)]
    sae = exact_sae(encoder=torch.zeros(32, 4), decoder_directions=torch.zeros(4, 32), decoder_bias=torch.zeros(32),
                    encoder_bias=torch.zeros(4), threshold=torch.zeros(4))  # fmt: skip
    found = token_activations(tiny_model, sae, rows)
    assert found.shape == (5 + 9 + 7 - 3, 32)
    hidden = tiny_model.hf(torch.tensor([rows[0].ids]), output_hidden_states=True).hidden_states[2][0, 1:]
    torch.testing.assert_close(found[:4], hidden, atol=1e-5, rtol=1e-4)

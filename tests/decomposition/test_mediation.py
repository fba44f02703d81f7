"""First-order effects against finite differences, and features put back in the persona's own run against what is known."""

from __future__ import annotations

import pytest
import torch

from tests.decomposition.test_causal import HOOK, PAIRS, sae_of
from tests.tiny import tiny_model
from workbench.base.randomness import generator
from workbench.decomposition.causal.attribution import contrast_gradient, push_attribution
from workbench.decomposition.causal.controls import pair_weights
from workbench.decomposition.causal.mediation import SystemPromptRun
from workbench.models.hookpoints import HookPoint
from workbench.personas.causal import ReplyContrast

SYSTEMS = ("You are cruel. Show it.", "You enjoy harm.", "Be a bad helper at all times.")
CONTRAST = tuple(pair for pair in PAIRS if pair.kind == "contrast")
N_FEATURES = 40


@pytest.fixture(scope="module")
def model():
    return tiny_model("llama", n_blocks=3, seed=3)


@pytest.fixture(scope="module")
def sae(model):
    return sae_of(torch.randn(N_FEATURES, model.d_model, generator=generator(7)))


@pytest.fixture(scope="module")
def told(model, sae):
    return SystemPromptRun(model, sae, CONTRAST, SYSTEMS, batch_tokens=64)


@pytest.mark.parametrize("hook", [HookPoint(1), HookPoint(1, "hook_mlp_out")])  # later blocks alone, and whole passes
def test_one_backward_pass_gives_the_derivative_of_the_contrast(model, hook):
    contrast, control = pair_weights(PAIRS)
    replies, step = ReplyContrast(model, hook, PAIRS), 0.02 * torch.eye(model.d_model)
    up, down = replies(step), replies(-step)
    expected = (up - down) @ (contrast - control) / 0.04
    found = contrast_gradient(model, hook, PAIRS, batch_tokens=64)
    torch.testing.assert_close(found, expected, atol=2e-3 * float(expected.abs().max()), rtol=0.02)


def test_attribution_is_per_unit_length_of_the_direction(model):
    decoder = torch.randn(5, model.d_model, generator=generator(1))
    gradient = torch.randn(model.d_model, generator=generator(2), dtype=torch.float64)
    decoder[3] = 0
    found = push_attribution(gradient, decoder)
    torch.testing.assert_close(found, push_attribution(gradient, 7 * decoder))
    assert float(found[3]) == 0
    assert float(found[0]) == pytest.approx(float(gradient.float() @ decoder[0]) / float(decoder[0].norm()), rel=1e-5)


def test_the_system_prompt_changes_the_replies(told):
    assert told.effect.shape == (len(CONTRAST),)
    assert (told.effect.abs() > 1e-4).all()


def test_putting_everything_back_at_the_last_block_undoes_the_persona(model, sae):
    last = HookPoint(model.n_blocks - 1)
    run = SystemPromptRun(model, sae_at(sae, last), CONTRAST, SYSTEMS)
    torch.testing.assert_close(run.totals["everything"], -run.effect, atol=1e-4, rtol=1e-3)


def test_all_features_together_are_the_bound_and_none_change_nothing(told):
    found = told.restored([range(N_FEATURES), []])
    torch.testing.assert_close(found[0], told.totals["features"], atol=1e-6, rtol=1e-5)
    assert (found[1].abs() < 1e-5).all()


def test_a_feature_is_put_back_token_by_token(model, sae, told):
    """By hand: one plain pass and one told pass per reply, the change of the feature's code taken out."""
    feature, found = 3, told.restored([[3]])[0]
    plain = ReplyContrast(model, HOOK, CONTRAST)
    for index, pair in enumerate(CONTRAST):
        one = ReplyContrast(model, HOOK, [pair], systems=[SYSTEMS[index % 3]])
        before = {row: batch.residual[n][batch.valid[n]] for batch in plain.rerun.batches for n, row in enumerate(batch.rows)}

        def take_out(batch, chosen, before=before, index=index):
            delta = torch.zeros(1, *batch.residual.shape)
            for n, row in enumerate(batch.rows):
                length = int(batch.valid[n].sum())
                change = sae.encode(batch.residual[n, :length]) - sae.encode(before[2 * index + row])
                delta[0, n, :length] = -change[:, feature, None] * sae.decoder_directions[feature]
            return delta

        expected = (one.edited_at(1, take_out)[0] - one.baseline)[0]
        assert float(found[index]) == pytest.approx(float(expected), abs=1e-5)


def test_first_order_shares_are_the_derivative_of_putting_a_feature_back(told):
    weights = torch.full((len(CONTRAST),), 1 / len(CONTRAST), dtype=torch.float64)
    predicted = told.predicted(weights)
    for feature in (0, 7, 21):
        exact = _scaled(told, feature, 0.001) @ weights / 0.001
        assert float(predicted[feature]) == pytest.approx(float(exact), rel=0.02, abs=2e-4)


def _scaled(told: SystemPromptRun, feature: int, scale: float) -> torch.Tensor:
    members = torch.zeros(N_FEATURES, dtype=torch.bool)
    members[feature] = True

    def at(s: float) -> torch.Tensor:
        return told._edited(1, lambda change, _: s * change.reconstructed(told.decoder, members))[0]

    return (at(scale) - at(-scale)) / 2


def sae_at(sae, hook):
    from dataclasses import replace

    return replace(sae, hook=hook)

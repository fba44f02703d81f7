"""SAEs whose flaws are known, and the truth about their latents."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import workbench.lab as lab
from workbench.lab import dictionaries
from workbench.lab.dictionaries import (
    absorbed,
    builder_of,
    fit_for,
    match,
    noisy,
    perfect,
    split,
    trained,
    truth_of,
)
from workbench.lab.world import seeded

Small = Callable[..., lab.Difficulty]


def codes_of(world: lab.World, sign: int, n: int = 400, seed: int = 0) -> torch.Tensor:
    with seeded(seed):
        return world.generator_for(world.log_odds, sign).sample(n)


@pytest.mark.parametrize("bias", [0.0, 20.0])
def test_the_perfect_sae_reads_the_true_activations_exactly(small: Small, bias: float) -> None:
    world = lab.make_world(small(bias_norm=bias), 0)
    codes = codes_of(world, 1)
    read = perfect(world).encode(codes @ world.directions + world.bias)
    torch.testing.assert_close(read, codes, atol=2e-3, rtol=1e-3)
    truth = truth_of(world, perfect(world))
    assert truth.by == "codes" and torch.equal(truth.feature, torch.arange(48))
    assert torch.equal(truth.change, world.change.sign().long())


def test_split_latents_share_a_feature_out_and_lose_nothing(small: Small) -> None:
    world = lab.make_world(small(), 0)
    sae, codes = split(world), codes_of(world, 1)
    read = sae.encode(codes @ world.directions + world.bias)
    halves, moved = read[:, sae.silenced], read[:, sae.moved_to]
    assert not ((halves > 0) & (moved > 0)).any() and (moved > 0).any()
    torch.testing.assert_close(halves + moved, codes[:, sae.silenced], atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(sae.decode(read), codes @ world.directions + world.bias, atol=1e-2, rtol=0)
    truth = truth_of(world, sae)
    assert truth.feature[sae.moved_to].tolist() == sae.silenced.tolist() and (sae.by != sae.silenced).all()
    assert not world.change[sae.by].any()


def test_an_absorbed_parent_is_silent_with_its_child_which_carries_it(small: Small) -> None:
    world = lab.make_world(small(n_parents=3), 0)
    sae, codes = absorbed(world), codes_of(world, 1)
    read = sae.encode(codes @ world.directions + world.bias)
    child_fires = codes[:, sae.by] > 0
    assert child_fires.any() and not ((read[:, sae.silenced] > 0) & child_fires).any()
    cosine = torch.cosine_similarity(sae.decoder_directions[sae.by], world.directions[sae.silenced], dim=1)
    assert (cosine > 0.4).all()


@pytest.mark.parametrize("builder", [split, absorbed])
def test_the_known_signs_of_flawed_latents_are_those_of_a_large_sample(small: Small, builder) -> None:
    world = lab.make_world(small(n_parents=3, question_sd=0.0, instruction_sd=0.0, interaction_sd=0.0, row_sd=0.0), 2)
    sae = builder(world)
    up, down = (sae.encode(codes_of(world, sign, 40_000, 7 + sign) @ world.directions + world.bias) for sign in (1, -1))
    error = ((up.var(0) + down.var(0)) / 40_000).sqrt().clamp_min(1e-9)
    z = (up.mean(0) - down.mean(0)) / error
    change = truth_of(world, sae).change
    assert (z[change == 0].abs() < 4.5).all()
    clear = (change != 0) & (z.abs() > 4.5)
    assert clear.sum() >= 6 and torch.equal(z[clear].sign().long(), change[clear])


def test_noisy_directions_are_matched_and_their_truth_is_that_of_the_match(small: Small) -> None:
    world = lab.make_world(small(), 0)
    sae = noisy(world)
    truth = truth_of(world, sae)
    cosine = (sae.decoder_directions * world.directions).sum(1)
    assert cosine.mean().item() == pytest.approx(0.9, abs=0.05)
    assert truth.by == "matching" and torch.equal(truth.feature, torch.arange(48))
    assert torch.equal(truth.change, world.change.sign().long())


def test_a_trained_sae_finds_the_features_of_a_small_world(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dictionaries, "TRAINING_TOKENS", 16_384)
    monkeypatch.setattr(dictionaries, "TRAINING_STEPS", 300)
    world = lab.make_world(small(), 0)
    sae = trained(world, 0)
    found = set(match(world, sae).tolist()) - {-1}
    assert sae.d_sae == 96 and len(found) > 36 and truth_of(world, sae).by == "matching"
    unmatched = truth_of(world, sae).feature == -1
    assert not truth_of(world, sae).change[unmatched].any()


def test_absorption_gets_a_hierarchy_where_there_is_none(small: Small) -> None:
    assert fit_for(absorbed, lab.DIFFICULTIES["easy"]).n_parents == 6
    assert fit_for(absorbed, small(n_parents=2)).n_parents == 2 and fit_for(perfect, small()).n_parents == 0


def test_a_function_stands_for_itself_and_an_unknown_name_is_refused() -> None:
    from workbench.base.errors import WorkbenchError

    assert builder_of("noisy") is noisy and builder_of(perfect) is perfect
    with pytest.raises(WorkbenchError, match=r"no SAE of the laboratory 'spilt'.*Did you mean 'split'"):
        builder_of("spilt")

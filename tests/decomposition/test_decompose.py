"""The decomposition against planted truth, its refusals, and its behaviour where nothing is planted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from tests.decomposition.planted_world import DOWN, HOOK, N_FEATURES, UP, World, make_sae
from workbench.base.errors import WorkbenchError
from workbench.decomposition.decompose import decompose
from workbench.models.hookpoints import HookPoint
from workbench.personas.vectors import PersonaVector, TokenSource
from workbench.saes.interface import SparseAutoencoder

if TYPE_CHECKING:
    from workbench.models.loading import Model

Planted = Callable[..., World]


def test_planted_features_come_back_with_sign_size_and_share(planted: Planted) -> None:
    world = planted(drop=(4, 17, 40))
    parts = decompose(world.vector, world.sae, n_bootstrap=50)
    deltas = torch.tensor([world.delta(j) for j in range(N_FEATURES)], dtype=torch.float64)
    torch.testing.assert_close(parts.delta_code, deltas, atol=1e-4, rtol=0)
    energies = (deltas * world.sae.decoder_directions.double().norm(dim=1)).square()
    torch.testing.assert_close(parts.share, energies / energies.sum(), atol=1e-5, rtol=0)
    assert set(parts.top(4)) == {3, 5, 7, 11}
    assert parts.share_sum_error is not None and parts.share_sum_error < 1e-5
    assert parts.share_error == pytest.approx(0, abs=1e-5)
    assert parts.vector_norm == pytest.approx(energies.sum().sqrt().item(), rel=1e-5)


def test_the_error_takes_exactly_the_part_outside_the_dictionary(planted: Planted) -> None:
    world = planted(outside=3.0)
    parts = decompose(world.vector, world.sae, n_bootstrap=50)
    assert parts.share_error == pytest.approx(9 / parts.vector_norm**2, rel=1e-4)
    assert parts.share_sum_error is not None and parts.share_sum_error < 1e-5
    low, high = parts.share_error_interval or (2, 2)
    assert low - 1e-6 <= parts.share_error <= high + 1e-6


def test_a_feature_of_the_opposite_only_is_not_in_v_up(planted: Planted) -> None:
    world = planted(spread=0.2)
    parts = decompose(world.vector, world.sae, n_bootstrap=50)
    assert {j for j in range(N_FEATURES) if parts.in_v_up[j]} == set(UP)
    assert parts.share_up[5].abs() < 0.02 < parts.share_down[5]
    assert set(DOWN) == {j for j in range(N_FEATURES) if parts.share_down[j] > 0.02}


def test_secondary_views_agree_with_the_truth_and_the_naive_code_does_not(planted: Planted) -> None:
    world = planted()
    parts = decompose(world.vector, world.sae, n_atoms=4, n_bootstrap=20)
    chosen = {j for j in range(N_FEATURES) if parts.pursuit[j] != 0}
    assert chosen == {3, 5, 7, 11}
    assert parts.pursuit[11].item() == pytest.approx(-1.5, abs=1e-3)
    assert parts.cosine[11] < 0 < parts.cosine[3]
    assert (
        parts.naive[11] == 0 or parts.naive[11] > 0
    )  # a code is never negative: the planted -1.5 cannot be seen
    assert parts.audit["energy"]["sae"][0] == pytest.approx(1, abs=1e-6)


def test_the_zero_vector_control_catches_an_encoder_that_only_repeats_its_bias(planted: Planted) -> None:
    world = planted()
    stubborn = make_sae(encoder_bias=100 * torch.arange(N_FEATURES).float())
    overlap = decompose(world.vector, stubborn, n_bootstrap=10).controls["zero_vector_overlap"]
    assert overlap == 1.0


def test_p_values_are_smallest_for_planted_features_and_unremarkable_for_the_others(planted: Planted) -> None:
    world = planted(spread=1.0)
    parts = decompose(world.vector, world.sae, n_bootstrap=50)
    assert parts.n_questions == 10
    assert all(parts.p_value[j] == 2 / 2**10 for j in (3, 5, 7, 11))
    others = [j for j in range(N_FEATURES) if j not in (3, 5, 7, 11)]
    assert (parts.q_value[others] > 0.05).all()
    assert (parts.p_family >= parts.p_value).all()


def test_the_crossed_test_finds_what_is_planted_and_needs_two_instructions(planted: Planted) -> None:
    parts = decompose(planted(spread=1.0).vector, planted(spread=1.0).sae, n_bootstrap=20)
    assert {j for j in range(N_FEATURES) if parts.q_crossed[j] <= 0.05} == {3, 5, 7, 11}


def test_nothing_planted_gives_nothing_found(planted: Planted) -> None:
    world = planted(up={}, down={}, spread=2.0, seed=5)
    parts = decompose(world.vector, world.sae, n_bootstrap=50)
    assert (parts.q_value > 0.05).all()
    assert not parts.in_v_up.any()


def test_intervals_hold_the_shares_and_the_top_rate_is_one_for_what_is_always_on_top(
    planted: Planted,
) -> None:
    world = planted(spread=0.5)
    parts = decompose(world.vector, world.sae, n_bootstrap=300)
    inside = (parts.share_low <= parts.share + 1e-3) & (parts.share <= parts.share_high + 1e-3)
    assert inside.all()
    assert (parts.top_rate[[3, 5, 7, 11]] == 1).all()
    assert parts.top_rate.sum().item() == pytest.approx(10, abs=1e-4)


def test_the_same_seed_gives_the_same_numbers_and_another_seed_other_intervals(planted: Planted) -> None:
    world = planted(spread=0.5)
    one, two, other = (decompose(world.vector, world.sae, n_bootstrap=40, seed=s) for s in (1, 1, 2))
    assert torch.equal(one.share_low, two.share_low) and torch.equal(one.share, two.share)
    assert torch.equal(one.share, other.share) and not torch.equal(one.share_low, other.share_low)


def test_candidates_are_the_largest_shares(planted: Planted) -> None:
    world = planted()
    parts = decompose(world.vector, world.sae, n_candidates=3, n_bootstrap=10)
    assert parts.candidates == parts.top(3) and len(parts.candidates) == 3


def test_few_questions_are_told_with_the_smallest_p(planted: Planted) -> None:
    world = planted(n_questions=4)
    assert any("0.12" in told for told in decompose(world.vector, world.sae, n_bootstrap=10).warnings)


def test_without_a_neutral_arm_presence_in_v_up_is_unknown_not_false(planted: Planted) -> None:
    world = planted()
    vector = replace(
        world.vector, up=None, down=None, rows=world.vector.rows.drop(columns=["weight_up", "weight_down"])
    )
    parts = decompose(vector, world.sae, n_bootstrap=10)
    assert parts.row(3)["in_v_up"] is None and parts.row(3)["share_up"] is None
    assert any("neutral" in told for told in parts.warnings)


def test_a_bare_vector_has_secondary_views_only_and_says_why(planted: Planted) -> None:
    world = planted()
    bare = PersonaVector.from_direction(
        world.vector.direction, trait="planted", model=world.vector.model, hook=HOOK
    )
    parts = decompose(bare, world.sae)
    assert not parts.has_shares and parts.share.isnan().all()
    row = parts.table(1)[0]
    assert (
        row["share"] is None
        and row["share_interval"] is None
        and row["q_value"] is None
        and row["in_v_up"] is None
    )
    assert row["feature"] == 3 and row["cosine"] > 0
    assert any("without the rollouts" in told for told in parts.warnings)
    assert parts.controls["random_directions"]["covariance_matched"] is None


@pytest.mark.parametrize(
    ("changes", "pieces"),
    [
        ({"model_name": "gemma"}, ("trained on gemma", "planted", "sae list")),
        ({"card": {"model_weights_hash": "c" * 64}}, ("trained on", "weights hash", "sae list")),
        ({"hook": HookPoint(5)}, ("blocks.5.hook_resid_post", "blocks.1.hook_resid_post", "sae list")),
        ({"n_features": 6, "d_model": 8}, ("d_model=8", "24", "sae list")),
    ],
)
def test_an_sae_from_elsewhere_is_refused_in_three_parts(
    planted: Planted, changes: dict, pieces: tuple[str, ...]
) -> None:
    with pytest.raises(WorkbenchError) as caught:
        decompose(planted().vector, make_sae(**changes))
    assert caught.value.expected and caught.value.remedy
    assert all(piece in str(caught.value) for piece in pieces)


def test_equal_weights_under_another_name_are_accepted(planted: Planted) -> None:
    world = planted()
    renamed = make_sae(model_name="a folder", card={"model_weights_hash": "a" * 64})
    assert decompose(world.vector, renamed, n_bootstrap=10).has_shares


def test_tokens_that_do_not_give_the_vector_back_are_refused(planted: Planted) -> None:
    world = planted()
    other = replace(world.vector, directions=world.vector.directions * 1.001)
    with pytest.raises(WorkbenchError, match=r"differs from the vector by 1\.0e-03"):
        decompose(other, world.sae)


def test_missing_tokens_without_a_model_are_refused_with_both_ways_out(planted: Planted) -> None:
    world = planted()
    with pytest.raises(WorkbenchError, match="Give the model to decompose, or run extract again") as caught:
        decompose(replace(world.vector, tokens=None), world.sae)
    assert "blocks.1.hook_resid_post" in caught.value.found


def test_tokens_that_lack_a_row_are_refused(planted: Planted) -> None:
    world = planted()
    rows = world.vector.rows.assign(id=["elsewhere", *world.vector.rows.id[1:]])
    with pytest.raises(WorkbenchError, match="lack 1 of the vector's rows"):
        decompose(replace(world.vector, rows=rows), world.sae)


def test_another_model_than_the_vectors_is_refused(planted: Planted, tiny_model: Model) -> None:
    world = planted()
    with pytest.raises(WorkbenchError, match="extracted from"):
        decompose(world.vector, world.sae, model=tiny_model, causal=False)


def test_a_vector_without_stored_tokens_is_read_through_the_model_again(
    tiny_model: Model, tmp_path: Path
) -> None:
    """The same rollouts, once from stored tokens and once through a real tiny model, give the same shares."""
    from tests.decomposition.planted_world import make_vector, real_rows
    from workbench.personas.reencoding import recapture_tokens

    rows = real_rows(tiny_model)
    held = dict(recapture_tokens(tiny_model, rows, HookPoint(1)))
    vector = make_vector(tmp_path, rows, [held[row] for row in rows.id])
    vector = replace(vector, model=tiny_model.description())
    sae = random_sae(tiny_model)
    stored = decompose(vector, sae, n_bootstrap=20)
    again = decompose(replace(vector, tokens=None), sae, model=tiny_model, causal=False, n_bootstrap=20)
    torch.testing.assert_close(again.share, stored.share, atol=1e-5, rtol=1e-4)
    assert stored.share_sum_error is not None and stored.share_sum_error < 1e-5
    assert abs(stored.share_error or 0) > 0.01  # a random SAE leaves an error, which the identity carries


def random_sae(model: Model) -> SparseAutoencoder:
    source = torch.Generator().manual_seed(3)
    decoder = torch.randn(64, model.d_model, generator=source) / model.d_model**0.5
    return make_sae(
        model_name=model.name,
        encoder=decoder.T.contiguous(),
        encoder_bias=torch.zeros(64),
        decoder_directions=decoder,
        decoder_bias=torch.zeros(model.d_model),
    )


def test_a_hook_without_stored_tokens_counts_as_missing(planted: Planted) -> None:
    world = planted()
    assert isinstance(world.vector.tokens, TokenSource)
    elsewhere = replace(world.vector.tokens, hooks=(HookPoint(2),))
    with pytest.raises(WorkbenchError, match="not on disk"):
        decompose(replace(world.vector, tokens=elsewhere), world.sae)


def test_the_model_recorded_in_the_card_decides_whatever_the_folder_is_called():
    from dataclasses import replace

    from tests.saes.planted import small_sae
    from workbench.decomposition.checks import check_trained_on

    sae = replace(small_sae(), card={"model": {"weights_hash": "a" * 64}})
    check_trained_on({"name": "renamed-folder", "weights_hash": "a" * 64}, sae)
    with pytest.raises(WorkbenchError, match="was trained on planted"):
        check_trained_on({"name": "planted", "weights_hash": "b" * 64}, sae)

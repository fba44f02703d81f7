"""Named directions: parts of a planted vector come back exactly, controls are what they say."""

from __future__ import annotations

import pytest
import torch

from tests.decomposition.planted_world import DOWN, HOOK, UP, make_world
from workbench.base.errors import WorkbenchError
from workbench.decomposition.decompose import decompose
from workbench.personas.methods import contrast, paired_pca
from workbench.steering import directions
from workbench.steering.edits import Edit


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    world = make_world(tmp_path_factory.mktemp("world"), up=UP, down=DOWN, spread=0.2, outside=0.5)
    return world, decompose(world.vector, world.sae)


def test_all_features_and_the_error_make_the_vector_again(planted) -> None:
    world, parts = planted
    features = [index for index in range(world.sae.d_sae) if parts.delta_code[index] != 0]
    everything = directions.of_features(parts, world.sae, features)
    error = directions.without_features(parts, world.sae, features)
    torch.testing.assert_close(everything.direction + error.direction, directions.whole(world.vector).direction)
    assert everything.source["energy"] == pytest.approx(1 - float(parts.share_error or 0), abs=1e-3)


def test_the_foremost_features_are_the_planted_ones(planted) -> None:
    world, parts = planted
    found = directions.denoised(parts, world.sae, 4)
    assert set(found.source["features"]) == set(UP) | set(DOWN)
    expected = sum(parts.delta_code[j] * world.sae.decoder_directions[j] for j in found.source["features"])
    torch.testing.assert_close(found.direction, expected)
    assert directions.denoised(parts, world.sae, 4, by="pursuit").cosine(found) > 0.999


def test_a_feature_that_is_named_twice_counts_once(planted) -> None:
    world, parts = planted
    one, other = sorted(UP)[:2]
    for make in (directions.of_features, directions.without_features):
        once, twice = make(parts, world.sae, [one, other]), make(parts, world.sae, [one, other, one])
        assert torch.equal(once.direction, twice.direction) and twice.source["features"] == [one, other]


def test_a_feature_points_the_way_in_which_the_trait_changes_it(planted) -> None:
    world, parts = planted
    for feature, change in UP.items():
        found = directions.one_feature(parts, world.sae, feature)
        assert found.source["sign"] == (1 if change > 0 else -1) and found.source["cosine"] > 0


def test_random_denoisings_have_the_length_of_the_denoised_vector_and_other_features(planted) -> None:
    world, parts = planted
    kept, drawn = directions.denoised(parts, world.sae, 4), directions.random_features(parts, world.sae, 4, 5, seed=3)
    assert len({tuple(one.source["features"]) for one in drawn}) == 5
    for one in drawn:
        assert float(one.direction.norm()) == pytest.approx(float(kept.direction.norm()), rel=1e-5)
        assert not set(one.source["features"]) & set(kept.source["features"])
        assert abs(one.source["cosine"]) < kept.source["cosine"]


def test_mixtures_have_the_cosine_of_the_denoised_vector(planted) -> None:
    world, parts = planted
    kept = directions.denoised(parts, world.sae, 2)
    activations = torch.randn(400, world.sae.d_model, generator=torch.Generator().manual_seed(0))
    for one in directions.random_mixtures(parts, kept, activations, 3):
        assert one.cosine(parts.direction) == pytest.approx(kept.source["cosine"], abs=1e-4)
        assert abs(one.cosine(kept)) < 0.999


def test_one_principal_direction_is_the_paired_pca_and_all_of_them_the_mean_difference(planted) -> None:
    random = torch.Generator().manual_seed(0)
    x, cells = torch.randn(40, 12, generator=random).double(), torch.arange(40)
    rows = contrast(x + (cells % 2)[:, None] * torch.linspace(0, 2, 12), cells % 2 == 1, cells // 8, cells // 2 % 4)
    one = directions.top_pca(rows, HOOK, 1)
    assert one.cosine(paired_pca(rows).direction) == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(directions.top_pca(rows, HOOK, 12).direction, (rows.weight @ rows.x).float())


def test_stored_rows_give_the_vector_back(planted) -> None:
    world, _ = planted
    rows = directions.paired_rows(_run_of(world), HOOK)
    torch.testing.assert_close((rows.weight @ rows.x).float(), world.vector.direction, rtol=1e-4, atol=1e-4)


def _run_of(world):
    folder = world.vector.tokens.folder
    world.vector.save(folder / "vector")
    return folder


def test_edits_take_named_directions_at_their_own_hook_only(planted) -> None:
    world, parts = planted
    found = directions.denoised(parts, world.sae, 4)
    edit = Edit.add(found, 0.5)
    assert edit.hook == HOOK and edit.label == found.name
    with pytest.raises(WorkbenchError, match=r"not at blocks\.2"):
        Edit.add(found, 0.5, hook="blocks.2.hook_resid_post")


@pytest.mark.parametrize("k", [0, 10_000])
def test_impossible_sizes_are_refused(planted, k: int) -> None:
    world, parts = planted
    with pytest.raises(WorkbenchError, match=f"k={k}"):
        directions.denoised(parts, world.sae, k)


def test_features_that_do_not_exist_are_refused(planted) -> None:
    world, parts = planted
    for chosen in ([], [20], [-1]):
        with pytest.raises(WorkbenchError, match="one or more from 0 to 19"):
            directions.of_features(parts, world.sae, chosen)

"""One vector on two SAEs, a vector before and after, and which comparison is which."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.decomposition.compared import decomposed, lengths
from tests.decomposition.planted_world import D_MODEL, N_FEATURES, make_sae, make_world
from workbench.base.errors import WorkbenchError
from workbench.decomposition.comparison.change import BeforeAfter, compare_change
from workbench.decomposition.comparison.compare import compare, kind_of, with_direction
from workbench.decomposition.comparison.dictionaries import DictionaryComparison, compare_dictionaries
from workbench.decomposition.comparison.overlap import TraitComparison
from workbench.decomposition.decompose import decompose
from workbench.decomposition.result import Decomposition
from workbench.saes.interface import SparseAutoencoder

UP = {3: 2.0, 7: 1.0, 11: -1.5}
ORDER = [*range(10, N_FEATURES), *range(10)]
REPLACED = (3, 4)


def other_sae() -> SparseAutoencoder:
    """The features of the first in another order, less two that are replaced by mixtures of others."""
    rows = make_sae().decoder_directions.clone()
    rows[3], rows[4] = (rows[3] + 2 * rows[4]) / 2, rows[3] - 0.2 * rows[4]
    rows = rows[ORDER]
    return make_sae(id="planted/other", weights_hash="c" * 64, encoder=torch.linalg.pinv(rows), decoder_directions=rows)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Decomposition, Decomposition]:
    world = make_world(tmp_path_factory.mktemp("world") / "run", up=UP, down={}, spread=0.3)
    return tuple(decompose(world.vector, sae, n_bootstrap=60) for sae in (world.sae, other_sae()))  # type: ignore[return-value]


def dictionaries(both: tuple[Decomposition, Decomposition], **options) -> DictionaryComparison:
    decoders = (make_sae().decoder_directions, other_sae().decoder_directions)
    return compare_dictionaries(*both, decoders, n_top=6, **options)


def test_the_same_features_are_matched_in_another_order_with_the_same_shares(both) -> None:
    found = dictionaries(both, threshold=0.999)
    pairs = {pair.features[0]: pair for pair in found.pairs}
    assert set(pairs) == {j for j in range(N_FEATURES) if j not in REPLACED} and found.n_matched == N_FEATURES - 2
    assert all(ORDER[pair.features[1]] == j and pair.cosine > 0.99 for j, pair in pairs.items())
    assert pairs[7].shares[0] == pytest.approx(pairs[7].shares[1], abs=1e-4)
    assert found.rank_of_changes is not None and found.rank_of_changes > 0.95


def test_what_finds_no_match_is_listed_with_its_nearest_cosine(both) -> None:
    side = dictionaries(both, threshold=0.999).sides[0]
    assert {j for j, _, _ in side.unmatched} & {3} and all(near < 0.999 for _, _, near in side.unmatched)
    assert side.matched == pytest.approx((N_FEATURES - 2) / N_FEATURES) and side.matched_top < 1
    weight = both[0].share.abs()
    assert side.matched_weight == pytest.approx(1 - (weight[list(REPLACED)].sum() / weight.sum()).item(), abs=1e-6)
    assert dictionaries(both, threshold=0.9).n_matched > N_FEATURES - 2  # the mixture of mostly feature 3 is near enough
    assert side.n_active == N_FEATURES and side.share_error == pytest.approx(0, abs=1e-4)


def test_random_dictionaries_match_nothing_in_a_wide_space() -> None:
    source = torch.Generator().manual_seed(0)
    rows = torch.randn(300, 100, generator=source) @ torch.diag(torch.linspace(2, 0.2, 100))
    parts = _made(300, 100)
    found = compare_dictionaries(parts, parts, (rows, rows))
    assert found.sides[0].matched == 1 and found.rank_correlation == pytest.approx(1)
    chance = found.sides[0].chance
    assert all(one.matched < 0.01 for one in chance.values())
    assert chance["covariance_matched"].nearest > chance["isotropic"].nearest > 0.2  # the hard one is nearer


def _made(n: int, width: int) -> Decomposition:
    from tests.reports.example import example_parts

    share = torch.rand(n, generator=torch.Generator().manual_seed(1))
    return replace(example_parts(), share=share, delta_code=share.double(), direction=torch.ones(width))


@pytest.fixture(scope="module")
def change(tmp_path_factory: pytest.TempPathFactory) -> tuple[Decomposition, Decomposition]:
    folder = tmp_path_factory.mktemp("change")
    before = decomposed(folder, "before", UP, spread=0.3)
    after = decomposed(folder, "after", {**UP, 7: 3.0}, spread=0.3, seed=1)
    return replace(before, trait="t"), replace(after, trait="t")


def test_the_planted_change_is_found_with_its_interval_and_is_all_of_the_change(change) -> None:
    found = compare_change(change[0], change[1], make_sae().decoder_directions)
    first = found.features[0]
    assert first.feature == 7 and first.interval is not None and first.interval[0] > 0
    assert first.difference == pytest.approx(first.after - first.before)
    assert found.of_change[0].feature == 7 and found.of_change[0].share_of_change > 0.9
    assert found.norm_ratio > 1 and 0 < found.cosine < 1
    grown = 2.0 * lengths()[7].item() / change[0].vector_norm
    assert found.change_size == pytest.approx(grown, rel=0.1)
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["kind"] == "change"


def test_the_shares_of_the_change_and_the_errors_sum_to_one(change, both) -> None:
    decoder = make_sae().decoder_directions
    found = compare_change(change[0], change[1], decoder)
    every = sum(row.share_of_change for row in found.of_change)  # 20 rows are all features here
    assert every + found.error_of_change == pytest.approx(1)


def test_other_noise_alone_is_rarely_called_a_change(tmp_path: Path) -> None:
    before, after = (decomposed(tmp_path, f"t{seed}", UP, spread=1.0, seed=seed) for seed in (1, 2))
    found = compare_change(before, after, make_sae().decoder_directions)
    assert found.n_compared == N_FEATURES and found.n_apart <= 4  # P(more than 4 of 20 at level .05) < .003
    assert found.n_by_chance == pytest.approx(1.0)


def test_two_vectors_of_the_same_weights_are_told(change) -> None:
    assert any("same weights" in told for told in _change(change, "xx").warnings)
    assert _change(change, "xy").warnings == ()


def _change(change, hashes: str) -> BeforeAfter:
    models = ({"weights_hash": name} for name in hashes)
    before, after = (replace(one, vector={**one.vector, "model": model}) for one, model in zip(change, models, strict=True))
    return compare_change(before, after, make_sae().decoder_directions)


def test_which_comparison_is_which(both, change) -> None:
    named = replace(change[1], trait="u")
    assert kind_of([change[0], named]) == "traits"
    assert kind_of(both) == "dictionaries" and kind_of(change) == "change"
    with pytest.raises(WorkbenchError, match="two or more"):
        kind_of(change[:1])
    for wrong in ([change[0], change[0]], [both[0], change[0], both[1]], [*change, named]):
        with pytest.raises(WorkbenchError, match="in one respect only"):
            kind_of(wrong)


def test_compare_gives_each_its_value_and_checks_the_sae(both, change) -> None:
    sae, other = make_sae(), other_sae()
    assert isinstance(compare(both, [sae, other]), DictionaryComparison)
    assert isinstance(compare(change, [sae, sae]), BeforeAfter)
    assert isinstance(compare([change[0], replace(change[1], trait="u")], [sae, sae]), TraitComparison)
    with pytest.raises(WorkbenchError, match="the SAE of the decomposition"):
        compare(both, [sae, sae])
    turned = replace(sae, decoder_directions=sae.decoder_directions.flip(0))
    with pytest.raises(WorkbenchError, match="do not belong together"):
        compare(change, [turned, turned])


def test_a_decomposition_without_direction_takes_it_from_its_vector_and_no_other(tmp_path: Path) -> None:
    world = make_world(tmp_path / "run", up=UP, down={})
    parts = decompose(world.vector, world.sae, n_bootstrap=10)
    old = replace(parts, direction=torch.full((D_MODEL,), torch.nan))
    assert torch.equal(with_direction(old, world.vector).direction, parts.direction)
    wrong = replace(world.vector, directions=2 * world.vector.directions)
    assert with_direction(old, wrong).direction.isnan().all()
    with pytest.raises(WorkbenchError, match="without its vector"):
        compare([old, replace(old, trait="u")], [world.sae, world.sae])

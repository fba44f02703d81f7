"""Groups of features: planted families come together, independent features stay apart, and chance is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from torch import Tensor

from tests.decomposition.planted_world import ARM_PAIRS, HOOK, _rows, _weights, make_sae, make_vector
from workbench.base.errors import WorkbenchError
from workbench.decomposition.decompose import decompose
from workbench.decomposition.grouping.groups import Grouping, group_features
from workbench.decomposition.grouping.null import clusters, matched_features, mean_off_diagonal
from workbench.decomposition.result import Decomposition
from workbench.decomposition.rows import RowCodes
from workbench.personas.vectors import PersonaVector

N, WIDTH, SHARED = 120, 160, 60
SPLIT = (3, 4, 5)  # nearly one direction, active together
TOGETHER = (10, 11, 12, 13)  # different directions, active together
OPPOSED = (20, 21)  # nearly one direction and active together, but one of them falls with the trait
ALONE = (30, 31, 32, 33, 34)
TRAIT = {**dict.fromkeys((*SPLIT, *TOGETHER, *ALONE, 20), 1.5), 21: -1.0}
FAMILIES = (SPLIT, TOGETHER, OPPOSED)


def decoder() -> Tensor:
    """Random directions; those of SPLIT and of OPPOSED have cosine .9 with each other. Linearly independent, so that
    the pseudo-inverse reads codes back exactly."""
    source = torch.Generator().manual_seed(3)
    rows = torch.nn.functional.normalize(torch.randn(N, WIDTH, generator=source), dim=1)
    for family in (SPLIT, OPPOSED):
        rows[list(family)] = 0.9**0.5 * rows[family[0]] + 0.1**0.5 * rows[list(family)]
    return torch.nn.functional.normalize(rows, dim=1)


def codes_of(rows: pd.DataFrame, *, trait: dict[int, float] = TRAIT, families: tuple = FAMILIES, seed: int = 0) -> Tensor:
    """Codes `[n, N]`: base + own noise + the noise that a family shares, plus the trait's change in the positive arm."""
    source = torch.Generator().manual_seed(seed)
    codes = 3 + torch.rand(len(rows), N, generator=source)
    for family in families:
        codes[:, list(family)] += 2 * torch.rand(len(rows), 1, generator=source)
    change = torch.tensor([trait.get(feature, 0.0) for feature in range(N)])
    return codes + torch.tensor((rows.arm == "positive").to_numpy())[:, None] * change


def world(folder: Path, **options) -> tuple[PersonaVector, object]:
    directions = decoder()
    sae = make_sae(n_features=N, d_model=WIDTH, encoder=torch.linalg.pinv(directions), decoder_directions=directions,
                   encoder_bias=torch.zeros(N))  # fmt: skip
    rows = _rows(10, ())
    tokens = [sae.decode(code.repeat(int(n), 1)) for code, n in zip(codes_of(rows, **options), rows.n_tokens, strict=True)]
    return make_vector(folder, rows, tokens), sae


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Decomposition:
    return decompose(*world(tmp_path_factory.mktemp("world")), n_bootstrap=60)


def members(parts: Decomposition) -> list[set[int]]:
    return [set(group["features"]) for group in parts.audit["groups"]["groups"]]


def test_split_features_and_features_that_act_together_are_grouped(parts: Decomposition) -> None:
    assert set(SPLIT) in members(parts) and set(TOGETHER) in members(parts)


def test_independent_features_stay_apart(parts: Decomposition) -> None:
    assert set(ALONE) <= set(parts.audit["groups"]["single"])


def test_what_rises_and_what_falls_is_never_summed(parts: Decomposition) -> None:
    assert not any(set(OPPOSED) <= group for group in members(parts))


def test_a_group_has_the_sum_of_its_shares_and_an_interval_around_it(parts: Decomposition) -> None:
    group = next(g for g in parts.audit["groups"]["groups"] if set(g["features"]) == set(SPLIT))
    assert group["share"] == pytest.approx(parts.share[list(SPLIT)].sum().item())
    place = [parts.replicate_features.tolist().index(f) for f in SPLIT]
    ends = np.quantile(parts.replicate_shares[:, place].double().sum(dim=1).numpy(), [0.025, 0.975])
    assert group["interval"] == pytest.approx((2 * group["share"] - ends[::-1]).tolist(), abs=1e-6)
    assert group["representative"] == max(SPLIT, key=lambda f: abs(parts.share[f])) and group["change"] == 1


def test_planted_families_beat_matched_features_and_say_what_holds_them_together(parts: Decomposition) -> None:
    found = {tuple(sorted(group["features"])): group for group in parts.audit["groups"]["groups"]}
    assert found[SPLIT]["p"] == found[TOGETHER]["p"] == 0.01
    assert found[SPLIT]["cosine"] > 0.8 and abs(found[TOGETHER]["cosine"]) < 0.2 < found[TOGETHER]["coactivation"]
    assert found[SPLIT]["cohesion"] == pytest.approx((found[SPLIT]["cosine"] + found[SPLIT]["coactivation"]) / 2)


def test_the_groups_survive_json_and_the_disk(parts: Decomposition, tmp_path: Path) -> None:
    parts.save(tmp_path)
    again = Decomposition.load(tmp_path).audit["groups"]
    assert again == json.loads(json.dumps(parts.audit["groups"], allow_nan=False))


def test_a_shift_between_the_arms_alone_makes_no_group(tmp_path: Path) -> None:
    """All features of the trait are higher in one arm; over all responses they correlate, within an arm they do not."""
    vector, sae = world(tmp_path, trait=dict.fromkeys((*TOGETHER, *ALONE, 40, 41), 4.0), families=())
    found = decompose(vector, sae, n_bootstrap=20).audit["groups"]
    codes = codes_of(_rows(10, ()), trait=dict.fromkeys((*TOGETHER, *ALONE), 4.0), families=())
    assert torch.corrcoef(codes[:, list(ALONE)].T).min() > 0.5  # what a correlation over all responses would have seen
    assert max((group["coactivation"] for group in found["groups"]), default=0) < 0.4
    assert all(len(group["features"]) <= 3 for group in found["groups"])


def test_where_nothing_belongs_together_groups_are_as_many_as_in_the_null() -> None:
    """Twelve worlds without families: p is rarely small, of the number grouped and of every group."""
    found = [_null_grouping(seed) for seed in range(12)]
    assert sum(one.null.p <= 0.05 for one in found) <= 3  # P(more than 3 of 12 at level .05) < .003
    assert sum(any(group.p <= 0.05 for group in one.groups) for one in found) <= 3


def _null_grouping(seed: int) -> Grouping:
    rows = _rows(10, ())
    codes = codes_of(rows, trait={}, families=(), seed=seed).numpy()
    read = RowCodes((), torch.zeros(0), torch.zeros(0), sparse.csc_matrix(codes), torch.zeros(0))
    directions = torch.randn(N, WIDTH, generator=torch.Generator().manual_seed(seed))
    found = group_features(_plain(seed), read, rows.arm.tolist(), directions)
    assert found is not None
    return found


def _plain(seed: int) -> Decomposition:
    from tests.reports.example import example_parts

    share = torch.rand(N, generator=torch.Generator().manual_seed(seed)) / N
    return replace(example_parts(), share=share, delta_code=share, replicate_features=torch.arange(N),
                   replicate_shares=share.repeat(5, 1), replicate_error=torch.zeros(5))  # fmt: skip


def test_a_higher_percentile_asks_for_more(parts: Decomposition, tmp_path: Path) -> None:
    rows = _rows(10, ())
    read = RowCodes((), torch.zeros(0), torch.zeros(0), sparse.csc_matrix(codes_of(rows).numpy()), torch.zeros(0))
    low, high = (group_features(parts, read, rows.arm.tolist(), decoder(), percentile=q) for q in (0.8, 0.995))
    assert low is not None and high is not None and low.threshold < high.threshold
    assert sum(len(g.features) for g in low.groups) > sum(len(g.features) for g in high.groups)


def test_the_same_seed_gives_the_same_groups_and_a_tiny_dictionary_none(parts: Decomposition, planted: Callable) -> None:
    rows = _rows(10, ())
    read = RowCodes((), torch.zeros(0), torch.zeros(0), sparse.csc_matrix(codes_of(rows).numpy()), torch.zeros(0))
    one, two = (group_features(parts, read, rows.arm.tolist(), decoder(), seed=1) for _ in range(2))
    assert one == two
    none = sparse.csc_matrix((len(rows), N), dtype=np.float32)
    assert group_features(parts, replace(read, codes=none), rows.arm.tolist(), decoder()) is None


def test_a_bare_vector_has_no_groups(tmp_path: Path) -> None:
    vector, sae = world(tmp_path)
    bare = PersonaVector.from_direction(vector.direction, trait="t", model=vector.model, hook=HOOK)
    found = decompose(bare, sae)
    assert "groups" not in found.audit and any("groups" in told for told in found.warnings)


def test_matches_are_distinct_not_chosen_and_fire_alike() -> None:
    source = np.random.default_rng(0)
    rates = np.linspace(0.02, 1, 80)
    codes = sparse.csc_matrix((source.random((200, 80)) < rates) * 1.0)
    read = RowCodes((), torch.zeros(0), torch.zeros(0), codes, torch.zeros(0))
    chosen = np.array([5, 40, 75])
    found = matched_features(read, chosen, np.arange(80))
    assert found.shape == (3, 10) and len(np.unique(found)) == 30 and not set(found.ravel()) & set(chosen)
    assert (np.abs(rates[found] - rates[chosen][:, None]) < 0.2).all()


def test_clusters_are_cut_at_the_mean_similarity_and_keep_signs_apart() -> None:
    similarity = np.full((5, 5), 0.1)
    similarity[:3, :3] = 0.8
    similarity[3:, 3:] = 0.5
    np.fill_diagonal(similarity, 1)
    same = np.ones(5)
    assert [c.tolist() for c in clusters(similarity, same, 0.4)] == [[0, 1, 2], [3, 4]]
    assert [c.tolist() for c in clusters(similarity, same, 0.6)] == [[0, 1, 2]]
    assert [c.tolist() for c in clusters(similarity, np.array([1, 1, -1, -1, -1]), 0.4)] == [[3, 4], [0, 1]]
    assert mean_off_diagonal(similarity[:3, :3]) == pytest.approx(0.8)


def test_rows_of_the_world_weigh_as_in_the_vector() -> None:
    rows = _rows(10, ())
    assert all(rows[name].tolist() == _weights(rows, *pair) for name, pair in ARM_PAIRS.items())


def test_shares_are_needed(tmp_path: Path) -> None:
    vector, sae = world(tmp_path)
    bare = PersonaVector.from_direction(vector.direction, trait="t", model=vector.model, hook=HOOK)
    rows = _rows(10, ())
    read = RowCodes((), torch.zeros(0), torch.zeros(0), sparse.csc_matrix(codes_of(rows).numpy()), torch.zeros(0))
    with pytest.raises(WorkbenchError, match="no shares"):
        group_features(decompose(bare, sae), read, rows.arm.tolist(), decoder())

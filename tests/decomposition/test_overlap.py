"""Traits on one SAE: overlaps against closed forms, against placebos, and with nothing in common."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from tests.decomposition.compared import decomposed, lengths, placebos
from tests.decomposition.planted_world import N_FEATURES, make_sae
from workbench.decomposition.comparison.overlap import TraitComparison, compare_traits
from workbench.decomposition.result import Decomposition

A, B = {3: 2.0, 7: 1.0, 11: -1.5}, {3: 1.0, 5: 2.0, 11: -1.0}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[Decomposition]:
    folder = tmp_path_factory.mktemp("traits")
    return [decomposed(folder, "a", A, outside=1.0), decomposed(folder, "b", B, outside=1.0)]


@pytest.fixture(scope="module")
def found(parts: list[Decomposition]) -> TraitComparison:
    return compare_traits(parts, make_sae().decoder_directions, placebos=placebos())


def length(changes: dict[int, float]) -> float:
    return (sum((c * lengths()[j].item()) ** 2 for j, c in changes.items()) + 1) ** 0.5  # 1: what lies outside the SAE


def test_the_cosine_is_taken_apart_as_planted(found: TraitComparison) -> None:
    expected = {j: A[j] * B[j] * lengths()[j].item() ** 2 / (length(A) * length(B)) for j in (3, 11)}
    pair = found.pairs[0]
    parts = {c.feature: c.part for c in pair.contributors}
    assert parts[3] == pytest.approx(expected[3], rel=1e-4) and parts[11] == pytest.approx(expected[11], rel=1e-4)
    assert all(abs(part) < 1e-4 for j, part in parts.items() if j not in expected)
    assert pair.error == pytest.approx(1 / (length(A) * length(B)), rel=1e-3)
    assert pair.cosine == pytest.approx(sum(expected.values()) + pair.error, rel=1e-4)
    assert pair.positive + pair.negative + pair.error == pytest.approx(pair.cosine, abs=1e-9)
    assert found.cosines[0][1] == pytest.approx(pair.cosine) and pair.n_half == 1


def test_of_a_trait_with_itself_the_parts_are_its_shares(parts: list[Decomposition]) -> None:
    same = compare_traits([parts[0], replace(parts[0], trait="again")], make_sae().decoder_directions).pairs[0]
    assert same.cosine == pytest.approx(1) and same.error == pytest.approx(parts[0].share_error, abs=1e-5)
    assert all(c.part == pytest.approx(c.shares[0], abs=1e-5) for c in same.contributors)


def test_parts_are_symmetric_where_directions_are_not_orthogonal(parts: list[Decomposition]) -> None:
    source = torch.Generator().manual_seed(1)
    decoder = torch.randn(N_FEATURES, 24, generator=source)
    made = [replace(one, direction=torch.randn(24, generator=source)) for one in parts]
    one, other = (compare_traits(order, decoder).pairs[0] for order in (made, made[::-1]))
    assert {c.feature: pytest.approx(c.part) for c in one.contributors} == {c.feature: c.part for c in other.contributors}
    j = one.contributors[0].feature
    (a, b), d = made, decoder[j].double()
    by_hand = (a.delta_code[j] * (d @ b.direction.double()) + b.delta_code[j] * (d @ a.direction.double())) / 2
    assert one.contributors[0].part == pytest.approx((by_hand / (a.direction.norm() * b.direction.norm())).item(), rel=1e-5)


def test_what_is_left_without_the_other_and_in_the_shared_component(found: TraitComparison) -> None:
    cosine = found.pairs[0].cosine
    for left in found.remainders:
        assert left.share_left == pytest.approx(1 - cosine**2, rel=1e-5)
        assert left.in_shared == pytest.approx((1 + cosine) / 2, rel=1e-5) and left.in_shared_if_unrelated == 0.5
        assert left.of_placebos is not None and left.of_placebos[0] <= left.of_placebos[1] <= left.of_placebos[2] <= 1
    of_a, of_b = ({j: share for j, share, _ in left.features} for left in found.remainders)
    in_vector = {j: share for j, _, share in found.remainders[0].features}
    assert max(of_b, key=lambda j: of_b[j]) == 5 and of_a[7] > in_vector[7]
    assert set(found.remainders[0].pursuit_before[:3]) == set(A)


def test_the_shares_of_a_remainder_are_exact(parts: list[Decomposition]) -> None:
    left = compare_traits(parts, make_sae().decoder_directions).remainders[0]
    a, b = (one.direction.double() for one in parts)
    weight = (a @ b) / (b @ b)
    rest, codes = a - weight * b, parts[0].delta_code - weight * parts[1].delta_code
    expected = codes * (make_sae().decoder_directions.double() @ rest) / (rest @ rest)
    assert all(share == pytest.approx(expected[j].item(), abs=1e-6) for j, share, _ in left.features)


def test_traits_alike_stand_out_from_placebos_and_unrelated_ones_do_not(parts: list[Decomposition]) -> None:
    decoder, source = make_sae().decoder_directions, torch.Generator().manual_seed(5)
    near = replace(parts[0], trait="near", direction=parts[0].direction + 0.01)
    pair = compare_traits([parts[0], near], decoder, placebos=placebos()).pairs[0]
    assert pair.background is not None and pair.background.p == pytest.approx(1 / 49)
    values = []
    for k in range(40):  # traits drawn as the placebos are: the rank p is uniform
        codes = torch.randn(2, N_FEATURES, generator=source)
        drawn = [replace(parts[0], trait=str(n), direction=row @ decoder, delta_code=row) for n, row in enumerate(codes)]
        background = compare_traits(drawn, decoder, placebos=placebos(seed=k)).pairs[0].background
        assert background is not None
        values.append(background.p)
    assert 0.35 < sum(values) / len(values) < 0.65  # mean of 40 uniform values: .5 +- .046


def test_a_feature_that_joins_any_two_contrasts_is_told_by_its_placebo_part(parts: list[Decomposition]) -> None:
    loud = placebos()
    codes = loud.delta_codes.clone()
    codes[:, 3] *= 20
    loud = replace(loud, delta_codes=codes, vectors=codes @ make_sae().decoder_directions)
    pair = compare_traits(parts, make_sae().decoder_directions, placebos=loud).pairs[0]
    beyond = {c.feature: c.placebos_q95 is not None and abs(c.part) > c.placebos_q95 for c in pair.contributors}
    assert not beyond[3] and beyond[11]


def with_placebo(parts: Decomposition, trait: str, q: dict[int, float], p: dict[int, float], sign: int = 1) -> Decomposition:
    quiet = torch.ones(N_FEATURES, dtype=torch.float64)
    q_value, p_value = (quiet.index_put((torch.tensor(list(v), dtype=torch.int64),), torch.tensor(list(v.values()),
                        dtype=torch.float64)) for v in (q, {**q, **p}))  # fmt: skip
    return replace(parts, trait=trait, placebo_q=q_value, placebo_p=p_value, delta_code=sign * parts.delta_code.abs())


def test_own_features_are_specific_to_one_and_quiet_in_the_others(parts: list[Decomposition]) -> None:
    one = with_placebo(parts[0], "one", {3: 0.01, 7: 0.01, 5: 0.04}, {})
    two = with_placebo(parts[0], "two", {3: 0.01}, {7: 0.03})  # 7 is not specific to it, but not quiet either
    found = compare_traits([one, two], make_sae().decoder_directions)
    assert found.own is not None and found.common is not None
    assert (found.own[0].n_specific, found.own[0].n_own) == (3, 1) and found.own[0].features[0][0] == 5
    assert found.own[0].n_if_unrelated == pytest.approx(3 * 0.95) and found.own[1].n_own == 0
    assert found.common == ((3, ("one", "two")),)
    against = with_placebo(parts[0], "two", {3: 0.01}, {}, sign=-1)
    assert compare_traits([one, against], make_sae().decoder_directions).common == ()


def test_without_placebos_it_says_what_is_unknown(parts: list[Decomposition]) -> None:
    found = compare_traits(parts, make_sae().decoder_directions)
    assert found.pairs[0].background is None and found.own is None and found.common is None
    assert found.remainders[0].of_placebos is None and any("placebo" in told for told in found.warnings)
    json.dumps(found.to_json(), allow_nan=False)

"""A page of several traits as values: what they share against chance, and which reports may stand on one page."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from tests.reports.example import D_SAE, example_labels, example_vector
from tests.reports.studied import full_report, known_parts, other_trait
from workbench.base.errors import WorkbenchError
from workbench.decomposition.comparison.overlap import compare_traits
from workbench.reports.content import report
from workbench.reports.several import TraitReports, trait_reports


def decoder() -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(D_SAE, 16, generator=torch.Generator().manual_seed(5)), dim=1)


@pytest.fixture(scope="module")
def two() -> TraitReports:
    return trait_reports([report(example_vector(), known_parts(), example_labels()), report(*other_trait())])


def test_the_cosines_are_those_of_the_vectors(two):
    a, b = (one.parts.direction.double() for one in two)
    assert two.cosines[0][1] == pytest.approx(float(a @ b / a.norm() / b.norm()))
    assert two.pairs[0].cosine == two.cosines[0][1] == pytest.approx(two.cosines[1][0])
    assert two.cosines[0][0] == pytest.approx(1.0)


def test_shared_features_are_counted_against_two_random_choices_of_the_same_signs(two):
    pair, (a, b) = two.pairs[0], (one.parts for one in two)
    mine, other = ([int(p.delta_code[j].sign()) if p.placebo_q[j] <= 0.05 else 0 for j in range(D_SAE)] for p in (a, b))
    both = [j for j in range(D_SAE) if mine[j] and mine[j] == other[j]]
    assert pair.n_shared == len(both) == two.n_shared >= 4 and {one.feature for one in two.shared} <= set(both)
    active = sum(bool(a.delta_code[j]) and bool(b.delta_code[j]) for j in range(D_SAE))
    expected = sum(mine.count(sign) * other.count(sign) for sign in (1, -1)) / active
    assert pair.n_expected == pytest.approx(expected) and pair.n_active == active
    assert pair.n_specific == (sum(map(bool, mine)), sum(map(bool, other)))


def test_a_trait_drawn_at_random_shares_what_chance_expects():
    """Over redraws of the second trait's features the mean of n_shared is n_expected (hypergeometric mean)."""
    one, counts = report(example_vector(), known_parts(), example_labels()), []
    parts = one.parts
    active = (parts.delta_code != 0).nonzero()[:, 0]
    for seed in range(60):
        order = active[torch.randperm(len(active), generator=torch.Generator().manual_seed(seed))]
        q, change = parts.placebo_q.clone(), parts.delta_code.clone()
        q[active], change[active] = parts.placebo_q[order], parts.delta_code[order]
        other = replace(parts, trait="drawn", placebo_q=q, delta_code=change, causal=())
        pair = trait_reports([one, replace(one, vector=replace(one.vector, trait="drawn"), parts=other)]).pairs[0]
        counts.append((pair.n_shared, pair.n_expected))
    shared, expected = (torch.tensor(column, dtype=torch.float64) for column in zip(*counts, strict=True))
    assert expected.std() < 1e-9  # the numbers of either sign do not change
    # the mean of 60 draws lies within 4 standard errors
    assert abs(shared.mean() - expected.mean()) < 4 * shared.std() / 60**0.5


def test_the_comparison_gives_the_same_shared_features(two):
    made = compare_traits([one.parts for one in two], decoder())
    both = trait_reports(two.traits, comparison=made)
    assert made.common is not None and [j for j, _ in made.common][: len(both.shared)] == [one.feature for one in both.shared]
    assert both.pairs[0].p is None  # no placebo vectors: no background
    json.dumps(both.to_json(), allow_nan=False)


def test_traits_are_found_by_name_and_the_object_has_its_keys(two):
    assert two.names == ("evil", "impolite") and two["impolite"].trait == "impolite" and len(two) == 2
    with pytest.raises(WorkbenchError, match="evli"):
        two["evli"]
    value = json.loads(json.dumps(two.to_json(), allow_nan=False))
    assert set(value) == {"traits", "cosines", "pairs", "shared", "n_shared", "comparison", "report"}
    assert value["traits"]["evil"] == two["evil"].to_json() and value["shared"][0]["shares"][0] is not None


def test_without_placebos_nothing_is_called_a_traits_own(two):
    blind = [replace(one, parts=replace(one.parts, placebo_q=torch.full((D_SAE,), torch.nan))) for one in two]
    made = trait_reports(blind)
    assert made.n_shared is None and made.shared == () and made.pairs[0].n_shared is None
    assert made.pairs[0].cosine == two.pairs[0].cosine


def test_what_does_not_belong_on_one_page_is_refused(two):
    one, other = two.traits
    with pytest.raises(WorkbenchError, match="stands twice"):
        trait_reports([one, one])
    moved = replace(other, parts=replace(other.parts, sae={**other.parts.sae, "id": "else", "weights_hash": "00"}))
    with pytest.raises(WorkbenchError, match=r"different SAEs .*else"):
        trait_reports([one, moved])
    with pytest.raises(WorkbenchError, match="0 traits"):
        trait_reports([])
    with pytest.raises(WorkbenchError, match="8 traits"):
        trait_reports([replace(one, vector=replace(one.vector, trait=f"t{n}")) for n in range(8)])
    with pytest.raises(WorkbenchError, match=r"(?i)the comparison is of"):
        trait_reports([other, one], comparison=compare_traits([one.parts, other.parts], decoder()))


def test_a_page_of_many_traits_keeps_fewer_contexts_of_each():
    full = full_report()
    names = [f"t{n}" for n in range(6)]
    others = [replace(full, vector=replace(full.vector, trait=name), parts=replace(full.parts, trait=name)) for name in names]
    seven = trait_reports([full, *others])
    assert {len(view.contexts["rollouts"]) for one in seven for view in one.views.values()} == {2}
    assert seven["evil"].views[311].contexts["rollouts"] == full.views[311].contexts["rollouts"][:2]
    assert trait_reports([full]).traits[0].views == full.views

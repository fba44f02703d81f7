"""The persona space in closed form: planted components, noise alone, planted clusters, planted ends."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.axis.space.planted import HOOKS, judged_rows, planted_rows, stored
from workbench.axis.roles import ASSISTANT_END, FAR_END
from workbench.axis.space.carrying import carried_axis
from workbench.axis.space.cells import Cells
from workbench.axis.space.clusters import clusters
from workbench.axis.space.comparison import compare_spaces
from workbench.axis.space.components import (
    axis_and_first,
    components,
    n_for_share,
    noise_floor,
    role_cosines,
    standardised_cosine,
)
from workbench.axis.space.design import RoleDesign
from workbench.axis.space.ends import axis_positions, ends_agreement
from workbench.axis.space.placing import place_vectors
from workbench.axis.space.role_vectors import role_vectors
from workbench.axis.space.sensitivity import equal_answers, without_ends
from workbench.axis.space.space import PersonaSpace, persona_space
from workbench.base.errors import WorkbenchError
from workbench.personas.placebos import PlaceboVectors
from workbench.personas.vectors import PersonaVector
from workbench.reports.axis.space import answer, cautions, render

D, N = 32, 18
NAMES = (*ASSISTANT_END, *FAR_END)
UNIT = torch.eye(D)
# Along e0 from the assistant's end (+) to the far end (-); a little of e1, e2 besides.
LINE = torch.linspace(4, -4, N)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


PLACES = {name: LINE[i] * UNIT[0] + 0.3 * drawn(N, seed=5)[i] * UNIT[1] for i, name in enumerate(NAMES)}
DEFAULT = 6 * UNIT[0]


@pytest.fixture(scope="module")
def vectors(tmp_path_factory, tiny_model):
    rollouts = stored(tmp_path_factory.mktemp("space"), *planted_rows(PLACES, DEFAULT, noise=0.3), part=64)
    return role_vectors(rollouts, judged_rows(rollouts), tiny_model, hook=HOOKS[0])


def trait(direction: torch.Tensor, name: str = "evil") -> PersonaVector:
    return PersonaVector.from_direction(direction, trait=name, model="tiny", hook=HOOKS[0])


@pytest.fixture(scope="module")
def space(vectors):
    placebos = PlaceboVectors(("a", "b", "c"), ((), (), ("evil",)), HOOKS, drawn(3, 3, D, seed=2), {})
    return persona_space(vectors, traits=[trait(-UNIT[0]), trait(UNIT[9], "apathetic")], placebos=placebos, n_bootstrap=30)


def test_components_are_those_that_were_planted():
    points = 5 * drawn(200, 1) * UNIT[3] + 2 * drawn(200, 1, seed=1) * UNIT[7] + 100
    found = components(points)
    assert found.directions[0].abs().argmax() == 3 and found.directions[1].abs().argmax() == 7
    assert found.variances[0] == pytest.approx(25, rel=0.3) and found.n_for() == 1 and found.n_for(0.95) == 2
    assert torch.allclose(found.scores(points).var(dim=0), found.variances, atol=1e-6)
    # With every dimension on the same scale, the two that vary share what there is.
    assert components(points, standardised=True).shares[:2].sum() == pytest.approx(1) and found.shares[0] > 0.7


def test_more_roles_need_more_components_so_that_counts_must_be_equal():
    roles = drawn(60, 40)
    assert n_for_share(roles, 10) < n_for_share(roles, 30) < components(roles).n_for()


def test_a_default_at_the_end_of_the_first_component_is_extreme_among_the_roles_and_one_in_the_middle_is_not():
    roles = torch.stack(list(PLACES.values())) + 0.2 * drawn(N, D)
    ahead = axis_and_first(roles, DEFAULT, n_bootstrap=50)
    assert ahead["cos"] > 0.95 and 0.8 < ahead["interval"][0] < ahead["cos"] < ahead["interval"][1] <= 1
    beside = axis_and_first(roles, 6 * UNIT[20], n_bootstrap=50)
    assert beside["cos"] < 0.3 and beside["percentile"] < 0.5 < beside["p"]
    first, axis = components(roles).directions[0], DEFAULT - roles.mean(dim=0)
    assert ahead["cos"] == pytest.approx(float(torch.cosine_similarity(axis.double(), first, dim=0).abs()), abs=1e-6)
    assert standardised_cosine(roles, DEFAULT) < ahead["cos"]  # noise dimensions count as much as the planted one


def test_roles_at_the_ends_have_as_high_a_cosine_so_that_the_default_must_beat_them():
    """A character at the end of the line is as near to the first component as the default: the null says so."""
    roles = torch.stack(list(PLACES.values())) + 0.05 * drawn(N, D)
    assert axis_and_first(roles, DEFAULT, n_bootstrap=5)["null_q95"] > 0.9


def test_noise_alone_has_components_but_none_that_comes_back():
    noise = noise_floor(drawn(2, 60, 30))
    assert abs(noise["reliability"]) < 0.2 and noise["n_above_noise"] <= 2 and noise["noise_share"] == pytest.approx(1, abs=0.25)
    signal = 3 * drawn(60, 2, seed=3) @ UNIT[:2, :30]
    clear = noise_floor(signal + 0.2 * drawn(2, 60, 30, seed=4))
    assert clear["reliability"] > 0.9 and clear["n_above_noise"] == 2 and clear["n_for_70"] <= 2
    assert clear["half_correlation"][0] > 0.95 > 0.5 > clear["half_correlation"][4]


def test_clusters_are_found_where_there_are_some_and_one_where_there_are_none():
    centres = 12 * torch.tensor([[0.0, 0], [0, 1], [1, 0]])
    apart = centres.repeat(10, 1) + drawn(30, 2)
    found = clusters(apart, [str(i) for i in range(30)])
    assert found["k"] == 3 and found["stability"]["3"]["ari"] > 0.95 > found["stability"]["3"]["null_ari"]
    assert sorted(map(len, found["members"]["3"])) == [10, 10, 10] and "5" in found["members"]
    assert clusters(drawn(30, 2), [str(i) for i in range(30)])["k"] == 1


def test_positions_put_the_mean_role_at_zero_and_the_default_at_one(space, vectors):
    assert float(space.position(vectors.default_at())) == pytest.approx(1, abs=1e-5)
    assert float(space.position(vectors.at()).mean()) == pytest.approx(0, abs=1e-5)
    assert axis_positions(torch.tensor([3.0, 9]), torch.zeros(2), torch.tensor([2.0, 0])) == pytest.approx(1.5)


def test_the_ranking_runs_from_the_assistant_to_the_far_end_with_intervals_around_the_positions(space):
    assert [row["role"] for row in space.ranking][:2] == list(NAMES[:2]) and space.ranking[-1]["role"] == NAMES[-1]
    assert all(row["low"] <= row["position"] <= row["high"] and row["n_kept"] == 12 for row in space.ranking)


def test_the_published_ends_are_recognised_and_shuffled_ones_are_not(space):
    assert space.ends["auc"] == 1 and space.ends["p"] < 0.001 and space.ends["rank_correlation"] > 0.8
    places = torch.tensor([LINE[i] for i in range(N)])
    mixed = ends_agreement(NAMES, places[torch.randperm(N, generator=torch.Generator().manual_seed(3))])
    assert mixed["p"] > 0.05 and abs(mixed["rank_correlation"]) < 0.6
    assert ends_agreement(NAMES, -places)["auc"] == 0
    few = ends_agreement(("ghost", "reviewer"), torch.tensor([0.0, 1.0]))
    assert few["rank_correlation"] is None and "poet" in few["missing"]


def test_traits_are_placed_beside_placebos(space):
    evil, apathetic = space.traits["vectors"]
    assert evil["cos_axis"] < -0.9 and evil["along_axis"] < 0 and evil["p"] == pytest.approx(1 / 3)  # two unrelated placebos
    assert evil["nearest"][0]["role"] in FAR_END and evil["cos_components"][0] < -0.9
    assert abs(apathetic["cos_axis"]) < 0.3 and apathetic["in_space"] < 0.8 < evil["in_space"]


def test_without_placebos_there_is_no_p(vectors):
    found = place_vectors(vectors, [trait(UNIT[0])])
    assert found["null"] is None and found["vectors"][0]["p"] is None


def test_the_space_is_saved_and_read_again(space, tmp_path):
    space.save(tmp_path)
    again = PersonaSpace.load(tmp_path)
    assert again.names == space.names and again.ranking == space.ranking and torch.equal(again.scores, space.scores)
    assert again.at_hook["cos"] == space.at_hook["cos"] and [row["hook"] for row in again.blocks] == [str(hook) for hook in HOOKS]
    assert again.variance["noise"]["reliability"] > 0.9 and not math.isnan(again.variance["standardised"]["cos_axis_pc1"])


def other_model(tmp_path, tiny_model, places, default, *, seed=9):
    rollouts = stored(tmp_path, *planted_rows(places, default, noise=0.3, seed=seed), part=64)
    return role_vectors(rollouts, judged_rows(rollouts), tiny_model, hook=HOOKS[0])


def test_two_models_with_the_same_geometry_in_other_coordinates_agree_on_places_not_on_axes(vectors, tmp_path, tiny_model):
    rotation = torch.linalg.qr(drawn(D, D, seed=11))[0]
    turned = other_model(tmp_path, tiny_model, {name: rotation @ one for name, one in PLACES.items()}, rotation @ DEFAULT)
    found = compare_spaces(vectors, turned)
    for name in ("positions", "first_component", "rsa", "cka"):
        assert found.measures[name]["value"] > 0.9 and found.measures[name]["p"] < 0.01, name
        assert found.measures[name]["null_q95"] < found.measures[name]["interval"][0]
    assert found.axes is not None and abs(found.axes["cos"]) < 0.6
    assert found.carried["cos"] > 0.95 and found.carried["r2"] > 0.8 > found.carried["r2_null_q95"]
    assert found.carried["null_q95"] > 0.9  # in a space of one dimension every map finds it, and the null says so
    same = compare_spaces(vectors, vectors.only(NAMES[:10]))
    assert same.names == NAMES[:10] and same.axes is not None and same.axes["cos"] == pytest.approx(1)
    assert same.roles[0]["cos"] == pytest.approx(1) and same.to_json()["n_roles"] == 10


def test_an_axis_off_the_span_of_the_roles_cannot_be_carried():
    roles = torch.stack(list(PLACES.values())) + 0.1 * drawn(N, D)
    found = carried_axis(roles[:, :8], DEFAULT[:8], roles, 6 * UNIT[30])
    assert found["r2"] > 0.8 and abs(found["cos"]) < 0.3
    chance = carried_axis(drawn(N, 8), drawn(8, seed=1), drawn(N, D, seed=2), DEFAULT)
    assert chance["r2_p"] > 0.05 and chance["r2"] < 0.2


def test_models_without_common_roles_are_refused(vectors):
    with pytest.raises(WorkbenchError, match="5 roles have vectors in both models"):
        compare_spaces(vectors, vectors.only(NAMES[:5]))


def test_what_a_notebook_shows_has_the_map_and_both_ends(space, vectors):
    shown = space._repr_html_() or ""
    assert "<svg" in shown and "first component" in shown and NAMES[0] in shown and NAMES[-1] in shown and len(shown) < 60_000
    assert "18 role vectors" in (vectors._repr_html_() or "") and "tensor(" not in repr(vectors) + repr(space)
    assert "cosine of the axes" in (compare_spaces(vectors, vectors.only(NAMES[:9]))._repr_html_() or "")
    assert "characters" in (RoleDesign()._repr_html_() or "")


def test_a_reference_of_the_gap_gets_as_many_starts_as_the_points_so_that_more_clusters_win_nothing(monkeypatch):
    monkeypatch.setattr("workbench.axis.space.clusters.N_REFERENCES", 1)
    monkeypatch.setattr("workbench.axis.space.clusters._reference", lambda points, *_: points)
    gaps = clusters(drawn(40, 6), [str(i) for i in range(40)], published=1)["gaps"]
    assert [one["gap"] for one in gaps] == pytest.approx([0.0] * 10, abs=1e-12)


def noisy_roles(seed: int) -> SimpleNamespace:
    """20 roles with one prompt, and a default with five that stands where the first role does; all answers are noisy."""
    random = torch.Generator().manual_seed(seed)
    scale = torch.cat([torch.tensor([2.0]), torch.full((15,), 0.5)])
    places = torch.randn(20, 16, generator=random) * scale
    places = torch.cat([places, places[:1]])
    keys = torch.cartesian_prod(torch.arange(20), torch.zeros(1, dtype=torch.long), torch.arange(6))
    keys = torch.cat([keys, torch.cartesian_prod(torch.tensor([20]), torch.arange(5), torch.arange(6))])
    sums = places[keys[:, 0]] + 2.5 * torch.randn(len(keys), 16, generator=random)
    cells = Cells(keys[:, 0], keys[:, 0] + keys[:, 1], keys[:, 2], torch.ones(len(keys), dtype=torch.long), sums)
    roles, default = cells.means()
    return SimpleNamespace(cells=cells, n_kept=(6,) * 20, at=lambda: roles, default_at=lambda: default)


def test_a_default_that_is_a_role_with_more_answers_stands_out_until_it_has_as_many():
    plain, equal = [], []
    for seed in range(40):
        one: Any = noisy_roles(seed)
        first_role = float(role_cosines(one.at())[0])
        plain.append(axis_and_first(one.at(), one.default_at(), n_bootstrap=2)["cos"] - first_role)
        found = equal_answers(one)
        equal.append(found["cos"] - first_role)
        assert (found["n_answers"], found["n_default"]) == (6, 30) and found["lowest"] <= found["cos"] <= found["highest"]
    assert sum(plain) / 40 > 0.1 and abs(sum(equal) / 40) < 0.05, (sum(plain) / 40, sum(equal) / 40)


def test_with_equal_counts_the_cosine_stays_and_ends_alone_have_no_others(space, vectors):
    assert space.sensitivity["equal_answers"]["cos"] == pytest.approx(space.at_hook["cos"], abs=1e-4)
    assert space.sensitivity["without_ends"] is None and without_ends(vectors) is None
    assert space.ends["highest"] == pytest.approx(0.862, abs=1e-3)


def test_roles_that_were_chosen_along_the_axis_are_left_out_beside_the_figure_and_said(vectors, space):
    others = replace(vectors, names=(*NAMES[:4], *(f"other{i}" for i in range(N - 4))))
    found = without_ends(others, n_bootstrap=10)
    assert found and found["n_roles"] == N - 4
    assert found["cos"] == axis_and_first(others.at()[4:], others.default_at(), n_bootstrap=10)["cos"]
    told = replace(space, sensitivity={"without_ends": found, "equal_answers": {
        "cos": 0.5, "lowest": 0.4, "highest": 0.6, "null_q95": 0.7, "percentile": 0.8, "p": 0.2, "n_answers": 12, "n_default": 60,
    }})  # fmt: skip
    assert any("published ends" in one for one in cautions(told))
    assert ("which 20% of them reach" in answer(told)) is (space.at_hook["p"] <= 0.05)
    assert "the default from 12 answers" in render(told)

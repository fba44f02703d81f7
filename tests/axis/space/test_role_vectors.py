"""Role vectors and the axis in closed form, whatever the filter leaves."""

from __future__ import annotations

import pytest
import torch

from tests.axis.space.planted import HOOKS, judged_rows, planted_rows, stored
from workbench.axis.space.axis import AXIS, assistant_axis, role_vector, thinned
from workbench.axis.space.role_vectors import RoleVectors, role_vectors
from workbench.axis.space.tensors import write_tensors
from workbench.axis.space.weights import axis_weights, vector_rows
from workbench.base.errors import WorkbenchError
from workbench.decomposition.shares import Design
from workbench.personas.formats import read_vectors
from workbench.personas.vectors import PersonaVector

D = 32
NAMES = ("ghost", "reviewer", "poet", "judge")
PLACES = {name: 3 * torch.nn.functional.one_hot(torch.tensor(i), D).float() for i, name in enumerate(NAMES)}
DEFAULT = torch.full((D,), 0.5)
# The poet is kept on two questions only, the ghost hardly ever.
DROPPED = (*(f"poet-{k}-{q}" for k in range(2) for q in range(2, 6)), *(f"ghost-{k}-{q}" for k in range(2) for q in range(1, 6)))


@pytest.fixture(scope="module")
def rollouts(tmp_path_factory):
    return stored(tmp_path_factory.mktemp("roles"), *planted_rows(PLACES, DEFAULT, noise=0.0))


@pytest.fixture(scope="module")
def judged(rollouts):
    return judged_rows(rollouts, DROPPED)


@pytest.fixture(scope="module")
def vectors(rollouts, judged, tiny_model):
    return role_vectors(rollouts, judged, tiny_model, hook=HOOKS[1], min_count=4)


def test_weights_sum_to_one_on_either_side_and_each_role_and_question_counts_as_it_should(judged):
    roles = ("reviewer", "poet", "judge")
    weights = axis_weights(judged, vector_rows(judged), roles)
    rows = judged.assign(w=weights)
    of_default = rows["arm"] == "positive"
    assert rows.loc[of_default, "w"].sum() == pytest.approx(1) and rows.loc[~of_default, "w"].sum() == pytest.approx(-1)
    by_role = rows[~of_default].groupby("trait")["w"].sum()
    assert by_role["ghost"] == 0 and all(by_role[role] == pytest.approx(-1 / 3) for role in roles)
    by_question = rows.groupby("question_id")["w"].sum()
    assert by_question.abs().max() < 1e-12  # what questions add on their own cancels


def test_the_axis_is_what_was_planted_in_spite_of_an_uneven_filter(vectors, rollouts, judged, tiny_model):
    planted = DEFAULT - torch.stack([PLACES[name] for name in ("reviewer", "poet", "judge")]).mean(dim=0)
    axis = assistant_axis(rollouts, judged, tiny_model, hook=HOOKS[1], min_count=4)
    for place, hook in enumerate(HOOKS):
        assert torch.allclose(axis.at(hook), (place + 1) * planted, atol=1e-5)
        assert torch.allclose(vectors.axis(hook).float(), axis.at(hook), atol=1e-5)
    assert axis.trait == AXIS and axis.direction @ (DEFAULT - PLACES["judge"]) > 0
    loose = DEFAULT - torch.stack(list(PLACES.values())).mean(dim=0)
    assert axis.unfiltered is not None and torch.allclose(axis.unfiltered[1], 2 * loose, atol=1e-5)
    expected = float(torch.cosine_similarity(planted, loose, dim=0))
    assert axis.evidence["cosine_filtered_unfiltered"] == pytest.approx(expected, abs=1e-5)


def test_roles_under_the_minimum_are_left_out_and_named(vectors):
    assert vectors.names == ("reviewer", "poet", "judge") and vectors.left_out == {"ghost": 2}
    assert vectors.n_kept == (12, 4, 12) and vectors.n_half.sum(dim=0).tolist() == [12, 4, 12]


def test_the_vector_of_a_role_points_from_the_assistant_to_it(rollouts, judged, tiny_model):
    vector = role_vector(rollouts, judged, tiny_model, "poet", hook=HOOKS[1])
    assert vector.trait == "poet" and torch.allclose(vector.direction, 2 * (PLACES["poet"] - DEFAULT), atol=1e-5)
    used = vector.rows[vector.rows["weight"] != 0]
    assert set(used["question_id"]) == {"q0", "q1"}  # those that the poet was kept on
    with pytest.raises(WorkbenchError, match="pirate"):
        role_vector(rollouts, judged, tiny_model, "pirate")


def test_what_is_saved_is_read_again(vectors, rollouts, judged, tiny_model, tmp_path):
    vectors.save(tmp_path / "roles")
    again = RoleVectors.load(tmp_path / "roles")
    assert again.names == vectors.names and torch.equal(again.means, vectors.means)
    assert torch.equal(again.cells.sums, vectors.cells.sums) and again.left_out == vectors.left_out
    axis = assistant_axis(rollouts, judged, tiny_model, min_count=4)
    axis.save(tmp_path / "vector")
    read = PersonaVector.load(tmp_path / "vector")
    assert torch.equal(read.directions, axis.directions) and read.tokens is not None
    assert len(dict(read.tokens.rows(HOOKS[1]))) == len(rollouts)


def test_replicates_scatter_around_the_vectors_and_are_never_too_narrow(tmp_path, tiny_model):
    rollouts = stored(tmp_path, *planted_rows(PLACES, DEFAULT, noise=0.5, n_questions=12))
    vectors = role_vectors(rollouts, judged_rows(rollouts), tiny_model, hook=HOOKS[0])
    drawn = list(vectors.cells.replicates(200, torch.Generator().manual_seed(0)))
    axes = torch.stack([default - roles.mean(dim=0) for roles, default in drawn])
    assert (axes.mean(dim=0) - vectors.axis(HOOKS[0])).norm() < 0.1 * vectors.axis(HOOKS[0]).norm()
    # Questions cancel between the default and the roles: what is left is the noise, .5 over the root of 24 (and of 4 x 24) rows.
    # Drawing questions and prompts both counts noise of single cells up to three times (Owen 2007): never too narrow.
    expected = (0.25 / 24 + 0.25 / 96) ** 0.5
    assert expected < axes.std(dim=0).mean() < 3**0.5 * 1.2 * expected
    assert torch.isfinite(axes).all()


def test_fewer_roles_keep_their_vectors_and_cells(vectors):
    some = vectors.only(("judge", "reviewer"))
    assert torch.equal(some.means[0], vectors.means[2]) and len(some) == 2
    roles, default = next(some.cells.replicates(1, torch.Generator().manual_seed(1)))
    assert roles.shape == (2, D) and torch.isfinite(default).all()


def test_thinning_keeps_every_role_and_says_how_near_the_whole_is(rollouts, judged, tiny_model):
    rows, step = thinned(judged, NAMES, max_rows=15)
    assert step == 3 and set(rows["trait"]) == {"default", *NAMES} and len(rows) < len(judged) / 2
    axis = assistant_axis(rollouts, judged, tiny_model, min_count=4, max_rows=15)
    assert axis.evidence["every_nth_row"] == 3 and 0.5 < axis.evidence["cosine_with_all_rows"] <= 1
    assert axis.rows["weight"].sum() == pytest.approx(0, abs=1e-9)


def test_a_bootstrap_of_the_axis_keeps_the_weight_of_roles_and_questions(rollouts, judged, tiny_model):
    rows = assistant_axis(rollouts, judged, tiny_model, min_count=4).rows
    design = Design.of(rows["weight"].tolist(), rows["question_id"].tolist(), rows["instruction_id"].tolist())
    drawn = design.resampled(400, torch.Generator().manual_seed(0))
    drawn = drawn[drawn.isfinite().all(dim=1)]  # without any prompt of one side there is no vector
    assert len(drawn) > 300 and torch.allclose(drawn.clamp_min(0).sum(dim=1), torch.ones(1).double())
    poet = torch.tensor(rows["instruction_id"].str.startswith("poet").to_numpy())
    assert -drawn[:, poet].sum(dim=1).mean() == pytest.approx(1 / 3, abs=0.06)  # not 4 of 28 rows


def test_too_few_roles_are_refused_with_a_way_out(rollouts, judged, tiny_model):
    with pytest.raises(WorkbenchError, match="2 of 4 roles have 12 or more"):
        role_vectors(rollouts, judged, tiny_model, min_count=12)


def test_published_tensors_are_written_row_by_block_and_read_again(vectors, tmp_path):
    files = write_tensors(vectors, tmp_path)
    axis = read_vectors(tmp_path / "axis.pt", model=vectors.model)
    assert [file.name for file in files] == ["axis.pt", "reviewer.pt", "poet.pt", "judge.pt", "default.pt"]
    for place, hook in enumerate(HOOKS):
        assert torch.allclose(axis.at(hook), vectors.axis(hook).float(), atol=1e-5)
        assert torch.equal(axis.extras["default_mean"][place], vectors.default[place])
    raw = torch.load(tmp_path / "vectors" / "poet.pt", weights_only=True)
    assert raw["role"] == "poet" and torch.equal(raw["vector"], vectors.means[1]) and axis.hook == HOOKS[1]
    # Read back, the axis is a persona vector that points to the assistant.
    assert axis.persona_vector().direction @ (DEFAULT - PLACES["judge"]) > 0

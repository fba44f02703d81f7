"""Where a prompt stands, in closed form: planted roles, a planted shift, and what chance gives."""

from __future__ import annotations

import pytest
import torch

from tests.axis.space.planted import HOOKS, judged_rows, planted_rows, stored
from workbench.axis.design.sentences import (
    added,
    best_addition,
    kept_character,
    moves,
    pieces,
    without_each,
)
from workbench.axis.design.standing import expected_ranks, self_retrieval, standing, tied_with_nearest
from workbench.axis.space.role_vectors import RoleVectors, role_vectors
from workbench.base.errors import WorkbenchError

D, N, N_QUESTIONS = 24, 10, 12
NAMES = [f"role{i}" for i in range(N)]
RANDOM = torch.Generator().manual_seed(3)
PLACES = {name: 2 * torch.randn(D, generator=RANDOM) for name in NAMES}
DEFAULT = 3 * torch.ones(D) / D**0.5


def planted(folder, tiny_model, *, noise: float = 0.05, places: dict[str, torch.Tensor] = PLACES) -> RoleVectors:
    rows, means = planted_rows(places, DEFAULT, n_questions=8, noise=noise)
    rollouts = stored(folder, rows, means)
    return role_vectors(rollouts, judged_rows(rollouts), tiny_model, hook=HOOKS[0], min_count=4)


@pytest.fixture(scope="module")
def vectors(tmp_path_factory, tiny_model) -> RoleVectors:
    return planted(tmp_path_factory.mktemp("roles"), tiny_model)


def shifts(place: torch.Tensor, noise: float = 0.05) -> torch.Tensor:
    """Shifts from the default per question of a prompt whose replies lie around `place`."""
    return place - DEFAULT + noise * torch.randn(N_QUESTIONS, D, generator=torch.Generator().manual_seed(1))


def test_a_prompt_that_is_a_role_lands_on_it(vectors):
    found = standing(shifts(PLACES["role4"]), vectors, n_bootstrap=100)
    first = found["nearest"][0]
    assert first["role"] == "role4" and first["cos"] > 0.99 and first["nearest_share"] == 1
    assert tied_with_nearest(found["nearest"]) == ["role4"]
    axis, centre = vectors.axis(), vectors.at().mean(dim=0)
    position = float((vectors.at()[4] - centre) @ axis / axis.square().sum())
    assert found["position"]["low"] < position < found["position"]["high"]
    assert found["position"]["value"] == pytest.approx(position, abs=0.05)
    assert [one["rank"] for one in found["nearest"]] == list(range(1, N + 1)) and found["rank"]["of"] == N + 1


def test_the_default_itself_stands_at_one_and_the_mean_role_at_zero(vectors):
    at_default = standing(torch.zeros(N_QUESTIONS, D), vectors, n_bootstrap=50)
    assert at_default["position"]["value"] == pytest.approx(1.0) and at_default["rank"]["value"] == 1
    at_centre = standing((vectors.at().mean(dim=0) - vectors.default_at()).repeat(N_QUESTIONS, 1), vectors, n_bootstrap=50)
    assert at_centre["position"]["value"] == pytest.approx(0.0, abs=1e-9)


def test_a_prompt_between_two_roles_is_tied_with_both(vectors):
    middle = (PLACES["role2"] + PLACES["role7"]) / 2
    found = standing(shifts(middle, noise=1.0), vectors, n_bootstrap=200)
    assert {"role2", "role7"} == {one["role"] for one in found["nearest"][:2]}
    assert set(tied_with_nearest(found["nearest"])) == {"role2", "role7"}


def test_intervals_widen_with_the_noise_of_the_replies(vectors):
    narrow, wide = (standing(shifts(PLACES["role1"], noise), vectors, n_bootstrap=100)["position"] for noise in (0.05, 2.0))
    assert wide["high"] - wide["low"] > 4 * (narrow["high"] - narrow["low"])


def test_halves_find_themselves_where_roles_differ_and_not_where_only_noise_does(vectors, tmp_path, tiny_model):
    surely = self_retrieval(vectors)
    assert surely["rank_1"] == 1 and surely["self_cos"][0] > 0.95 and surely["n"] == N
    alike = planted(tmp_path, tiny_model, noise=1.0, places=dict.fromkeys(NAMES, torch.zeros(D)))
    by_chance = self_retrieval(alike)
    assert by_chance["rank_1"] < 0.5 and abs(by_chance["self_cos"][1]) < 0.5


def test_roles_named_beforehand_are_judged_against_random_sets():
    nearest = [{"role": name, "rank": rank} for rank, name in enumerate(NAMES * 1, start=1)]
    near = expected_ranks(nearest, ["role0", "role1", "role2"])
    assert near["ranks"] == {"role0": 1, "role1": 2, "role2": 3} and near["p"] == pytest.approx(1 / 120, rel=0.3)
    far = expected_ranks(nearest, ["role9", "role8", "elsewhere"])
    assert far["p"] > 0.9 and far["missing"] == ["elsewhere"] and far["by_chance"] == 5.5
    with pytest.raises(WorkbenchError, match="nobody"):
        expected_ranks(nearest, ["nobody"])


PROMPT = 'You tend a garden. Say "no." Then wait, e.g. until dusk!\n\nAsk first.'


def test_sentences_make_the_prompt_again_and_can_be_left_out_one_by_one():
    parts = pieces(PROMPT, 12)
    assert "".join(parts) == PROMPT
    assert parts[0] == "You tend a garden. " and parts[1] == 'Say "no." ' and parts[-1] == "Ask first."
    without = without_each(parts)
    assert len(without) == len(parts) and "garden" not in without[0] and without[-1].endswith("dusk!")
    assert pieces("A. B. C. D. E.", 2) == ("A. B. ", "C. D. E.")
    assert pieces("No end", 5) == ("No end",)
    assert added("Be kind.\n", "Stay.") == "Be kind. Stay."


def test_a_planted_move_is_found_with_its_sign_and_others_are_not():
    axis = torch.zeros(D)
    axis[0] = 2.0
    changes = torch.randn(30, 4, D, generator=torch.Generator().manual_seed(0))
    changes[:, 1, 0] += 3.0
    changes[:, 2, 0] -= 3.0
    rows = moves(["a", "up", "down", "b"], changes, axis)
    up, down = rows[1], rows[2]
    assert up["value"] == pytest.approx(1.5, abs=0.3) and up["p_family"] < 0.01 and up["low"] > 0
    assert down["value"] < 0 and down["high"] < 0 and down["p_family"] < 0.01
    assert min(rows[0]["p_family"], rows[3]["p_family"]) > 0.05
    assert best_addition(rows) == up and best_addition([down]) is None and best_addition([]) is None


def test_character_is_kept_where_the_shift_keeps_its_direction():
    shift = torch.randn(9, D, generator=torch.Generator().manual_seed(0))
    assert kept_character(shift, 0.5 * shift) == pytest.approx(1.0)
    assert kept_character(shift, -shift) == pytest.approx(-1.0)

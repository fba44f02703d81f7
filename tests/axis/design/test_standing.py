"""Where a prompt stands, in closed form: planted roles, a planted shift, and what chance gives."""

from __future__ import annotations

from dataclasses import replace
from statistics import median
from types import SimpleNamespace
from typing import Any

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
from workbench.axis.design.standing import (
    axis_covector,
    expected_ranks,
    self_retrieval,
    standing,
    tied_with_nearest,
)
from workbench.axis.space.cells import Cells
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
    position = float((vectors.at()[4] - centre) @ axis / axis.square().sum())  # little noise: halves and whole agree
    assert found["axis_reliability"] > 0.99
    assert found["position"]["low"] < position < found["position"]["high"]
    assert found["position"]["value"] == pytest.approx(position, abs=0.05)
    assert [one["rank"] for one in found["nearest"]] == list(range(1, N + 1)) and found["rank"]["of"] == N + 1


def test_the_default_itself_stands_at_one_and_the_mean_role_at_zero(vectors):
    at_default = standing(torch.zeros(N_QUESTIONS, D), vectors, n_bootstrap=50)
    assert at_default["position"]["value"] == pytest.approx(1.0) and at_default["rank"]["value"] == 1
    at_centre = standing((vectors.at().mean(dim=0) - vectors.default_at()).repeat(N_QUESTIONS, 1), vectors, n_bootstrap=50)
    assert at_centre["position"]["value"] == pytest.approx(0.0, abs=0.02)
    covector = axis_covector(vectors)
    assert float((vectors.at().mean(dim=0) - vectors.default_at()) @ covector) == pytest.approx(-1.0, abs=0.02)


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
    covector = torch.zeros(D)
    covector[0] = 0.5
    changes = torch.randn(30, 4, D, generator=torch.Generator().manual_seed(0))
    changes[:, 1, 0] += 3.0
    changes[:, 2, 0] -= 3.0
    rows = moves(["a", "up", "down", "b"], changes, covector)
    up, down = rows[1], rows[2]
    assert up["value"] == pytest.approx(1.5, abs=0.3) and up["p_family"] < 0.01 and up["low"] > 0
    assert down["value"] < 0 and down["high"] < 0 and down["p_family"] < 0.01
    assert min(rows[0]["p_family"], rows[3]["p_family"]) > 0.05
    assert best_addition(rows) == up and best_addition([down]) is None and best_addition([]) is None


def test_character_is_kept_where_the_shift_keeps_its_direction():
    shift = torch.randn(9, D, generator=torch.Generator().manual_seed(0))
    assert kept_character(shift, 0.5 * shift) == pytest.approx(1.0)
    assert kept_character(shift, -shift) == pytest.approx(-1.0)


def noisy_world(seed: int, noise: float) -> tuple[SimpleNamespace, torch.Tensor, float]:
    """(vectors with noisy replies, a prompt's shifts, its true position): |a|^2 of such an axis is mostly noise."""
    random = torch.Generator().manual_seed(seed)
    drawn = lambda *shape: torch.randn(*shape, generator=random, dtype=torch.float64)  # noqa: E731
    roles = drawn(N, D)
    default = roles.mean(dim=0) + 0.5 * drawn(D)
    prompt = 0.7 * roles[0] + 0.3 * roles[1]
    keys = torch.cartesian_prod(torch.arange(N + 1), torch.arange(2), torch.arange(12))
    places = torch.cat([roles, default[None]])[keys[:, 0]]
    sums = (places + noise * drawn(len(keys), D)).float()
    cells = Cells(keys[:, 0], 2 * keys[:, 0] + keys[:, 1], keys[:, 2], torch.ones(len(keys), dtype=torch.long), sums)
    axis = default - roles.mean(dim=0)
    shift = prompt - default + noise * drawn(40, D)
    return SimpleNamespace(cells=cells, names=NAMES), shift, float(1 + (prompt - default) @ axis / axis.square().sum())


def test_a_noisy_axis_draws_no_prompt_toward_the_default():
    plain, placed, covered = [], [], []
    for seed in range(20):
        vectors, shift, truth = noisy_world(seed, noise=1.5)
        found: Any = standing(shift, vectors, n_bootstrap=40, seed=seed)["position"]  # type: ignore[arg-type]
        roles, default = vectors.cells.means()
        axis = default - roles.mean(dim=0)
        plain.append(float(1 + shift.mean(dim=0) @ axis / axis.square().sum()) - truth)
        placed.append(found["value"] - truth)
        covered.append(found["low"] <= truth <= found["high"])
    assert abs(median(plain)) > 0.15, "dividing by |a|^2 is far off"
    assert abs(median(placed)) < 0.5 * abs(median(plain)) and sum(covered) >= 17


def test_an_axis_that_is_noise_alone_places_nothing():
    vectors, _, _ = noisy_world(3, noise=0.0)
    vectors.cells = replace(vectors.cells, sums=torch.where(vectors.cells.question % 2 == 0, 1, -1)[:, None] * vectors.cells.sums)
    with pytest.raises(WorkbenchError, match="point apart"):
        axis_covector(vectors)  # type: ignore[arg-type]

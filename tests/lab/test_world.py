"""What is planted, and that the closed form of it is what experiments show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

import workbench.lab as lab
from workbench.base.errors import WorkbenchError
from workbench.lab.oracle import standard_errors
from workbench.lab.world import seeded

Small = Callable[..., lab.Difficulty]


def effects(world: lab.World, n: int) -> torch.Tensor:
    """The difference of true mean activations in n experiments [n, n_features]."""
    found = []
    for seed in range(n):
        experiment = lab.run_experiment(world, seed)
        weights = torch.tensor(experiment.vector.rows["weight"].tolist(), dtype=torch.float64)
        found.append(weights @ experiment.true_codes)
    return torch.stack(found)


@pytest.mark.parametrize("changes", [{}, {"n_parents": 3}, {"correlation": 0.35}, {"n_dense": 4}, {"wording_sd": 0.5}], ids=str)
def test_the_closed_form_of_the_truth_is_what_experiments_show(small: Small, changes: dict) -> None:
    world = lab.make_world(small(**changes), 1)
    found, error = effects(world, 20), standard_errors(world)
    z = (found.mean(0) - world.change) / error * 20**0.5
    assert z.abs().max() < 4.5  # 48 normal values, and the standard errors are known to a tenth
    assert ((found - world.change) / error).square().mean().sqrt().item() == pytest.approx(1, abs=0.15)


def test_changes_have_both_signs_and_both_kinds_and_nothing_else_changes(small: Small) -> None:
    world = lab.make_world(small(), 0)
    changed = world.change != 0
    assert int(changed.sum()) == 6 and torch.equal(changed, (world.rate_change != 0) | (world.strength_change != 0))
    assert (world.change[changed] > 0).any() and (world.change[changed] < 0).any()
    assert torch.equal(world.change.sign(), (world.rate_change + world.strength_change).sign().double())
    assert (world.rate_change != 0).any() and (world.strength_change != 0).any()


def test_children_change_with_their_parent_and_fire_only_with_it(small: Small) -> None:
    world = lab.make_world(small(n_parents=3), 0)
    children = world.parent >= 0
    assert int(children.sum()) == 12
    parents_changed = (world.change != 0)[world.parent[children]]
    assert parents_changed.any() and (world.change[children][parents_changed] != 0).all()
    with seeded(1):
        codes = world.generator_for(world.log_odds, 1).sample(500)
    fires = codes > 0
    assert not (fires[:, children] & ~fires[:, world.parent[children]]).any() and fires[:, children].any()


def test_a_world_without_persona_has_no_vector_and_nuisance_is_marked(small: Small) -> None:
    assert not lab.make_world(small(n_planted=0), 0).vector.any()
    placebo = lab.make_world(small(n_planted=0, n_nuisance=6), 0)
    assert torch.equal(placebo.nuisance, placebo.change != 0) and placebo.nuisance.any()


def test_the_same_seed_gives_the_same_world_and_leaves_torch_alone(small: Small) -> None:
    before = torch.random.get_rng_state()
    one, same, other = (lab.make_world(small(), seed) for seed in (3, 3, 4))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(one.directions, same.directions) and torch.equal(one.change, same.change)
    assert not torch.equal(one.directions, other.directions)


def test_directions_have_unit_length_and_the_complement_is_orthogonal_to_them(small: Small) -> None:
    world = lab.make_world(small(), 0)
    torch.testing.assert_close(world.directions.norm(dim=1), torch.ones(48))
    assert world.complement.shape == (8, 56) and (world.complement @ world.directions.T).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"d_model": 40}, "48 features in 40 dimensions"), ({"n_planted": 20}, "20 of 48 features change"),
        ({"n_questions": 1}, "n_questions is 1"), ({"row_sd": -1.0}, "row_sd is -1.0"),
        ({"sink_share": 0.7}, "sink_share is 0.7"), ({"n_parents": 9}, "too many dense features and families"),
    ],
    ids=str,
)  # fmt: skip
def test_worlds_that_cannot_be_are_refused(small: Small, changes: dict, found: str) -> None:
    with pytest.raises(WorkbenchError, match=found):
        small(**changes)


def test_every_named_difficulty_says_what_is_hard_and_makes_a_world() -> None:
    for name, difficulty in lab.DIFFICULTIES.items():
        assert difficulty.name == name and difficulty.note.endswith(".")
        world = lab.make_world(replace(difficulty, n_questions=2), 0)
        assert bool((world.change != 0).any()) == (name != "null")

"""The experiment is laid out, filtered and weighted as the package does it, and its decomposition is the package's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import workbench.lab as lab
from workbench.decomposition.decompose import decompose
from workbench.lab.dictionaries import perfect
from workbench.lab.methods import shares

Small = Callable[..., lab.Difficulty]


def test_the_vector_is_the_balanced_difference_of_row_means_and_points_toward_the_persona(small: Small) -> None:
    world = lab.make_world(small(n_samples=2), 0)
    experiment = lab.run_experiment(world, 0)
    rows = experiment.vector.rows
    assert len(rows) == 12 * 5 * 2 * 2 and rows["weight"][rows["arm"] == "positive"].sum() == pytest.approx(1)
    means = {row: tokens.double().mean(0) for row, tokens in experiment.tokens.rows(lab.HOOK)}
    arms = [torch.stack([means[row] for row in rows["id"][rows["arm"] == arm]]).mean(0) for arm in ("positive", "negative")]
    torch.testing.assert_close(experiment.vector.direction.double(), arms[0] - arms[1], atol=1e-6, rtol=1e-5)
    assert torch.cosine_similarity(experiment.vector.direction.double(), world.vector, dim=0) > 0.7


def test_sinks_are_left_out_and_nothing_else_but_the_first_token(small: Small) -> None:
    plain = lab.run_experiment(lab.make_world(small(), 0), 0)
    assert plain.n_sinks == len(plain.vector.rows)
    experiment = lab.run_experiment(lab.make_world(small(sink_share=0.05), 0), 0)
    tokens = torch.cat([tokens for _, tokens in experiment.tokens.rows(lab.HOOK)])
    expected = len(experiment.vector.rows) * (1 + 0.05 * 12)
    assert abs(experiment.n_sinks - expected) < 5 * expected**0.5
    assert tokens.norm(dim=1).max() < 10 * tokens.norm(dim=1).median()


def test_the_tokens_of_a_row_are_alike(small: Small) -> None:
    """What makes single tokens a wrong unit: row means vary more than the tokens within rows would make them."""
    experiment = lab.run_experiment(lab.make_world(small(n_questions=20), 0), 0)
    sae = perfect(experiment.world)
    codes = torch.stack([sae.encode(tokens) for _, tokens in experiment.tokens.rows(lab.HOOK)])
    within = codes.var(dim=1).mean(dim=0) / codes.shape[1]
    assert (codes.mean(dim=1).var(dim=0) / within).median() > 1.2


def test_the_same_seed_gives_the_same_experiment(small: Small) -> None:
    world = lab.make_world(small(), 0)
    one, same, other = (lab.run_experiment(world, seed) for seed in (5, 5, 6))
    assert one.tokens.sha256 == same.tokens.sha256 != other.tokens.sha256
    assert torch.equal(one.true_codes, same.true_codes)


def test_the_whole_decomposition_runs_on_the_vector_and_gives_the_q_values_that_are_scored(small: Small) -> None:
    trial = lab.make_trial(small(n_questions=10), perfect, 0)
    parts = decompose(trial.experiment.vector, trial.sae, causal=False, n_bootstrap=20, n_atoms=4)
    assert parts.share_sum_error is not None and parts.share_sum_error < 1e-5
    found = shares(trial)
    assert found.q is not None
    torch.testing.assert_close(parts.q_value.nan_to_num(1.0), found.q)
    torch.testing.assert_close(parts.delta_code.double(), found.coefficients, atol=1e-6, rtol=1e-5)


def test_tokens_for_training_are_of_the_same_world_and_without_sinks(small: Small) -> None:
    world = lab.make_world(small(sink_share=0.02, bias_norm=5.0), 0)
    tokens = lab.sample_tokens(world, 4000)
    assert 3800 < len(tokens) <= 4096 and tokens.norm(dim=1).max() < 10 * tokens.norm(dim=1).median()
    codes = perfect(world).encode(tokens).double().mean(0)
    expected = (world.mean_codes(1) + world.mean_codes(-1)) / 2
    assert torch.corrcoef(torch.stack([codes, expected]))[0, 1] > 0.95

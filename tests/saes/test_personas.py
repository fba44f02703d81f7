"""Persona probing on planted rollouts: a feature that is the trait, codes that are not, questions that leak nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scipy.sparse import csr_matrix

from workbench.base.randomness import generator
from workbench.saes.evaluation.personas import (
    PersonaRollouts,
    persona_probing,
    persona_summary,
    top_persona_features,
)
from workbench.saes.evaluation.pooling import PooledRows

N_QUESTIONS, D_MODEL, D_SAE = 20, 8, 30


def _rollouts(seed: int = 0) -> tuple[PersonaRollouts, torch.Tensor]:
    """Two rows per question and arm; questions 0-11 make the probe, the others are scored."""
    random = generator(seed)
    question = torch.arange(N_QUESTIONS).repeat_interleave(4)
    positive = torch.tensor([True, True, False, False]).repeat(N_QUESTIONS)
    strength = torch.rand(len(question), generator=random)
    make = question < 12
    rollouts = PersonaRollouts(
        "planted", (), positive, question, 50 + 50 * strength.double(), ((make, ~make),), torch.eye(D_MODEL)[0]
    )
    return rollouts, strength


def _pooled(rollouts: PersonaRollouts, strength: torch.Tensor, seed: int = 0) -> PooledRows:
    random = generator(seed)
    n = len(strength)
    noise = torch.rand(n, D_SAE, generator=random) * (torch.rand(n, D_SAE, generator=random) < 0.3)
    codes = noise.clone()
    codes[:, 5] = rollouts.positive * (1 + strength)
    raw = torch.randn(n, D_MODEL, generator=random)
    raw[:, 0] += 6.0 * rollouts.positive
    return PooledRows(raw, {"sae": csr_matrix(codes.numpy()), "noise": csr_matrix(noise.numpy())}, torch.ones(n))


def test_a_feature_that_is_the_trait_leaves_no_gap_and_noise_leaves_half() -> None:
    rollouts, strength = _rollouts()
    found = persona_probing(rollouts, _pooled(rollouts, strength))["dictionaries"]
    assert found["raw"]["auc"] > 0.99
    assert found["sae"]["auc"] == 1
    assert found["sae"]["k_chosen"] == [1]
    assert found["sae"]["auc_by_k"]["1"] == 1
    assert abs(found["sae"]["gap"]) < 0.01
    assert found["noise"]["gap"] == pytest.approx(0.5, abs=0.25)
    assert found["noise"]["gap_interval"][0] > 0.1


def test_within_the_positive_arm_only_what_the_judge_sees_orders_rows() -> None:
    rollouts, strength = _rollouts()
    found = persona_probing(rollouts, _pooled(rollouts, strength))["dictionaries"]
    assert found["sae"]["within_positive"] == pytest.approx(1, abs=1e-9)  # the code grows with the judged strength
    assert abs(found["raw"]["within_positive"]) < 0.7  # 16 rows: the standard deviation of a null correlation is .26
    unjudged = replace(rollouts, judged=torch.full_like(rollouts.judged, torch.nan))
    assert persona_probing(unjudged, _pooled(rollouts, strength))["dictionaries"]["sae"]["within_positive"] is None


def test_shuffled_arms_look_unremarkable() -> None:
    areas = []
    for seed in range(12):
        rollouts, strength = _rollouts(seed)
        pooled = _pooled(rollouts, strength, seed)
        order = torch.randperm(len(strength), generator=generator(seed))
        shuffled = replace(rollouts, positive=rollouts.positive[order])
        areas.append(persona_probing(shuffled, pooled, ks=(1, 4))["dictionaries"]["sae"]["auc"])
    assert abs(sum(areas) / 12 - 0.5) < 0.1  # one AUC of 16 against 16 rows has a standard deviation of about .1


def test_a_run_without_both_arms_on_both_sides_is_not_measured() -> None:
    rollouts, strength = _rollouts()
    one_armed = replace(rollouts, positive=torch.ones_like(rollouts.positive))
    found = persona_probing(one_armed, _pooled(rollouts, strength))
    assert found["measured"] is False
    assert persona_summary([found], "sae")["persona_probe_gap"] is None


def test_the_summary_is_the_mean_over_measured_traits() -> None:
    rollouts, strength = _rollouts()
    found = persona_probing(rollouts, _pooled(rollouts, strength))
    other = {**found, "dictionaries": {k: {**v, "auc": v["auc"] - 0.1, "gap": 0.2} for k, v in found["dictionaries"].items()}}
    summary = persona_summary([found, other], "sae")
    assert summary["persona_probe_auc"] == pytest.approx(0.95)
    assert summary["persona_probe_gap"] == pytest.approx((found["dictionaries"]["sae"]["gap"] + 0.2) / 2)
    assert set(summary["persona_probe_auc_of"]) == {"sae", "noise"}


def test_the_top_features_are_those_with_the_largest_share_of_the_vector() -> None:
    rollouts, strength = _rollouts()
    decoder = torch.zeros(D_SAE, D_MODEL)
    decoder[:, 3] = 1.0  # orthogonal to the vector
    decoder[5, 0] = decoder[9, 0] = 1.0
    codes = torch.zeros(len(strength), D_SAE)
    codes[:, 5] = 2.0 * rollouts.positive
    codes[:, 9] = 0.5 * ~rollouts.positive
    features, shares = top_persona_features(rollouts, csr_matrix(codes.numpy()), decoder, n=2)
    assert features == [5, 9]
    assert shares == pytest.approx([2.0, -0.5])

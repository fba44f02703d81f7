"""Sign flips: against enumeration by hand, scipy, and their own false positive rate."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import permutation_test, ttest_1samp
from torch import Tensor

import workbench.maths.signflips as signflips
from workbench.maths.signflips import sign_flip_test, sign_patterns
from workbench.maths.statistics import benjamini_hochberg


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def brute_force(differences: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """p and max-T p by computing every t statistic of every pattern."""
    values = differences.numpy()
    signs = np.array(list(itertools.product([1, -1], repeat=len(values))))
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.abs(
            np.nan_to_num(
                [ttest_1samp(row[:, None] * values, 0).statistic for row in signs], posinf=1e9, neginf=-1e9
            )
        )
    observed = t[0] * (1 - 1e-9)
    return (t >= observed).mean(0), (t.max(1)[:, None] >= observed).mean(0)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 8), st.integers(1, 5))
def test_p_and_family_p_equal_enumeration_of_t_statistics(seed: int, n: int, features: int) -> None:
    differences = randn(n, features, seed=seed) + 0.5
    p, p_family = brute_force(differences)
    found = sign_flip_test(differences)
    assert found.exact and found.family_exact and found.n_patterns == 2**n
    assert found.p.tolist() == pytest.approx(p.tolist(), abs=1e-12)
    assert found.p_family.tolist() == pytest.approx(p_family.tolist(), abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.integers(-2, 2), min_size=6, max_size=6), min_size=1, max_size=4))
def test_ties_count_as_exceedances(rows: list[list[int]]) -> None:
    differences = torch.tensor(rows, dtype=torch.float64).T
    signs = sign_patterns(6).double()
    sums = (signs @ differences).abs()
    expected = (sums >= differences.sum(0).abs() - 1e-9).double().mean(0)
    assert sign_flip_test(differences).p.tolist() == pytest.approx(expected.tolist())


def test_p_equals_the_permutation_test_of_scipy() -> None:
    values = randn(9, seed=4) + 0.4
    expected = permutation_test((values.numpy(),), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_test(values[:, None]).p.item() == pytest.approx(expected.pvalue)


def test_twenty_questions_that_agree_give_the_smallest_p() -> None:
    differences = torch.cat([randn(20, 1).abs(), -randn(20, 1, seed=1).abs(), torch.zeros(20, 1)], dim=1)
    found = sign_flip_test(differences)
    assert found.p.tolist() == [2 / 2**20, 2 / 2**20, 1.0]
    assert found.p_family[2] == 1.0
    assert (found.p_family >= found.p).all()


def test_scale_of_a_feature_and_sign_of_everything_do_not_matter() -> None:
    differences = randn(10, 6, seed=2) + 0.3
    scales = torch.tensor([1e-6, 1.0, 7.0, 1e5, 0.1, 3.0], dtype=torch.float64)
    one, other = sign_flip_test(differences), sign_flip_test(-differences * scales)
    torch.testing.assert_close(one.p, other.p)
    torch.testing.assert_close(one.p_family, other.p_family)


def test_more_than_twenty_questions_use_seeded_random_flips_and_say_so() -> None:
    differences = randn(24, 3, seed=3) + torch.tensor([0.0, 0.3, 2.0], dtype=torch.float64)
    found = sign_flip_test(differences, seed=1)
    assert not found.exact and found.n_patterns == signflips.N_RANDOM_FLIPS
    assert found.p[2].item() == pytest.approx(1 / 100_001)
    assert torch.equal(found.p, sign_flip_test(differences, seed=1).p)
    # The middle feature against the exact p (meeting in the middle has no limit of its own): 5 standard errors.
    exact = signflips.exact_p(differences / differences.norm(dim=0))[1].item()
    assert abs(found.p[1].item() - exact) < 5 * (exact * (1 - exact) / 1e5) ** 0.5 + 1e-5


def test_too_many_sums_make_only_the_family_p_random(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = randn(12, 5, seed=8) + 0.4
    exact = sign_flip_test(differences)
    monkeypatch.setattr(signflips, "MAX_EXACT_SUMS", 10)
    found = sign_flip_test(differences)
    assert found.exact and not found.family_exact
    assert torch.equal(found.p, exact.p)
    assert (found.p_family - exact.p_family).abs().max() < 0.01


def test_symmetric_noise_gives_uniform_p_and_keeps_false_discoveries_and_families_at_their_rate() -> None:
    """200 seeded families of 40 null features with a common part: rates must stay within 3 standard errors."""
    p_values, any_family, any_bh = [], 0, 0
    for seed in range(200):
        noise = randn(10, 40, seed=seed) + 0.7 * randn(10, 1, seed=1000 + seed)
        found = sign_flip_test(noise)
        p_values.append(found.p)
        any_family += bool((found.p_family <= 0.05).any())
        any_bh += bool((benjamini_hochberg(found.p) <= 0.05).any())
    standard_error = (0.05 * 0.95 / 200) ** 0.5
    assert any_family / 200 <= 0.05 + 3 * standard_error
    assert any_bh / 200 <= 0.05 + 3 * standard_error
    # Features of a family are correlated, so the spread of a rate is that of 200 families, at most.
    pooled = torch.cat(p_values)
    for level in (0.05, 0.2, 0.5):
        assert abs((pooled <= level).double().mean().item() - level) < 3 * (level * (1 - level) / 200) ** 0.5


def test_one_question_and_nan_are_refused() -> None:
    with pytest.raises(ValueError, match="n_questions >= 2"):
        sign_flip_test(torch.ones(1, 3))
    with pytest.raises(ValueError, match="finite"):
        sign_flip_test(torch.full((3, 1), torch.nan))


def test_sign_patterns_are_all_different_and_the_first_half_fixes_the_last_sign() -> None:
    patterns = sign_patterns(5)
    assert len({tuple(row) for row in patterns.tolist()}) == 32
    assert (patterns[:16, -1] == 1).all()

"""Exact sign-flip tests over questions, for thousands of features at once, with family-wise p-values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

MAX_EXACT_QUESTIONS = 20
N_RANDOM_FLIPS = 100_000
MAX_EXACT_SUMS = 2**35  # pattern x feature sums for max-T: beyond it (some 20 s) random patterns are used
_FEATURE_BLOCK = 1024
_PATTERN_BLOCK = 512


@dataclass(frozen=True, eq=False)
class SignFlips:
    """Two-sided p-values `p [F]` and max-T family-wise `p_family [F]` (float64).

    `n_patterns` sign patterns stand behind `p` and `n_family_patterns` behind `p_family`; `exact` and
    `family_exact` say whether those are all patterns (the identity among them) or random ones.
    """

    p: Tensor
    p_family: Tensor
    n_patterns: int
    n_family_patterns: int
    exact: bool
    family_exact: bool


def sign_flip_test(differences: Tensor, *, seed: int = 0, family: bool = True) -> SignFlips:
    """Test that the differences per question `[n_questions, F]` are symmetric around 0, feature by feature.

    Under the hypothesis every question's difference may change its sign (the whole row of F features together, so
    that the dependence between features is kept). The statistic is the studentised mean |t_j|. Flips do not change
    sum_q d_qj^2, so |t_j| is a growing function of u_j = |sum_q s_q d_qj| / (sum_q d_qj^2)^(1/2), the same function
    for all features: comparing u is comparing t, and is what is computed.

        p_j        = share of sign patterns with u_j(s) >= u_j(observed)
        p_family_j = share of sign patterns with max_k u_k(s) >= u_j(observed)      (max-T, Westfall and Young 1993)

    Up to 20 questions all 2^n patterns are used: `p` by meeting in the middle (all signed sums of each half of the
    questions, sorted and matched, exact and independent of F's size), `p_family` by blocked matrix products over
    the 2^(n-1) patterns that differ by more than a global sign. The smallest p is 2 / 2^n. Beyond 20 questions
    100,000 seeded random patterns are used, p = (1 + exceedances) / (1 + 100,000), and `exact` is False; the same
    holds for `p_family` alone when patterns x features pass 2^35. Ties count as exceedances. A feature that is 0
    everywhere has p = 1 and p_family = 1. `family=False` skips max-T (p_family is NaN).

    Raises ValueError for fewer than 2 questions or values that are not finite.
    """
    n_questions = _check(differences)
    norms = differences.double().norm(dim=0)
    active = norms > 0
    unit = differences.double()[:, active] / norms[active]
    exact = n_questions <= MAX_EXACT_QUESTIONS
    family_exact = exact and unit.shape[1] << (n_questions - 1) <= MAX_EXACT_SUMS
    p = torch.ones(differences.shape[1], dtype=torch.float64)
    p_family = torch.full_like(p, 1.0 if family else math.nan)
    if active.any():
        p[active] = exact_p(unit) if exact else _random_p(unit, seed)
        if family:
            p_family[active] = _family_p(unit, exact=family_exact, seed=seed)
    all_patterns = 2**n_questions
    return SignFlips(
        p, p_family,
        all_patterns if exact else N_RANDOM_FLIPS, all_patterns if family_exact else N_RANDOM_FLIPS,
        exact, family_exact,
    )  # fmt: skip


def _check(differences: Tensor) -> int:
    if differences.ndim != 2 or differences.shape[0] < 2:
        raise ValueError(
            f"Expected differences [n_questions >= 2, n_features], found {tuple(differences.shape)}."
        )
    if not torch.isfinite(differences).all():
        raise ValueError("Some differences are NaN or infinite: every question needs a finite difference.")
    return differences.shape[0]


def sign_patterns(n: int, *, start: int = 0, stop: int | None = None) -> Tensor:
    """Rows start..stop of all 2^n sign patterns of n items, `[stop - start, n]` of +1 and -1 (float32).

    Row i has -1 where the bits of i are set; the first half of all rows are the patterns whose last item is +1.
    """
    index = torch.arange(start, 2**n if stop is None else stop)
    return 1.0 - 2.0 * ((index[:, None] >> torch.arange(n)) & 1).float()


def exact_p(unit: Tensor) -> Tensor:
    """The exact two-sided p `[F]` of columns `unit [n, F]` over all 2^n sign patterns, by meeting in the middle."""
    return torch.cat([_exact_p_block(columns) for columns in unit.split(_FEATURE_BLOCK, dim=1)])


def _exact_p_block(unit: Tensor) -> Tensor:
    n, half = unit.shape[0], unit.shape[0] // 2
    first = (sign_patterns(half).double() @ unit[:half]).T.contiguous()
    second = (sign_patterns(n - half).double() @ unit[half:]).T.sort(dim=1).values.contiguous()
    # The tolerance makes equal sums ties although their terms were added in another order.
    threshold = unit.sum(dim=0).abs() - 1e-9 * math.sqrt(n)
    below = torch.searchsorted(second, threshold[:, None] - first, right=False)
    at_least = (second.shape[1] - below).sum(dim=1).double()
    # By symmetry as many patterns lie at or below -threshold; with a threshold <= 0 every pattern is an exceedance.
    return torch.where(threshold > 0, 2 * at_least / 2**n, torch.ones_like(at_least)).clamp_max(1)


def _random_patterns(n: int, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, N_RANDOM_FLIPS, _PATTERN_BLOCK):
        rows = min(_PATTERN_BLOCK, N_RANDOM_FLIPS - start)
        yield 1.0 - 2.0 * torch.randint(2, (rows, n), generator=generator).float()


def _exact_patterns(n: int) -> Iterator[Tensor]:
    total = 2 ** (n - 1)
    for start in range(0, total, _PATTERN_BLOCK):
        yield sign_patterns(n, start=start, stop=min(start + _PATTERN_BLOCK, total))


def _random_p(unit: Tensor, seed: int) -> Tensor:
    small, observed = unit.float(), _observed(unit)
    exceed = torch.zeros(unit.shape[1], dtype=torch.int64)
    for patterns in _random_patterns(unit.shape[0], seed):
        for start in range(0, unit.shape[1], _FEATURE_BLOCK):
            columns = slice(start, start + _FEATURE_BLOCK)
            exceed[columns] += ((patterns @ small[:, columns]).abs_() >= observed[columns]).sum(dim=0)
    return (1 + exceed).double() / (1 + N_RANDOM_FLIPS)


def _observed(unit: Tensor) -> Tensor:
    """u observed, lowered by the rounding of float32 sums so that ties count as exceedances."""
    return (unit.sum(dim=0).abs() - 1e-6 * math.sqrt(unit.shape[0])).float()


def _family_p(unit: Tensor, *, exact: bool, seed: int) -> Tensor:
    n = unit.shape[0]
    patterns = _exact_patterns(n) if exact else _random_patterns(n, seed)
    maxima = torch.cat([_largest(block, unit.float()) for block in patterns]).sort().values
    exceed = maxima.shape[0] - torch.searchsorted(maxima, _observed(unit), right=False)
    return exceed.double() / maxima.shape[0] if exact else (1 + exceed).double() / (1 + maxima.shape[0])


def _largest(patterns: Tensor, unit: Tensor) -> Tensor:
    """max_k |sum_q s_q u_qk| for each pattern `[rows]`, in blocks of features that fit the cache."""
    largest = torch.zeros(patterns.shape[0])
    for columns in unit.split(_FEATURE_BLOCK, dim=1):
        torch.maximum(largest, (patterns @ columns).abs_().amax(dim=1), out=largest)
    return largest

"""Tests of a mean over two crossed random factors, for thousands of features at once, with moderated variances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class CrossedTest:
    """Two-sided `p [F]` (float64; 1 where nothing varies), the `variance [F]` of the mean and its degrees of freedom `df [F]`.

    `ratio_df` says how alike the features are in what the second factor does to them: the degrees of freedom that each
    feature's variance borrowed from all others (infinite = alike).
    """

    p: Tensor
    variance: Tensor
    df: Tensor
    ratio_df: float


def crossed_test(effect: Tensor, first: Tensor, second: Tensor, residual: Tensor) -> CrossedTest:
    """Test that the mean `effect [F]` over questions crossed with instructions is 0, both taken as draws from many.

    Deviations from the effect, each on the effect's own scale (they are parts of it and sum to 0): `first [Q, F]` per question,
    `second [I, F]` per instruction, `residual [N, F]` per cell with both taken out. Each sum of squares, with its degrees of
    freedom, estimates a variance of the mean:

        V_Q = Q / (Q - 1) sum_q first^2,   V_I = I / (I - 1) sum_i second^2,   V_E = N / (N - Q - I + 1) sum_n residual^2
        Var = V_Q + max(V_I - V_E, 0)           (V_Q and V_I both hold the residual's share)
        t   = effect / Var^(1/2), with the degrees of freedom of Satterthwaite (1946)

    Five instructions say little about V_I of one feature. Its ratio to V_E is therefore moderated over all features
    (`moderated`; Smyth 2004): where instructions do the same to all features, nothing or a lot, V_I is known almost exactly.
    A test over questions alone takes what the wording of these five instructions does for an effect of the trait (Clark 1973,
    the language-as-fixed-effect fallacy).

    Raises ValueError for fewer than two questions or instructions, or without residual degrees of freedom.
    """
    n_first, n_second, n_cells = len(first), len(second), len(residual)
    residual_df = n_cells - n_first - n_second + 1
    if min(n_first, n_second) < 2 or residual_df < 1:
        raise ValueError(
            f"Expected two or more of both factors and more cells than those, found {n_first} x {n_second} in {n_cells} cells."
        )
    by_first = n_first / (n_first - 1) * first.double().square().sum(dim=0)
    by_second = n_second / (n_second - 1) * second.double().square().sum(dim=0)
    left = n_cells / residual_df * residual.double().square().sum(dim=0)
    known = (left > 0) & (by_second > 0)
    ratio = torch.ones_like(left)
    ratio[known], ratio_df = moderated((by_second / left)[known], n_second - 1)
    excess = ((ratio - 1) * left).clamp_min(0)
    variance = by_first + excess
    df = variance.square() / (by_first.square() / (n_first - 1) + excess.square() / ratio_df).clamp_min(1e-300)
    return CrossedTest(_two_sided(effect.double(), variance, df), variance, df, ratio_df)


def moderated(variances: Tensor, df: float) -> tuple[Tensor, float]:
    """Variances `[F] > 0` of `df` degrees of freedom shrunk toward a common one, and the degrees of freedom they then have.

    Empirical Bayes with a scaled inverse chi-square prior, fitted by the moments of log variances (Smyth 2004, "Linear models
    and empirical Bayes methods", section 6.2): s^2 -> (d0 s0^2 + df s^2) / (d0 + df) with d0 + df degrees of freedom. d0 is
    infinite when the variances differ no more than chance makes them. Fewer than three variances are left as they are.
    """
    from scipy.optimize import brentq
    from scipy.special import digamma, polygamma

    if len(variances) < 3:
        return variances, df
    logs = np.log(variances.double().numpy()) - digamma(df / 2) + np.log(df / 2)
    spread = logs.var(ddof=1) - polygamma(1, df / 2)
    if spread <= polygamma(1, 1e6):
        return torch.full_like(variances, float(np.exp(logs.mean()))), float("inf")
    prior_df = 2 * float(brentq(lambda half: polygamma(1, half) - spread, 1e-6, 1e6))  # pyright: ignore[reportArgumentType]
    prior = float(np.exp(logs.mean() + digamma(prior_df / 2) - np.log(prior_df / 2)))
    return (prior_df * prior + df * variances) / (prior_df + df), prior_df + df


def _two_sided(effect: Tensor, variance: Tensor, df: Tensor) -> Tensor:
    from scipy.stats import t

    p, varies = torch.ones_like(effect), variance > 0
    size = (effect.abs() / variance.sqrt())[varies]
    p[varies] = torch.from_numpy(2 * t.sf(size.numpy(), df[varies].numpy()))
    return p

"""Tests of a mean over two crossed random factors, for thousands of features at once, with moderated variances."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

OUTLYING_P = 0.01
MAX_PRIOR_DF = 1e6


@dataclass(frozen=True, eq=False)
class CrossedTest:
    """Two-sided `p [F]` (float64; 1 where nothing varies), the `variance [F]` of the mean and its degrees of freedom `df [F]`.

    `question_df` and `instruction_df` say how alike the features are in what questions and instructions do to them: the
    median degrees of freedom of a feature's variance with what it borrowed from all others (infinite = alike).
    """

    p: Tensor
    variance: Tensor
    df: Tensor
    question_df: float
    instruction_df: float


def crossed_test(effect: Tensor, questions: Tensor, instructions: Tensor, residual: Tensor) -> CrossedTest:
    """Test that the mean `effect [F]` over questions crossed with instructions is 0, both taken as draws from many.

    Deviations from the effect, each on the effect's own scale (they are parts of it and sum to 0): `questions [Q, F]`,
    `instructions [I, F]`, and `residual [N, F]` per cell with both taken out. Each sum of squares, with its degrees of
    freedom, estimates a variance of the mean:

        V_Q = Q / (Q - 1) sum questions^2,   V_I = I / (I - 1) sum instructions^2,   V_E = N / (N - Q - I + 1) sum residual^2
        Var = V_Q + max(V_I - V_E, 0)           (V_Q and V_I both hold the residual's share)
        t   = effect / Var^(1/2), with the degrees of freedom of Satterthwaite (1946)

    Five instructions say little about V_I of one feature. The ratios V_Q / V_E and V_I / V_E are therefore moderated over all
    features (`moderated`; Smyth 2004): where instructions do the same to all, nothing or a lot, V_I is known almost exactly;
    where they do much to few, each feature's own V_I counts. A test over questions alone takes what the wording of these
    five instructions does for an effect of the trait (Clark 1973, the language-as-fixed-effect fallacy).

    Raises ValueError for fewer than two questions or instructions, or without residual degrees of freedom.
    """
    n_questions, n_instructions, n_cells = len(questions), len(instructions), len(residual)
    residual_df = n_cells - n_questions - n_instructions + 1
    if min(n_questions, n_instructions) < 2 or residual_df < 1:
        raise ValueError(
            "Expected two or more questions and instructions and more cells than those, "
            f"found {n_questions} x {n_instructions} in {n_cells} cells."
        )
    left = n_cells / residual_df * residual.double().square().sum(dim=0)
    by_question, question_df = _moderated_part(questions, left)
    by_instruction, instruction_df = _moderated_part(instructions, left)
    excess = (by_instruction - left).clamp_min(0)
    variance = by_question + excess
    # Both parts are a ratio times V_E, and are no better known than that.
    doubt = by_question.square() * (1 / question_df + 1 / residual_df) + excess.square() * (1 / instruction_df + 1 / residual_df)
    df = variance.square() / doubt.clamp_min(1e-300)
    return CrossedTest(
        _two_sided(effect.double(), variance, df), variance, df, float(question_df.median()), float(instruction_df.median())
    )


def _moderated_part(deviations: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
    """(variance of the mean by these deviations, its degrees of freedom) `[F]`, its ratio to the residual's moderated."""
    n = len(deviations)
    variance = n / (n - 1) * deviations.double().square().sum(dim=0)
    known = (left > 0) & (variance > 0)
    moderate, df = variance.clone(), torch.full_like(variance, float(n - 1))
    ratio, df[known] = moderated((variance / left)[known], n - 1)
    moderate[known] = ratio * left[known]
    return moderate, df


def moderated(variances: Tensor, df: float) -> tuple[Tensor, Tensor]:
    """Variances `[F] > 0` of `df` degrees of freedom shrunk toward a common one, and the degrees of freedom they then have.

    Empirical Bayes with a scaled inverse chi-square prior, fitted by the moments of log variances (Smyth 2004, "Linear models
    and empirical Bayes methods", section 6.2): s^2 -> (d0 s0^2 + df s^2) / (d0 + df) with d0 + df degrees of freedom. d0 is
    infinite when the variances differ no more than chance makes them. One that exceeds what the prior allows (p < .01) is
    left as it is, with its own df: it is not like the others (the concern of Phipson et al. 2016, "Robust hyperparameter
    estimation"). Fewer than three variances are all left as they are.
    """
    from scipy.special import digamma, polygamma
    from scipy.stats import chi2, f

    own = torch.full((len(variances),), float(df), dtype=torch.float64)
    if len(variances) < 3:
        return variances, own
    logs = np.log(variances.double().numpy()) - digamma(df / 2) + np.log(df / 2)
    prior_df = _prior_df(float(logs.var(ddof=1) - polygamma(1, df / 2)))
    if math.isinf(prior_df):
        prior = math.exp(logs.mean())
        shrunk, beyond = torch.full_like(variances, prior), chi2.sf(df * (variances / prior).numpy(), df)
    else:
        prior = math.exp(logs.mean() + digamma(prior_df / 2) - math.log(prior_df / 2))
        shrunk = (prior_df * prior + df * variances) / (prior_df + df)
        beyond = f.sf((variances / prior).numpy(), df, prior_df)
    alike = torch.from_numpy(np.asarray(beyond)) >= OUTLYING_P
    return torch.where(alike, shrunk, variances), torch.where(alike, prior_df + df, own)


def _prior_df(excess: float) -> float:
    """The degrees of freedom d0 of a prior whose log variances vary by `excess` = trigamma(d0 / 2)."""
    from scipy.optimize import brentq
    from scipy.special import polygamma

    if excess <= polygamma(1, MAX_PRIOR_DF / 2):
        return math.inf
    return 2 * float(brentq(lambda half: polygamma(1, half) - excess, 1e-6, MAX_PRIOR_DF / 2))  # pyright: ignore[reportArgumentType]


def _two_sided(effect: Tensor, variance: Tensor, df: Tensor) -> Tensor:
    from scipy.stats import t

    p, varies = torch.ones_like(effect), variance > 0
    size = (effect.abs() / variance.sqrt())[varies]
    p[varies] = torch.from_numpy(2 * t.sf(size.numpy(), df[varies].numpy()))
    return p

"""The oracle that methods are measured against: it knows the dictionary and the noise."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from workbench.base.randomness import derive_seed, generator
from workbench.maths.statistics import benjamini_hochberg

from .dictionaries import perfect, truth_of
from .methods import Findings, Trial
from .scores import Score, score
from .world import STRENGTH_SPREAD, World

N_REPLICATES = 200


def oracle(trial: Trial) -> Score:
    """The score of the oracle in the trial's experiment, on the true features.

    It reads the true activations and compares each feature's difference of means with the standard error that experiments
    of this design have where nothing changes (`standard_errors`), which no method can know. Two-sided z-tests,
    Benjamini-Hochberg.
    """
    rows = trial.experiment.vector.rows
    effect = torch.tensor(rows["weight"].tolist(), dtype=torch.float64) @ trial.experiment.true_codes
    nothing = torch.zeros(trial.world.n_features)
    unchanged = replace(trial.world, rate_change=nothing, strength_change=nothing)
    z = effect.abs() / standard_errors(unchanged)
    findings = Findings(effect, z, benjamini_hochberg(torch.erfc(z / 2**0.5)))
    exact = perfect(trial.world)
    return score(replace(trial, sae=exact, truth=truth_of(trial.world, exact)), findings)


def standard_errors(world: World, n_replicates: int = N_REPLICATES) -> Tensor:
    """The sd over experiments of every feature's difference of means, questions, instructions and wordings drawn anew.

    `[n_features]` float64: the variance between experiments of the rows' expected means (from `n_replicates` seeded draws)
    plus that of tokens within rows (in closed form).
    """
    d, sds, source = world.difficulty, world.sds, generator(derive_seed("lab", "standard errors"))

    def effect(name: str, *sizes: int) -> Tensor:
        return sds[name] * torch.randn(n_replicates, *sizes, world.n_features, generator=source)

    shared = effect("question", d.n_questions, 1, 1) + effect("instruction", 1, d.n_instructions, 1)
    means, within = torch.zeros(n_replicates, world.n_features, dtype=torch.float64), torch.zeros(world.n_features)
    n_rows = d.n_questions * d.n_instructions * d.n_samples
    for sign in (1, -1):
        odds = world.log_odds + sign * world.rate_change / 2 + shared + effect("interaction", d.n_questions, 1, 1)
        odds = odds + effect("wording", 1, d.n_instructions, 1)
        rates = torch.sigmoid(odds + effect("row", d.n_questions, d.n_instructions, d.n_samples))
        rates = rates * torch.where(world.parent >= 0, rates[..., world.parent.clamp_min(0)], 1.0)
        strength = world.mean_strengths(sign).float()
        means += sign * (rates * strength).mean(dim=(1, 2, 3)).double()
        of_token = strength.square() * (rates * (1 + STRENGTH_SPREAD**2) - rates.square())
        within = within + of_token.mean(dim=(0, 1, 2, 3)) / (n_rows * d.n_tokens)
    return (means.var(dim=0) + within.double()).sqrt()

"""How right a method was in one trial: false discoveries, power, signs, energy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.decomposition.methods import decoder_of

from .dictionaries import Truth
from .methods import Findings, Trial

LEVELS = (0.05, 0.1, 0.2)
N_TOP = 10


@dataclass(frozen=True)
class Score:
    """The figures of one method in one trial.

    `false_share` per level of `LEVELS`: discoveries of null latents over discoveries (0 without any). The others at .05:
    `power` = found changed features, with their sign, over changed features; `wrong_signs` and `nuisance` = true discoveries
    of the wrong sign, and of features that are none of the persona's; `leaks` = discoveries of latents whose own feature does
    not change; `energy_error` = |found part - planted vector|^2 / |planted vector|^2; `precision`, `recall` of the ten
    latents that rank first. None where nothing was planted.
    """

    false_share: tuple[float, ...]
    n_discoveries: int
    wrong_signs: int
    nuisance: int
    leaks: int
    power: float | None
    energy_error: float | None
    precision: float | None
    recall: float | None


def score(trial: Trial, findings: Findings) -> Score:
    """The figures of a method's findings."""
    world, truth = trial.world, trial.truth
    found = [_discovered(findings, level, trial.n_true) for level in LEVELS]
    first, signs = found[0], findings.coefficients.double().sign().long()
    right = first & (truth.change != 0)
    of_feature = torch.where(truth.feature >= 0, world.change[truth.feature.clamp_min(0)].sign().long(), 0)
    top = findings.ranking.topk(min(N_TOP, len(findings.ranking))).indices
    planted = bool((world.change != 0).any())
    return Score(
        false_share=tuple(_false_share(one, truth) for one in found),
        n_discoveries=int(first.sum()),
        wrong_signs=int((right & (signs != truth.change)).sum()),
        nuisance=int((right & (truth.feature >= 0) & world.nuisance[truth.feature.clamp_min(0)]).sum()),
        leaks=int((first & (of_feature == 0)).sum()),
        power=_power(trial, first & (signs == of_feature), of_feature),
        energy_error=_energy_error(trial, findings, first) if planted else None,
        precision=float((truth.change[top] != 0).double().mean()) if planted else None,
        recall=_features(top[truth.change[top] != 0], truth) / min(N_TOP, _n_changed(trial)) if planted else None,
    )


def _discovered(findings: Findings, level: float, n_true: int) -> Tensor:
    """Which latents are found `[d_sae]`: by q, or the first `n_true` that are not zero."""
    if findings.q is not None:
        return findings.q <= level
    chosen = torch.zeros(len(findings.ranking), dtype=torch.bool)
    chosen[findings.ranking.topk(min(n_true, len(chosen))).indices] = True
    return chosen & (findings.ranking > 0)


def _false_share(found: Tensor, truth: Truth) -> float:
    return float((found & (truth.change == 0)).sum() / found.sum().clamp_min(1))


def _n_changed(trial: Trial) -> int:
    return int((trial.world.change != 0).sum())


def _features(latents: Tensor, truth: Truth) -> int:
    """How many true features these latents stand for."""
    return len({feature for feature in truth.feature[latents].tolist() if feature >= 0})


def _power(trial: Trial, right: Tensor, of_feature: Tensor) -> float | None:
    total = _n_changed(trial)
    return _features((right & (of_feature != 0)).nonzero().flatten(), trial.truth) / total if total else None


def _energy_error(trial: Trial, findings: Findings, found: Tensor) -> float:
    rebuilt = (findings.coefficients.double() * found) @ decoder_of(trial.sae).double()
    planted = trial.world.vector
    return float((rebuilt - planted).square().sum() / planted.square().sum())

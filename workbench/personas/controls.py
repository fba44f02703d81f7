"""The controls of one vector: placebo directions, A/A splits of its instructions, how large its effect is.

Placebos: max(AUC, 1 - AUC) of every placebo direction on the trait's own evaluation rows, re-encoded without the system
prompt. The trait's AUC is signed and has to beat them all the same.
A/A: the positive instructions divided two against the rest in all ways; the contrast between two halves of the *same*
stance says how much of |v| any two sets of instructions give.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from workbench.base.randomness import derive_seed, generator
from workbench.maths.separation import balanced_contrast_weights
from workbench.maths.statistics import auc, percentile_interval, rank_p
from workbench.personas.evidence import code_rows
from workbench.personas.placebos import PlaceboVectors
from workbench.personas.runs import HeldOut, PersonaRun, held_out, stripped_gram
from workbench.personas.separability import Cell, Rows


def placebo_evidence(run: PersonaRun, placebos: PlaceboVectors, auc_stripped: float) -> dict[str, Any]:
    """{auc_placebo_q95, auc_placebo_max, auc_placebo_p, nearest_placebo, cosine_nearest, n_placebos, related_placebos,
    auc_unrelated_q95} for one trait.

    All placebos count, those that come close to the trait (terse for apathetic) too: they are the hardest. Without them
    the 95th percentile is auc_unrelated_q95. auc_placebo_p = (1 + #{placebos at least as high}) / (1 + n): with 24
    placebos at best .04.
    """
    directions, names = placebos.at(run.hook), placebos.names
    unrelated = placebos.unrelated(run.trait)
    parts = held_out(run, n_bootstrap=0, generator=generator(0))
    areas = folded_aucs(directions, run.score.without_system[:, 0], parts.scored, parts.cells)
    cosines = torch.cosine_similarity(directions, run.direction[None], dim=1)
    nearest = int(cosines.abs().argmax())
    return {
        "auc_placebo_q95": float(torch.quantile(areas, 0.95)),
        "auc_placebo_max": float(areas.max()),
        "auc_placebo_p": float(rank_p(auc_stripped, areas)),
        "auc_unrelated_q95": float(torch.quantile(areas[unrelated], 0.95)) if unrelated else None,
        "n_placebos": len(names),
        "related_placebos": [name for i, name in enumerate(names) if i not in unrelated],
        "nearest_placebo": names[nearest],
        "cosine_nearest": float(cosines[nearest]),
    }


def folded_aucs(directions: Tensor, scored: Tensor, rows: Rows, cells: tuple[Cell, ...]) -> Tensor:
    """max(AUC, 1 - AUC) `[n]` of fixed directions `[n, d_model]`, mean over the cells before folding."""
    scores = directions.float() @ scored.float().T
    areas = [auc(scores[:, cell.score], rows.positive[cell.score]) for cell in cells]
    mean = torch.stack(areas).mean(dim=0)
    return torch.maximum(mean, 1 - mean)


def effect_size(run: PersonaRun, *, n_bootstrap: int = 500, seed: int = 0) -> dict[str, Any]:
    """Cohen's d of the held-out projections (stripped rows, unseen questions x instructions), with its interval.

    d = (mean_positive - mean_negative) / sqrt((var_positive + var_negative) / 2), mean over the divisions of the
    instructions; intervals from the crossed bootstrap of `separability`.
    """
    parts = held_out(run, n_bootstrap=n_bootstrap, generator=generator(derive_seed("effect size", seed)))
    means = _cell_effects(run, parts).nanmean(dim=1)
    low, high = percentile_interval(means[1:]) if n_bootstrap else (means[0], means[0])
    return {"effect_size": float(means[0]), "effect_size_interval": [float(low), float(high)]}


def _cell_effects(run: PersonaRun, parts: HeldOut) -> Tensor:
    gram = stripped_gram(run)
    rows = parts.scored
    counts = parts.draws.score_questions[:, rows.question] * parts.draws.instructions[:, rows.instruction]
    columns = []
    for weight, cell in zip(parts.weights, parts.cells, strict=True):
        here = cell.score.nonzero().flatten()
        columns.append(cohens_d(weight @ gram[:, here], rows.positive[here], counts[:, here]))
    return torch.stack(columns, dim=1)


def cohens_d(scores: Tensor, positive: Tensor, weights: Tensor) -> Tensor:
    """Cohen's d `[B]` of weighted scores `[B, n]`: difference of the arms' means over the root of their mean variance."""
    moments = []
    for arm in (positive, ~positive):
        mass = weights[:, arm].sum(dim=1)
        mean = (weights[:, arm] * scores[:, arm]).sum(dim=1) / mass
        spread = (weights[:, arm] * (scores[:, arm] - mean[:, None]) ** 2).sum(dim=1) / mass
        moments.append((mean, spread))
    (above, v1), (below, v2) = moments
    return (above - below) / ((v1 + v2) / 2).sqrt()


def aa_evidence(run: PersonaRun) -> dict[str, Any]:
    """{aa_norm_ratio, aa_cosine_max, n_aa}: A/A contrasts inside the positive arm, against v itself.

    aa_norm_ratio: median |v_AA| / |v| over all ways to take two of the positive instructions against the others, made
    from the same rows as v. Near 1, the trait differs from its opposite no more than two ways of asking for it do.
    """
    rows = code_rows(run.make.frame)
    means = run.make.with_system[:, 0].double()
    v = balanced_contrast_weights(rows.question, rows.positive, rows.keep[None])[0] @ means
    splits = list(combinations(range(int(rows.instruction.max()) + 1), 2))
    if len(splits) < 3:
        return {"aa_norm_ratio": None, "aa_cosine_max": None, "n_aa": 0}
    base = (rows.keep * rows.positive)[None]
    contrasts = [
        balanced_contrast_weights(rows.question, torch.isin(rows.instruction, torch.tensor(pair)), base)[0]
        @ means
        for pair in splits
    ]
    made = torch.stack([one for one in contrasts if bool(one.any())])
    return {
        "aa_norm_ratio": float((made.norm(dim=1) / v.norm()).median()),
        "aa_cosine_max": float(torch.cosine_similarity(made, v[None], dim=1).abs().max()),
        "n_aa": len(made),
    }

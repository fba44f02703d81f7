"""Monitoring: does the last prompt token say how strongly the answer will show the trait, before it is written?

The projection of the last prompt token on the vector is correlated with the judge's score of the answers that follow, on
questions and instructions that the vector was not made from. Across all system prompts the correlation is easily
high, because the prompts differ as the arms do; within a condition (one system prompt) only the questions differ. The
paper reports both (Chen et al. 2025, arXiv 2507.21509, section 3.3: r = .75-.83 across, .25-.67 within).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from workbench.base.randomness import derive_seed, generator
from workbench.maths.statistics import bootstrap_counts, category_codes, percentile_interval
from workbench.models.capture import capture
from workbench.models.hookpoints import HookPoint
from workbench.models.loading import Model
from workbench.models.prompts import ChatTokens
from workbench.personas.placebos import PlaceboVectors
from workbench.personas.reencoding import prompt_tokens
from workbench.personas.runs import HeldOut, PersonaRun, held_out

_SPAN = "last"


def last_prompt_activations(model: Model, prompts: Sequence[tuple[str, str]], hook: HookPoint) -> Tensor:
    """Activations `[n, d_model]` at `hook` of the token before the answer, for (system, question) pairs."""
    chats = []
    for system, question in prompts:
        ids = prompt_tokens(model, system, question).ids
        chats.append(ChatTokens(ids, {_SPAN: ((len(ids) - 1, len(ids)),)}))
    found = torch.zeros(len(prompts), model.d_model)
    for indices, pooled in capture(model, chats, (hook,), span=_SPAN):
        for index, one in zip(indices, pooled, strict=True):
            found[index] = one.means[0]
    return found


def monitoring(
    run: PersonaRun,
    model: Model,
    scores: Tensor,
    *,
    placebos: PlaceboVectors | None = None,
    n_bootstrap: int = 500,
    seed: int = 0,
) -> dict[str, Any]:
    """Correlations of the prompt's projection with the later score, across and within system prompts.

    scores `[n]`: a judge's score of every row of `run.score` (NaN where it gave none); the judge should not be the one
    that filtered the rows the vector is made from. The unit is the prompt (system prompt x question), its answers
    averaged. Each division of the instructions gives a direction, correlated under the instructions that it has
    not seen; the mean over divisions is reported, with a bootstrap of the questions (directions held).

    Returns {r_across, r_across_interval, r_within, r_within_interval, r_across_placebo_q95, r_within_placebo_q95,
    n_prompts}; None where nothing varies.
    """
    parts = held_out(run, n_bootstrap=0, generator=generator(0))
    units = prompt_units(run, parts, scores)
    activations = last_prompt_activations(model, units.prompts, run.hook).double()
    means = run.make.with_system[:, 0].double()
    directions = torch.stack([weight[0] @ means for weight in parts.weights])
    random = generator(derive_seed("monitoring", seed))
    n_questions = int(units.question.max()) + 1
    draws = torch.cat([torch.ones(1, n_questions).double(), bootstrap_counts(n_questions, n_bootstrap, random)])
    found: dict[str, Any] = {"n_prompts": len(units.prompts)}
    null = None if placebos is None else placebos.at(run.hook).double()
    for name, within in (("across", False), ("within", True)):
        values = _mean_correlation(units, activations @ directions.T, draws, within=within)
        found |= _summary(f"r_{name}", values)
        found[f"r_{name}_placebo_q95"] = None if null is None else _placebo_q95(units, activations @ null.T, within)
    return found


class Units:
    """Prompts with the mean score of their answers; codes of question and condition `[n]`, and which cells score them."""

    def __init__(self, prompts: list[tuple[str, str]], score: Tensor, question: Tensor, condition: Tensor,
                 in_cell: Tensor) -> None:  # fmt: skip
        self.prompts, self.score, self.question, self.condition = prompts, score, question, condition
        self.in_cell = in_cell
        """[n_cells, n] bool: the unit's instruction is unseen in that cell."""


def prompt_units(run: PersonaRun, parts: HeldOut, scores: Tensor) -> Units:
    """The evaluation prompts that got at least one score."""
    frame: Any = run.score.frame.assign(judged=scores.numpy(), place=range(len(scores)))
    frame = frame[frame["judged"].notna()]
    groups = list(frame.groupby(["system", "question"], sort=True))
    first = torch.tensor([int(group["place"].iloc[0]) for _, group in groups], dtype=torch.int64)
    return Units(
        [key for key, _ in groups],
        torch.tensor([float(group["judged"].mean()) for _, group in groups], dtype=torch.float64),
        category_codes([question for (_, question), _ in groups]),
        category_codes([system for (system, _), _ in groups]),
        torch.stack([cell.score[first] for cell in parts.cells]),
    )


def _mean_correlation(units: Units, projections: Tensor, draws: Tensor, *, within: bool) -> Tensor:
    """Mean over cells of the weighted correlation `[B]`; projections `[n, n_cells]`."""
    columns = []
    for cell, inside in enumerate(units.in_cell):
        here = inside.nonzero().flatten()
        weights = draws[:, units.question[here]]
        columns.append(_correlation(projections[here, cell], units.score[here], weights,
                                    units.condition[here] if within else None))  # fmt: skip
    return torch.stack(columns, dim=1).nanmean(dim=1)


def _placebo_q95(units: Units, projections: Tensor, within: bool) -> float:
    one = torch.ones(1, int(units.question.max()) + 1, dtype=torch.float64)
    values = [
        float(_mean_correlation(units, column[:, None].expand(-1, len(units.in_cell)), one, within=within)[0].abs())
        for column in projections.T
    ]
    return float(torch.quantile(torch.tensor(values), 0.95))


def _correlation(x: Tensor, y: Tensor, weights: Tensor, condition: Tensor | None) -> Tensor:
    """Weighted Pearson correlation `[B]`; with `condition`, of the deviations from each condition's mean."""
    if condition is None:
        condition = torch.zeros(len(x), dtype=torch.int64)
    member = torch.nn.functional.one_hot(condition).double()
    mass = (weights @ member).clamp_min(1e-12)
    x, y = (values - ((weights * values) @ member / mass) @ member.T for values in (x, y))
    covariance, vx, vy = ((weights * product).sum(dim=1) for product in (x * y, x * x, y * y))
    return covariance / (vx * vy).sqrt()


def _summary(name: str, values: Tensor) -> dict[str, Any]:
    if not bool(torch.isfinite(values[0])):
        return {name: None, f"{name}_interval": None}
    low, high = percentile_interval(values[1:]) if len(values) > 1 else (values[0], values[0])
    return {name: float(values[0]), f"{name}_interval": [float(low), float(high)]}

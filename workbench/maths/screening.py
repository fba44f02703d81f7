"""The row of a large dictionary that is most aligned with each residual, step after step, in few readings of the dictionary.

A greedy pursuit asks at every step which of `d_sae` rows has the largest |cos(r, d_j)|: plainly, one product with the whole
dictionary per step, bound by memory. Here it runs several steps ahead, and one product judges all of them:

1. The scores of a residual name the working set: the rows most aligned with it.
2. The next steps choose within the working set, by exact products.
3. One product of the dictionary with all their residuals scores every row at every step, to within a bound.
4. A row outside the working set whose bound reaches the chosen cosine is measured exactly. If it is more aligned, that choice
   was wrong: the pursuit goes back to before it, and the scores of that residual name the next working set.

Why the choices are those of the plain pursuit: a step stands only if no row is more aligned with that step's own residual,
and the first wrong step is found with the right residual because all steps before it stand. The first step of a round is
settled against all rows before anything is built on it, so each round keeps at least one step. Rows that are equally aligned
to rounding may fall either way, as they do in a plain product.

The bound: let the entries of the unit residual and of a row be rounded to a format of unit roundoff u, multiplied, summed in
any order with unit roundoff a, the sum rounded to the format and divided by the row's norm. By Cauchy-Schwarz the sum is
within slack = 2u + u^2 + 2 (d_model + 4) a of the cosine (Higham 2002, section 3.1, with room for the rounded norm), and the
score within a factor 1 +- u of that. So a row has a cosine above c only if its score is at least (c - slack) (1 - u). This
holds for rows whose entries are zero or normal numbers of the format.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .geometry import reciprocal
from .pursuit_steps import PursuitSteps, products

MAX_COLUMNS = 96  # residuals per product: with more, arithmetic costs more than reading the dictionary
BLOCK_ELEMENTS = 1 << 21  # of the dictionary per product, so that a converted block stays in the cache
WORKING_SHARE, WORKING_LEAST = 128, 64  # the working set: d_sae / 128 rows, at least 64
RIVALS_AT_ONCE = 512


def run(steps: PursuitSteps, *, signed: bool = True) -> int:
    """Advance `steps` until every vector has stopped or every step is made; returns the number of steps made.

    Each step takes the row with the largest |cos(r, d_j)|, or with the largest cos(r, d_j) unless `signed`.
    """
    n, n_atoms = steps.support.shape
    screen = _Screen(steps, signed=signed)
    most = ahead = max(1, MAX_COLUMNS // max(1, n))
    step, scores = 0, screen.scores(0, 1)
    while step < n_atoms and steps.running[:, step].any():
        last = min(step + ahead, n_atoms)
        kept, scores = _round(screen, scores, step, last)
        step, ahead = step + kept, min(2 * ahead, most) if step + kept == last else kept
    return step


def _round(screen: _Screen, scores: Tensor, step: int, last: int) -> tuple[int, Tensor]:
    """Make the steps from `step` up to `last`: how many of them stand, and the scores of what they leave."""
    steps, working = screen.steps, _WorkingSet(screen, scores[:, 0])
    choices = [screen.settle(scores, working, step, *working.best(step))]
    steps.advance(step, *choices[0])
    for at in range(step + 1, last):
        choices.append(working.best(at))
        steps.advance(at, *choices[-1])
    scores = screen.scores(step + 1, min(last + 1, steps.support.shape[1]))
    kept = 1 + _standing(screen, scores, working, step + 1, choices[1:])
    return kept, scores[:, kept - 1 : kept].clone()  # not a view, which would keep the others' memory


def _standing(screen: _Screen, scores: Tensor, working: _WorkingSet, start: int, choices: list) -> int:
    """How many of the `choices` made from step `start` on stand for every vector."""
    for ahead, (cosine, chosen) in enumerate(choices):
        settled = screen.settle(scores[:, ahead : ahead + 1], working, start + ahead, cosine, chosen)[1]
        if (settled != chosen).any():
            return ahead
    return len(choices)


class _Screen:
    """Cosines of residuals with the rows: fast within a bound for all of them, exact for a few."""

    def __init__(self, steps: PursuitSteps, *, signed: bool) -> None:
        self.steps, self.signed = steps, signed
        self.exact = torch.promote_types(steps.dictionary.dtype, torch.float32)
        self.format = torch.bfloat16 if self.exact == torch.float32 and _multiplies_bfloat16(steps.dictionary) else self.exact
        self.too_coarse = False

    def units(self, start: int, stop: int) -> Tensor:
        """The residuals of these steps at unit length: `[n, stop - start, d_model]`."""
        residuals = self.steps.residuals[:, start:stop]
        return (residuals * reciprocal(residuals.norm(dim=2, keepdim=True))).to(self.exact)

    def cosines(self, products: Tensor, rows: Tensor | slice) -> Tensor:
        """Products of unit residuals with `rows` as cosines; their size only, if signs do not matter."""
        cosines = products.to(self.exact) * self.steps.scale[rows]
        return cosines.abs_() if self.signed else cosines

    def scores(self, start: int, stop: int) -> Tensor:
        """Cosines of these steps' residuals with all rows, within the bound: `[n, stop - start, d_sae]`; -inf if taken."""
        dictionary, units = self.steps.dictionary, self.units(start, stop)
        self.format = self.exact if self.too_coarse else self.format
        columns = units.flatten(0, 1).to(self.format)
        scores = units.new_empty(len(columns), len(dictionary))
        block = max(64, BLOCK_ELEMENTS // dictionary.shape[1])
        for first in range(0, len(dictionary) if len(columns) else 0, block):
            rows = slice(first, first + block)
            scores[:, rows] = self.cosines(columns @ dictionary[rows].to(self.format).T, rows)
        scores = scores.view(*units.shape[:2], len(dictionary))
        for step in range(start, stop):
            # -1 marks a vector that has stopped; its scores are not used.
            scores[:, step - start].scatter_(1, self.steps.taken(step).clamp_min(0), -torch.inf)
        return scores

    def lowest(self, cosine: Tensor) -> Tensor:
        """The score that a row needs at least if its cosine is above `cosine`, in the format of the last scores."""
        truncated = self.exact == torch.float32 and torch.get_float32_matmul_precision() != "highest"
        u = torch.finfo(torch.bfloat16 if truncated else self.format).eps / 2
        slack = 2 * u + u**2 + (self.steps.dictionary.shape[1] + 4) * torch.finfo(self.exact).eps
        bound = cosine - slack
        return (bound - u * bound.abs()).clamp_min(-2)  # above -inf: a row that is taken never reaches it

    def settle(
        self, scores: Tensor, working: _WorkingSet, step: int, cosine: Tensor, chosen: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The best row of all at this step, given the best of the working set: (cosines, rows), each `[n]`."""
        reaching = (scores[:, 0] >= self.lowest(cosine)[:, None]) & self.steps.running[:, step, None]
        rivals = reaching.scatter_(1, working.rows, False).nonzero()
        cosine, chosen = cosine.clone(), chosen.clone()
        units = self.units(step, step + 1)[:, 0]
        for vector, row in (part.T for part in rivals.split(RIVALS_AT_ONCE)):
            found = self.cosines((self.steps.dictionary[row].to(self.exact) * units[vector]).sum(dim=1), row)
            for k in (found > cosine[vector]).nonzero()[:, 0].tolist():
                if found[k] > cosine[vector[k]]:
                    cosine[vector[k]], chosen[vector[k]] = found[k], row[k]
        self.too_coarse |= len(rivals) > scores.shape[-1] // 8
        return cosine, chosen


class _WorkingSet:
    """The rows that a residual's scores favour, gathered: `rows [n, w]`, in their order in the dictionary."""

    def __init__(self, screen: _Screen, scores: Tensor) -> None:
        self.screen, d_sae = screen, scores.shape[1]
        self.rows = torch.topk(scores, min(d_sae, max(WORKING_LEAST, d_sae // WORKING_SHARE))).indices.sort(dim=1).values
        self.atoms = screen.steps.dictionary[self.rows].to(screen.exact)

    def best(self, step: int) -> tuple[Tensor, Tensor]:
        """The row of the set most aligned with this step's residual: (cosines, rows), each `[n]`."""
        units = self.screen.units(step, step + 1)
        cosines = self.screen.cosines(products(self.atoms, units[:, 0]), self.rows)
        taken = (self.rows[:, :, None] == self.screen.steps.taken(step)[:, None]).any(dim=2)
        cosine, place = cosines.masked_fill_(taken, -torch.inf).max(dim=1)
        return cosine, self.rows.gather(1, place[:, None])[:, 0]


def _multiplies_bfloat16(dictionary: Tensor) -> bool:
    """Whether the processor multiplies bfloat16 in hardware (elsewhere it would be slower than float32)."""
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)
    return dictionary.device.type == "cpu" and supported()

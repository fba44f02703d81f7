"""A known mixture in the real model: does the decomposition give its proportions back?

Sub-personas that do one thing each (`lab.sub_personas`) answer the same questions. Answers of three or four of them, in known
proportions, make one mixed vector; the decomposition has to say what it is made of. What has to be right for the test to mean
anything:

- **Held out.** What a sub-persona looks like (its *fingerprint*) is learned from one half of the questions and one half of the
  instructions; the mixtures are made from the other halves of both. No answer, question or instruction is in both. The unit
  is the question: intervals draw questions. That other instructions give other halves is seen in `splits`.
- **Fingerprint.** The mean code of a sub-persona's answers minus that of neutral answers to the same questions. A mixture is
  the mean over its rows minus neutral answers to its questions, so codes and vectors of a mixture are the sums p_k x (those of
  its parts) but for the halves' difference and the draw of rows: truth is the proportion of *rows*.
- **Norms.** A sub-persona that moves the model further has a larger share of a mixture than of its rows. An estimate of
  proportions has to undo that. `shares` does it with the shares themselves: the features are put into groups, each with the
  sub-persona in whose own decomposition its share is largest; a mixture with vector v has in group g the share

      G_g(v) = sum_{j in g} dz_j <d_j, v> / |v|^2 = sum_k p_k A_gk,    A_gk = sum_{j in g} dz_jk <d_j, v> / |v|^2

  where dz_jk is fingerprint k: as many equations as sub-personas, solved for p >= 0 with sum 1 (without the sum, one that is
  absent would be divided by a pull of its features that is 0 but for noise). `shares_as_read` is what a reader of grouped shares
  sees without that: their positive parts, scaled to sum 1. `codes` is least squares (p >= 0, sum 1) of all code differences, in
  units of activation (dz_j |d_j|), on the fingerprints.
- **Baseline.** `residual`: least squares (p >= 0, sum 1) of the mixture's vector on the sub-personas' vectors, without any SAE.
  Mean codes and mean activations both mix linearly, so nothing here favours the SAE.
- **Chance.** `equal_parts` answers the same for every mixture; `shuffled` has fingerprints with the names of the sub-personas
  dealt out anew over the answers; `placebos` has vectors of unrelated contrasts in their place. `same_answers` takes
  fingerprints from the very answers that are mixed: what is left is the draw of rows.

`shares` is the method that was chosen before any figure was known; the others stand beside it, and whoever wins is said to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.randomness import derive_seed, generator
from workbench.decomposition.rows import RowCodes
from workbench.maths.geometry import projections

METHODS = ("shares", "shares_as_read", "codes", "residual")
PRIMARY, BASELINE = "shares", "residual"
GROUP_SIZE = 100
TENTHS, MAX_TENTHS = 10, 6
MAX_ROWS = 60
HEAVY = 1e3


@dataclass(frozen=True, eq=False, repr=False)
class Answers(Shown):
    """Row codes of answers, and who gave each: `persona`, `question`, `instruction` are one name per row."""

    rows: RowCodes
    persona: np.ndarray
    question: np.ndarray
    instruction: np.ndarray
    names: tuple[str, ...]
    """The sub-personas, without the neutral one."""
    neutral: str

    def at(self, persona: str, half: Half) -> list[np.ndarray]:
        """The row numbers of a persona's answers in `half`, one array per question slot (a question may stand there twice)."""
        known = (self.persona == persona) & np.isin(self.instruction, half.instructions)
        found = [np.flatnonzero(known & (self.question == question)) for question in half.questions]
        if not any(len(rows) for rows in found):
            raise WorkbenchError(
                f"no answers of {persona!r} to the questions {', '.join(half.questions)}",
                "answers of every sub-persona and of neutral in both halves",
                "sample more answers per question",
            )
        return found

    @cached_property
    def everything(self) -> Half:
        """All questions and instructions."""
        return Half(tuple(dict.fromkeys(self.question)), tuple(dict.fromkeys(self.instruction)))


@dataclass(frozen=True)
class Half:
    """The questions (with repeats, when drawn with replacement) and instructions that one part of the test may use."""

    questions: tuple[str, ...]
    instructions: tuple[str, ...]

    def drawn(self, random: torch.Generator) -> Half:
        """As many questions, drawn with replacement."""
        n = len(self.questions)
        return replace(self, questions=tuple(self.questions[i] for i in torch.randint(n, (n,), generator=random).tolist()))


@dataclass(frozen=True, eq=False, repr=False)
class Differences(Shown):
    """Differences of means against neutral: `vectors [k, d_model]`, `codes [k, d_sae]`, float64."""

    vectors: Tensor
    codes: Tensor


def halves(answers: Answers) -> tuple[Half, Half]:
    """The main split: every second question, and the first half of the instructions against the second."""
    whole = answers.everything
    middle = len(whole.instructions) // 2
    if len(whole.questions) < 4 or not middle:
        raise WorkbenchError(f"{len(whole.questions)} questions and {len(whole.instructions)} instructions",
                             "4 questions and 2 instructions or more", "sample more of them")  # fmt: skip
    return Half(whole.questions[::2], whole.instructions[:middle]), Half(whole.questions[1::2], whole.instructions[middle:])


def random_halves(answers: Answers, random: torch.Generator) -> tuple[Half, Half]:
    """Another split into halves, of questions and of instructions."""
    whole = answers.everything
    questions, instructions = (
        [names[i] for i in torch.randperm(len(names), generator=random).tolist()]
        for names in (whole.questions, whole.instructions)
    )
    a, b = len(questions) // 2, len(instructions) // 2
    return Half(tuple(questions[:a]), tuple(instructions[:b])), Half(tuple(questions[a:]), tuple(instructions[b:]))


def draw_recipes(n_personas: int, n: int, random: torch.Generator) -> Tensor:
    """`n` proportions `[n, n_personas]` in tenths: three sub-personas and four in turn, each with a tenth to six tenths.

    Each set of tenths is as likely as any other. With three sub-personas or fewer all are in every mixture.
    """
    recipes = torch.zeros(n, n_personas, dtype=torch.float64)
    for row in range(n):
        size = n_personas if row % 2 else min(3, n_personas)
        members = torch.randperm(n_personas, generator=random)[:size]
        parts = _compositions(size)
        recipes[row, members] = parts[int(torch.randint(len(parts), (), generator=random))] / TENTHS
    return recipes


def _compositions(size: int) -> Tensor:
    cuts = [(0, *cut, TENTHS) for cut in combinations(range(1, TENTHS), size - 1)]
    parts = torch.tensor(cuts, dtype=torch.float64).diff(dim=1)
    return parts[parts.max(dim=1).values <= max(MAX_TENTHS, -(-TENTHS // size))]


def fingerprints(answers: Answers, half: Half) -> Differences:
    """Each sub-persona against neutral in `half`, every question weighing the same."""
    weights = torch.stack([_question_means(answers, name, half) for name in answers.names])
    return _differences(answers, weights - _question_means(answers, answers.neutral, half))


def mixtures(answers: Answers, half: Half, recipes: Tensor, n_rows: int, random: torch.Generator) -> Differences:
    """Mixtures of `n_rows` answers, those of sub-persona k making up recipes_k of them, minus neutral answers.

    Rows are drawn without replacement, as evenly over the questions of `half` as the number allows; where there are fewer than
    a recipe asks for (see `rows_per_mixture`) some count twice.
    """
    pools = [answers.at(name, half) for name in answers.names]
    neutral = _question_means(answers, answers.neutral, half)
    weights = torch.zeros(len(recipes), len(answers.persona), dtype=torch.float64)
    for row, recipe in enumerate(recipes):
        counts = (recipe * n_rows).round().long().tolist()
        for pool, count in zip(pools, counts, strict=True):
            chosen = torch.tensor(_drawn(pool, count, random), dtype=torch.int64)
            weights[row].index_add_(0, chosen, torch.full((count,), 1 / n_rows, dtype=torch.float64))
    return _differences(answers, weights - neutral)


def _drawn(pool: Sequence[np.ndarray], count: int, random: torch.Generator) -> list[int]:
    shuffled = [rows[torch.randperm(len(rows), generator=random).numpy()].tolist() for rows in pool]
    shuffled = [shuffled[i] for i in torch.randperm(len(shuffled), generator=random).tolist()]
    rounds = [rows[turn] for turn in range(max(map(len, shuffled))) for rows in shuffled if turn < len(rows)]
    return [rounds[i % len(rounds)] for i in range(count)]


def rows_per_mixture(answers: Answers, half: Half, *, most: int = MAX_ROWS) -> int:
    """How many rows a mixture may have, in tens, so that no recipe asks for more answers than there are in `half`."""
    fewest = min(sum(map(len, answers.at(name, half))) for name in answers.names)
    found = min(most, TENTHS * (fewest // max(MAX_TENTHS, -(-TENTHS // len(answers.names)))))
    if not found:
        raise WorkbenchError(f"{fewest} answers of a sub-persona to mix", f"{MAX_TENTHS} or more", "sample more answers")
    return found


def _question_means(answers: Answers, persona: str, half: Half) -> Tensor:
    slots = [rows for rows in answers.at(persona, half) if len(rows)]
    weights = torch.zeros(len(answers.persona), dtype=torch.float64)
    for rows in slots:
        weights.index_add_(0, torch.from_numpy(rows), torch.full((len(rows),), 1 / len(rows) / len(slots), dtype=torch.float64))
    return weights


def _differences(answers: Answers, weights: Tensor) -> Differences:
    return Differences(weights @ answers.rows.means, answers.rows.weighted_codes(weights))


def feature_groups(known: Differences, decoder: Tensor, *, size: int = GROUP_SIZE) -> Tensor:
    """Which sub-persona each feature belongs to, `[d_sae]`, -1 for none: the one in whose own decomposition its share is largest,
    among the `size` features of the largest share there."""
    energy = known.vectors.square().sum(dim=1, keepdim=True)
    shares = known.codes * projections(known.vectors, decoder) / energy
    best, owner = shares.max(dim=0)
    least = shares.topk(min(size, shares.shape[1]), dim=1).values[:, -1]
    return torch.where((best >= least[owner]) & (best > 0), owner, torch.full_like(owner, -1))


def estimate(known: Differences, mixed: Differences, decoder: Tensor, groups: Tensor) -> dict[str, Tensor]:
    """The proportions `[n, k]` that every method reads from the mixtures; each row sums to 1."""
    lengths = decoder.double().norm(dim=1)
    read, solved = _by_shares(known, mixed, decoder, groups)
    return {
        "shares": solved,
        "shares_as_read": _normalised(read.clamp_min(0)),
        "codes": _least_squares(known.codes * lengths, mixed.codes * lengths),
        "residual": _least_squares(known.vectors, mixed.vectors),
    }


def _by_shares(known: Differences, mixed: Differences, decoder: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """Shares by group `[n, k]`, and the proportions solved from them."""
    n_personas = len(known.codes)
    member = (groups[None] == torch.arange(n_personas)[:, None]).double()
    pull = projections(mixed.vectors, decoder).double() / mixed.vectors.square().sum(dim=1, keepdim=True)
    read = (mixed.codes * pull) @ member.T
    alone = torch.einsum("nf,kf,gf->ngk", pull, known.codes, member)
    solved = [_solve(matrix, share) for matrix, share in zip(alone, read, strict=True)]
    return read, torch.stack(solved)


def _least_squares(known: Tensor, mixed: Tensor) -> Tensor:
    return torch.stack([_solve(known.T, row) for row in mixed])


def _solve(matrix: Tensor, target: Tensor) -> Tensor:
    """Least squares of `matrix [m, k]` p = `target [m]` with p >= 0 and sum 1 (an equation of much weight)."""
    from scipy.optimize import nnls

    weight = HEAVY * matrix.norm(dim=0).max()
    rows = torch.cat([matrix, weight.expand(1, matrix.shape[1])])
    return torch.from_numpy(nnls(rows.numpy(), torch.cat([target, weight[None]]).numpy())[0])


def _normalised(values: Tensor) -> Tensor:
    """Rows scaled to sum 1; equal parts where nothing was found."""
    total = values.sum(dim=1, keepdim=True)
    return torch.where(total > 0, values / total.clamp_min(1e-300), torch.full_like(values, 1 / values.shape[1]))


def share_errors(found: Tensor, recipes: Tensor) -> Tensor:
    """Mean absolute error of each mixture's proportions, `[n]`."""
    return (found - recipes).abs().mean(dim=1)


def orders_right(found: Tensor, recipes: Tensor) -> Tensor:
    """Whether all pairs of sub-personas with different proportions stand in the right order, `[n]`; equal ones do not count."""
    larger = recipes[:, :, None] > recipes[:, None, :]
    return (~larger | (found[:, :, None] > found[:, None, :])).flatten(1).all(dim=1)


Estimates = Mapping[str, Tensor]
Halves = tuple[Half, Half]


@dataclass(frozen=True, eq=False, repr=False)
class MixtureTest(Shown):
    """One way to run the test: what stays the same in every replicate."""

    answers: Answers
    decoder: Tensor
    recipes: Tensor
    n_rows: int

    def run(self, split: Halves, random: torch.Generator, *, known: Differences | None = None) -> dict[str, Tensor]:
        """Fingerprints from the first half (or `known`), mixtures from the second: proportions by method."""
        known = known or fingerprints(self.answers, split[0])
        mixed = mixtures(self.answers, split[1], self.recipes, self.n_rows, random)
        return estimate(known, mixed, self.decoder, feature_groups(known, self.decoder))

    def scores(self, found: Estimates) -> dict[str, tuple[float, float]]:
        """(share error, share of mixtures in the right order) by method."""
        return {
            method: (share_errors(p, self.recipes).mean().item(), orders_right(p, self.recipes).double().mean().item())
            for method, p in found.items()
        }

    def repeated(self, n: int, name: str, seed: int, once: Callable[[torch.Generator], Estimates]) -> dict[str, Tensor]:
        """Scores `[n, 2]` by method of `once`, with a generator of its own each time."""
        runs = [self.scores(once(generator(derive_seed("mixtures", name, i, seed)))) for i in range(n)]
        return {method: torch.tensor([run[method] for run in runs], dtype=torch.float64) for method in runs[0]}

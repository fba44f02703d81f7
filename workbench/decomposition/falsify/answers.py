"""Checks that need the answers behind a vector: length, format, tokens, and other questions or instructions."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from workbench.base.randomness import derive_seed, generator
from workbench.decomposition.shares import balanced_weights
from workbench.personas.sensitivity import held_constant, markup_counts

from .criteria import CRITERIA, Check
from .material import Answers, Material

N_HALVES = 20
MAX_UNALIGNED = 0.05


def cosine(one: Tensor, other: Tensor) -> float:
    """The cosine of two vectors `[d_model]`; NaN when one is zero."""
    return float((one @ other) / (one.norm() * other.norm()))


def length(given: Material) -> Check:
    """Is v explained by how long the answers are?"""
    criterion, answers = CRITERIA["length"], given.answers
    if answers is None:
        return criterion.untested("the answers behind the vector are not there")
    v, weights = answers.vector, answers.design.weights
    lengths = torch.tensor(answers.frame["n_tokens"].tolist(), dtype=torch.float64).clamp_min(1).log()
    found = {
        "length held constant": cosine(v, _constant(answers, lengths[:, None])),
        "answers cut to one length": cosine(v, weights @ answers.cut),
        "first 32 tokens": cosine(v, weights @ answers.first),
    }
    worst = min(found, key=lambda name: found[name])
    gap = float(weights @ lengths)
    return criterion.judged(
        found[worst], f"lowest with {worst}; answers with the trait are {_times(gap)} as long as those without", cosines=found,
        share_along_length_direction=_share_along(answers, lengths), log_length_difference=gap,
    )  # fmt: skip


def _times(log_ratio: float) -> str:
    return f"{torch.tensor(log_ratio).exp().item():.2f} times"


def _constant(answers: Answers, nuisance: Tensor) -> Tensor:
    """v `[d_model]` with the columns of `nuisance [n, k]` that vary held constant; v itself when none does."""
    varying = nuisance[:, nuisance.std(dim=0) > 0]
    if not varying.shape[1]:
        return answers.vector
    scaled = (varying - varying.mean(dim=0)) / varying.std(dim=0)
    return held_constant(answers.means, scaled, answers.design.weights, answers.positive)


def _share_along(answers: Answers, lengths: Tensor) -> float | None:
    """The share of |v|^2 along the direction in which answers of one arm move as they get longer; None at one length."""
    if not float(lengths.std()) > 0:
        return None
    v = answers.vector
    slope = v - held_constant(answers.means, ((lengths - lengths.mean()) / lengths.std())[:, None], answers.design.weights,
                              answers.positive)  # fmt: skip
    return cosine(slope, v) ** 2 if float(slope.norm()) > 0 else 0.0


def format_(given: Material) -> Check:
    """Is v explained by lists, code or exclamation marks?"""
    criterion, answers = CRITERIA["format"], given.answers
    if answers is None or "response" not in answers.frame.columns:
        return criterion.untested("the words of the answers are not there")
    texts = [str(text) for text in answers.frame["response"]]
    marks = torch.tensor([[markup_counts(text), float(text.count("!"))] for text in texts], dtype=torch.float64)
    names, weights = ("list and code marks", "exclamation marks"), answers.design.weights
    single = {name: cosine(answers.vector, _constant(answers, marks[:, i : i + 1])) for i, name in enumerate(names)}
    differ = {name: float(weights @ marks[:, i]) for i, name in enumerate(names)}
    told = ", ".join(f"{value:+.2f} {name}" for name, value in differ.items())
    return criterion.judged(cosine(answers.vector, _constant(answers, marks)), f"an answer with the trait has {told}",
                            held_constant=single, more_per_answer=differ)  # fmt: skip


def token(given: Material) -> Check:
    """Does one token carry v?"""
    criterion, answers = CRITERIA["token"], given.answers
    if answers is None or not answers.groups:
        return criterion.untested("the tokens of the answers are not there")
    if answers.n_unaligned > MAX_UNALIGNED * len(answers.frame):
        return criterion.untested(f"{answers.n_unaligned} of {len(answers.frame)} answers have tokens left out as sinks")
    v = answers.vector
    shares = dict(zip(answers.groups, (answers.carried @ v / (v @ v)).tolist(), strict=True))
    without = {name: cosine(v, made) for name, made in zip(answers.groups, answers.left_out, strict=True)}
    together, *single = answers.groups
    worst = min(single, key=lambda name: without[name])
    largest = sorted(single, key=lambda name: -abs(shares[name]))[:5]
    spread = dict(zip(answers.groups, answers.spread.tolist(), strict=True))
    held = f"{100 * shares[together]:.0f}% of |v|^2, {100 * spread[together]:.0f}% of the tokens"
    return criterion.judged(
        without[worst], f"lowest without {worst}; {together}: {held}",
        share_of_frequent=shares[together], positions_of_frequent=spread[together], cosine_without_frequent=without[together],
        largest=[{"token": name, "share": shares[name], "positions": spread[name], "cosine_without": without[name]}
                 for name in largest],
    )  # fmt: skip


def reproducibility(given: Material) -> Check:
    """Would other questions or instructions give the same vector?"""
    criterion, answers = CRITERIA["reproducibility"], given.answers
    if answers is None:
        return criterion.untested("the answers behind the vector are not there")
    halves = {"questions": _question_halves(answers, given.seed), "instructions": _instruction_halves(answers)}
    known = {name: float(torch.tensor(found).nanmean()) for name, found in halves.items() if found}
    if len(known) < 2:
        return criterion.untested("there are fewer than two questions or two instructions in an arm")
    others, against = given.placebo_directions, None
    if others is not None and len(others):
        against = float(torch.stack([_cosine(answers.vector, one).abs() for one in others]).quantile(0.95))
    limit = max(criterion.threshold or 0, against or 0)
    worst = min(known, key=lambda name: known[name])
    beside = "; no placebo vectors to compare with" if against is None else f"; 95% of placebos are within {against:.2f} of v"
    return criterion.judged(known[worst], f"lowest between halves of the {worst}{beside}", threshold=limit, halves=known,
                            placebo_cosine_q95=against)  # fmt: skip


def _cosine(one: Tensor, other: Tensor) -> Tensor:
    return (one @ other) / (one.norm() * other.norm())


def _question_halves(answers: Answers, seed: int) -> list[float]:
    design, source = answers.design, generator(derive_seed("falsify halves", seed))
    n, used = int(design.question.max()) + 1, design.questions
    if len(used) < 2:
        return []
    chosen = torch.zeros(N_HALVES, n, dtype=torch.float64)
    for half in chosen:
        half[used[torch.randperm(len(used), generator=source)[: len(used) // 2]]] = 1
    present = torch.zeros(n, dtype=torch.float64).index_fill_(0, used, 1)
    rows = torch.ones(N_HALVES, len(design.weights), dtype=torch.float64)
    return _between(answers, (chosen, rows), (present - chosen, rows))


def _instruction_halves(answers: Answers) -> list[float]:
    design = answers.design
    names = design.instruction.unique().tolist()
    if len(names) < 2:
        return []
    picked = [one for one in combinations(names, len(names) // 2) if 2 * len(one) != len(names) or names[0] in one]
    inside = torch.stack([torch.isin(design.instruction, torch.tensor(one)).double() for one in picked])
    questions = torch.ones(len(picked), int(design.question.max()) + 1, dtype=torch.float64)
    return _between(answers, (questions, inside), (questions, 1 - inside))


def _between(answers: Answers, one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> list[float]:
    """Cosines between v of one half and v of the other, for each division; NaN where a half has no question in both arms."""
    design = answers.design
    halves = [balanced_weights(design.weights.sign(), design.question, *half) @ answers.means for half in (one, other)]
    return torch.cosine_similarity(*halves, dim=1).tolist()

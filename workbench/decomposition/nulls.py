"""What chance would have given a feature: sign flips over questions, and an arm against itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.randomness import derive_seed, generator
from workbench.maths.signflips import sign_flip_test
from workbench.maths.statistics import benjamini_hochberg

from .rows import RowCodes
from .shares import Design, balanced_weights, question_contributions

N_SAME = 512
"""Features that an arm is tested against itself on: exact p for all of them would take longer than all else."""
MAX_SPLITS = 20
"""Ways to part the instructions of an arm that an arm is tested against itself in; five instructions have ten."""


@dataclass(frozen=True, eq=False, repr=False)
class FeatureTests(Shown):
    """Per feature `[d_sae]`: p, max-T family-wise p, BH q (NaN for a feature that never fires), and how exact."""

    p_value: Tensor
    p_family: Tensor
    q_value: Tensor
    n_active: int
    n_patterns: int
    exact: bool
    family_exact: bool


def feature_tests(differences: Tensor, *, seed: int = 0, family: bool = True) -> FeatureTests:
    """Sign-flip tests of the per-question differences `[n_questions, d_sae]` of mean codes.

    BH runs over the features that are active (not zero on every question). With one question nothing can be
    tested: p and q are NaN.
    """
    active = (differences != 0).any(dim=0)
    n_active, unknown = int(active.sum()), torch.full((differences.shape[1],), torch.nan, dtype=torch.float64)
    if differences.shape[0] < 2:
        return FeatureTests(unknown, unknown, unknown, n_active, 0, True, True)
    flips = sign_flip_test(differences, seed=seed, family=family)
    q_value = benjamini_hochberg(torch.where(active, flips.p, unknown))
    return FeatureTests(
        flips.p, flips.p_family, q_value, n_active, flips.n_patterns, flips.exact, flips.family_exact
    )


def same_against_same(rows: RowCodes, design: Design, *, q_level: float = 0.05) -> dict[str, Any]:
    """A/A: what the sign-flip test finds between two halves of *one* arm's instructions, where there is nothing to find.

    Every way to part the instructions of an arm (ten for five; of more than 20 ways, 20 at random) on 512 features evenly spread
    over the active ones; BH over them. Returns {n_splits, shares, rate, n_features}: `shares` of the features called different
    in each split, `rate` the share of the splits in which any is (None without two instructions in an arm). Where nothing
    differs BH finds something in at most `q_level` of the splits; far above it the test over questions takes the wording of an
    instruction for an effect: then only what beats placebo contrasts is the trait's.
    """
    active = rows.weighted_codes(design.weights[None])[0].nonzero()[:, 0]
    chosen = active[:: max(1, -(-len(active) // N_SAME))]
    shares = []
    for half in _halves(design):
        found = question_contributions(rows, half)[:, chosen]
        if len(found) >= 2:
            shares.append(float((feature_tests(found, family=False).q_value <= q_level).sum()) / max(1, len(chosen)))
    rate = sum(share > 0 for share in shares) / len(shares) if shares else None
    return {"n_splits": len(shares), "shares": shares, "rate": rate, "n_features": len(chosen)}


def _halves(design: Design) -> Iterator[Design]:
    """The designs of one half of an arm's instructions against the other, every split once (some, when there are many)."""
    questions = torch.ones(1, int(design.question.max()) + 1, dtype=torch.float64)
    for side in (1, -1):
        arm = design.weights.sign() == side
        for chosen in _splits(design.instruction[arm].unique().tolist()):
            inside = torch.isin(design.instruction, torch.tensor(chosen))
            sign = torch.where(inside, 1.0, -1.0).double() * arm
            weights = balanced_weights(sign, design.question, questions, torch.ones(1, len(sign), dtype=torch.float64))[0]
            if weights.any():
                yield Design(weights.nan_to_num(), design.question, design.instruction)


def _splits(names: list[int]) -> Iterator[tuple[int, ...]]:
    """One half of `names` for every way to part them; of more than `MAX_SPLITS` ways, so many at random."""
    size = len(names) // 2
    if not size:
        return
    both = 2 * size == len(names)  # then every split is seen from two sides, and one is left out
    if comb(len(names), size) // (1 + both) <= MAX_SPLITS:
        yield from (chosen for chosen in combinations(names, size) if not both or names[0] in chosen)
        return
    random = generator(derive_seed("splits of instructions", len(names)))
    for _ in range(MAX_SPLITS):
        order = torch.randperm(len(names), generator=random)[:size].tolist()
        yield tuple(names[place] for place in order)

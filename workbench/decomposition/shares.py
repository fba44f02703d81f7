"""The primary decomposition: exact shares per feature with crossed-bootstrap intervals, and shares of groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.maths.identity import Shares, shares
from workbench.maths.statistics import basic_interval, bootstrap_counts, category_codes

from .rows import RowCodes

if TYPE_CHECKING:
    from .result import Decomposition

N_REPLICATE_FEATURES = 500
N_TOP = 10


@dataclass(frozen=True, eq=False, repr=False)
class Design(Shown):
    """Which rows make a difference of means, and how much each weighs.

    `weights [n]` (float64) are positive on the arm with the trait (sum 1) and negative on the other (sum -1), 0 for
    rows of neither; `question [n]` and `instruction [n]` are integer codes of the crossed factors.
    """

    weights: Tensor
    question: Tensor
    instruction: Tensor

    @classmethod
    def of(cls, weights: Sequence[float], questions: Sequence[str], instructions: Sequence[str]) -> Design:
        """The design of rows with these weights, question ids and instruction ids."""
        stored = torch.tensor(list(weights), dtype=torch.float64)
        return cls(stored, category_codes(questions), category_codes(instructions))

    @property
    def questions(self) -> Tensor:
        """The codes of the questions that carry weight."""
        return self.question[self.weights != 0].unique()

    def resampled(self, n_bootstrap: int, generator: torch.Generator) -> Tensor:
        """Row weights `[n_bootstrap, n]` after resampling questions and instructions with replacement.

        Everything is balanced again inside each replicate as in the vector: a question's mean in an arm is over the
        rows of the drawn instructions (with multiplicity), in proportion to their weights; a question left without rows
        in one arm drops out, and the remaining questions weigh per draw what they weigh in the vector (mostly the same
        each). A replicate without any such question is NaN (rare).
        """
        n_questions, n_instructions = int(self.question.max()) + 1, int(self.instruction.max()) + 1
        used = self.questions
        drawn = torch.zeros(n_bootstrap, n_questions, dtype=torch.float64)
        drawn[:, used] = bootstrap_counts(len(used), n_bootstrap, generator)
        rows = bootstrap_counts(n_instructions, n_bootstrap, generator)[:, self.instruction]
        member = torch.nn.functional.one_hot(self.question, n_questions).double()
        mass = self.weights.clamp_min(0) @ member
        return balanced_weights(self.weights.sign(), self.question, drawn * mass, rows * self.weights.abs())


def balanced_weights(sign: Tensor, question: Tensor, question_counts: Tensor, row_counts: Tensor) -> Tensor:
    """Weights `[B, n]` of a question-balanced difference of means.

    w_bi = sign_i (c_bq / sum_q' c_bq') (r_bi / sum of r_b over the rows of question q in the arm of i), where the
    questions q' are those with rows in both arms. `sign [n]` is +1, -1 or 0, `question [n]` codes,
    `question_counts [B, Q]`, `row_counts [B, n]`. Unit counts weigh each question the same.
    """
    member = torch.nn.functional.one_hot(question, question_counts.shape[1]).double()
    masses = [(row_counts * (sign == side)) @ member for side in (1, -1)]
    valid = question_counts * (masses[0] > 0) * (masses[1] > 0)
    balance = valid / valid.sum(dim=1, keepdim=True)
    per_arm = [
        (balance / mass.clamp_min(1e-300))[:, question] * (sign == side)
        for mass, side in zip(masses, (1, -1), strict=True)
    ]
    return row_counts * (per_arm[0] - per_arm[1])


@dataclass(frozen=True, eq=False, repr=False)
class Accounting(Shown):
    """v rebuilt from the rows `vector [d_model]`, its mean code difference `delta_codes [d_sae]`, and the shares."""

    vector: Tensor
    delta_codes: Tensor
    shares: Tensor
    error: float
    sum_error: float


def account(rows: RowCodes, design: Design, decoder: Tensor) -> Accounting:
    """The accounting identity for one design, in float64; the error is measured, not taken as the remainder."""
    weights = design.weights[None]
    vector, delta_codes = weights @ rows.means, rows.weighted_codes(weights)
    found: Shares = shares(delta_codes, decoder, vector, weights @ rows.errors)
    return Accounting(
        vector[0], delta_codes[0], found.features[0], found.error.item(), found.sum_error.item()
    )


def question_contributions(rows: RowCodes, design: Design) -> Tensor:
    """Per question with weight, its contribution sum_{i in q} w_i code_i to the code difference: `[Q, d_sae]`.

    Their sum over questions is `delta_codes`; with balanced weights each is the question's own difference over Q.
    """
    member = (design.question[None] == design.questions[:, None]).double()
    return rows.weighted_codes(member * design.weights)


@dataclass(frozen=True, eq=False, repr=False)
class Bootstrap(Shown):
    """Intervals of all features, and the replicates that are kept for groups.

    `low`, `high`, `top_rate` are `[d_sae]` (`top_rate`: share of replicates with the feature among the top ten by
    share, selection repeated inside), `features [m]`, `shares [B, m]` and `error [B]` the kept replicates.
    """

    low: Tensor
    high: Tensor
    top_rate: Tensor
    features: Tensor
    shares: Tensor
    error: Tensor


def bootstrap_shares(
    rows: RowCodes,
    design: Design,
    decoder: Tensor,
    *,
    whole: Accounting,
    keep: Tensor,
    n_bootstrap: int,
    generator: torch.Generator,
) -> Bootstrap:
    """Shares recomputed in every crossed-bootstrap replicate: v, the mean codes, the error, all of it.

    Intervals are basic ones about the shares of `whole` (`maths.statistics.basic_interval`): a replicate's v is noisier than v,
    so percentiles would count the bias of the shares twice. Features are processed 8,192 at a time, so memory is
    n_bootstrap x 8,192 floats plus `keep` columns.
    """
    weights = design.resampled(n_bootstrap, generator)
    vectors = weights @ rows.means
    energy = vectors.square().sum(dim=1)
    error = ((weights @ rows.errors) * vectors).sum(dim=1) / energy
    scaled, single = (vectors / energy[:, None]).float(), weights.float()
    lows, highs, kept = [], [], torch.zeros(n_bootstrap, len(keep))
    leaders: list[tuple[Tensor, Tensor]] = []
    for columns, codes in rows.code_blocks():
        replicate = (single @ codes) * (scaled @ decoder[columns].T)
        low, high = basic_interval(replicate, whole.shares[columns].to(replicate))
        lows.append(low)
        highs.append(high)
        inside = (keep >= columns.start) & (keep < columns.stop)
        kept[:, inside] = replicate[:, keep[inside] - columns.start]
        values, places = replicate.nan_to_num(-torch.inf).topk(min(N_TOP, replicate.shape[1]), dim=1)
        leaders.append((values, places + columns.start))
    rate = _top_rate(leaders, rows.d_sae)
    return Bootstrap(torch.cat(lows), torch.cat(highs), rate, keep, kept, error)


def _top_rate(leaders: list[tuple[Tensor, Tensor]], d_sae: int) -> Tensor:
    values, features = (torch.cat(parts, dim=1) for parts in zip(*leaders, strict=True))
    best = features.gather(1, values.topk(min(N_TOP, values.shape[1]), dim=1).indices)
    return torch.bincount(best.flatten(), minlength=d_sae).float() / len(values)


def largest_shares(all_shares: Tensor, n: int = N_REPLICATE_FEATURES, *, besides: Iterable[int] = ()) -> Tensor:
    """The ids of the `n` features of the largest |share|, and those named `besides`, ascending."""
    largest = all_shares.abs().topk(min(n, all_shares.shape[0])).indices
    return torch.cat([largest, torch.tensor(list(besides), dtype=largest.dtype)]).unique()


def has_replicates(decomposition: Decomposition, features: Sequence[int]) -> list[bool]:
    """Of each feature, whether its bootstrap replicates were kept (`decompose(keep=...)` keeps more than the largest 500)."""
    kept = set(decomposition.replicate_features.tolist())
    return [feature in kept for feature in features]


def feature_replicates(decomposition: Decomposition, features: Sequence[int]) -> Tensor:
    """Bootstrap shares `[n_bootstrap, n_features]` (float64), to be summed over any grouping inside each replicate.

    A feature whose replicates were not kept (see `has_replicates`) has its own share in every replicate: it is counted, but adds
    no width to an interval. Each of them is smaller than the 500 largest.
    """
    place = {feature: column for column, feature in enumerate(decomposition.replicate_features.tolist())}
    found = decomposition.share[list(features)].double().repeat(len(decomposition.replicate_error), 1)
    known = [column for column, feature in enumerate(features) if feature in place]
    found[:, known] = decomposition.replicate_shares[:, [place[features[column]] for column in known]].double()
    return found


def group_shares(decomposition: Decomposition, category_of: Mapping[int, str]) -> list[dict[str, Any]]:
    """Shares by category with intervals: what is the vector made of, in sub-traits?

    Returns one {category, share, low, high, n_features} per category, the largest first, then "unlabelled" (all
    other features) and "error" (the SAE's own error), so that the shares sum to 1. Intervals are basic bootstrap ones,
    summed inside each replicate. Replicates are kept for the 500 features of the largest |share|; a feature of
    `category_of` beyond them is counted as unlabelled.

    Raises WorkbenchError for a bare vector, or for a feature that the SAE does not have.
    """
    require_shares(decomposition)
    place = {feature: i for i, feature in enumerate(decomposition.replicate_features.tolist())}
    members: dict[str, list[int]] = {}
    for feature, category in category_of.items():
        decomposition.row(feature)
        if feature in place:
            members.setdefault(category, []).append(feature)
    groups = [_group(decomposition, name, features, place) for name, features in members.items()]
    groups.sort(key=lambda group: -group["share"])
    return [
        *groups,
        *_remainder(decomposition, [f for features in members.values() for f in features], place),
    ]


def require_shares(parts: Decomposition) -> None:
    """Raise WorkbenchError for the decomposition of a bare vector."""
    if not parts.has_shares:
        raise WorkbenchError(
            "this decomposition has no shares (the vector came without its tokens)",
            "a vector extracted with its rollouts",
            "run extract, then decompose",
        )


def _group(parts: Decomposition, name: str, features: list[int], place: dict[int, int]) -> dict[str, Any]:
    replicates = parts.replicate_shares[:, [place[feature] for feature in features]].double().sum(dim=1)
    return _summary(name, float(parts.share[features].sum()), replicates, len(features))


def _remainder(parts: Decomposition, labelled: list[int], place: dict[int, int]) -> list[dict[str, Any]]:
    assert parts.share_error is not None
    error = parts.replicate_error.double()
    named = parts.replicate_shares[:, [place[feature] for feature in labelled]].double().sum(dim=1)
    rest = 1 - parts.share_error - float(parts.share[labelled].sum())
    return [
        _summary("unlabelled", rest, 1 - error - named, parts.d_sae - len(labelled)),
        _summary("error", parts.share_error, error, 0),
    ]


def _summary(name: str, share: float, replicates: Tensor, n_features: int) -> dict[str, Any]:
    low, high = basic_interval(replicates, share)
    return {
        "category": name,
        "share": share,
        "low": low.item(),
        "high": high.item(),
        "n_features": n_features,
    }

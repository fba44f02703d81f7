"""The mixtures in full: twenty of them by every method, what chance gets, how other splits do, and how strong the parts are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from workbench.base.display import Shown, figure_for
from workbench.base.progress import track
from workbench.base.randomness import derive_seed, generator
from workbench.maths.statistics import bootstrap_counts, percentile_interval

from .mixtures import (
    BASELINE,
    PRIMARY,
    Answers,
    Differences,
    Estimates,
    Half,
    Halves,
    MixtureTest,
    draw_recipes,
    feature_groups,
    fingerprints,
    halves,
    orders_right,
    random_halves,
    rows_per_mixture,
    share_errors,
)

if TYPE_CHECKING:
    from workbench.decomposition.placebos import PlaceboCodes

MAX_SHARE_ERROR, MIN_ORDER_RIGHT = 0.10, 0.90
N_MIXTURES = 20
N_BOOTSTRAP, N_SPLITS, N_NULLS = 200, 40, 20


@dataclass(frozen=True)
class MixtureRow:
    """One mixture: what it is made of, what every method found, and how far off that is."""

    known: dict[str, float]
    found: dict[str, dict[str, float]]
    share_error: dict[str, float]
    order_right: dict[str, bool]


@dataclass(frozen=True)
class MethodScore:
    """One method over all mixtures.

    `share_error`: mean absolute error of the proportions; `order_right`: share of mixtures whose sub-personas stand in the right
    order. Intervals (95%) draw the questions of both halves, and the mixtures' rows, anew.
    """

    method: str
    share_error: float
    share_error_interval: tuple[float, float]
    order_right: float
    order_right_interval: tuple[float, float]
    largest_error: float


@dataclass(frozen=True, repr=False)
class MixtureResult(Shown):
    """What `run_mixtures` found; `share_error <= .10` and `order_right >= .90` are the aims."""

    names: tuple[str, ...]
    rows: tuple[MixtureRow, ...]
    scores: tuple[MethodScore, ...]
    chance: dict[str, Any]
    """By name of the control, {method: {share_error, order_right}}."""
    splits: dict[str, Any]
    """Other random halves of questions and instructions: {n, methods: {method: {share_error, worst, order_right, ...}}}."""
    group_sizes: dict[str, int]
    """Features that count for a sub-persona."""
    settings: dict[str, Any]
    effects: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def score(self, method: str = PRIMARY) -> MethodScore:
        """The figures of one method. Raises KeyError for an unknown one."""
        return {score.method: score for score in self.scores}[method]

    @property
    def met(self) -> dict[str, bool]:
        """By method, whether it meets both aims."""
        return {one.method: one.share_error <= MAX_SHARE_ERROR and one.order_right >= MIN_ORDER_RIGHT for one in self.scores}

    def to_json(self) -> dict[str, Any]:
        """Everything as an object for a JSON file."""
        named = {"": PRIMARY, "codes_": "codes", "baseline_": BASELINE}
        pairs = {mark: self.score(method) for mark, method in named.items()}
        head = {f"{mark}share_error": one.share_error for mark, one in pairs.items()}
        head |= {f"{mark}order_right": one.order_right for mark, one in pairs.items()}
        return head | {"met": self.met} | {one.name: getattr(self, one.name) for one in fields(self)} | {
            "rows": [asdict(row) for row in self.rows], "scores": [asdict(score) for score in self.scores]
        }  # fmt: skip

    def figure(self) -> Any:
        """Known against estimated proportions, the decomposition beside the baseline, as an SVG (`.save(path)`)."""
        return figure_for(self)

    def __repr__(self) -> str:
        figures = ", ".join(f"{one.method} {one.share_error:.3f}" for one in self.scores)
        return f"MixtureResult({len(self.rows)} mixtures of {', '.join(self.names)}; share error: {figures})"


def run_mixtures(
    answers: Answers,
    decoder: Tensor,
    *,
    placebos: PlaceboCodes | None = None,
    n_mixtures: int = N_MIXTURES,
    n_rows: int | None = None,
    n_bootstrap: int = N_BOOTSTRAP,
    n_splits: int = N_SPLITS,
    seed: int = 0,
) -> MixtureResult:
    """Mixtures of known proportions, taken apart by every method of `lab.mixtures`.

    n_rows: answers per mixture; by default as many as the answers allow without using one twice, at most 60.
    `decoder [d_sae, d_model]` is that of the SAE which read the answers. The same seed gives the same result. Raises
    WorkbenchError with too few questions, instructions or answers for the halves.
    """
    random = generator(derive_seed("mixtures", "recipes", seed))
    split = halves(answers)
    n_rows = n_rows or rows_per_mixture(answers, split[1])
    test = MixtureTest(answers, decoder.float(), draw_recipes(len(answers.names), n_mixtures, random), n_rows)
    with track("mixtures", 4, "steps") as step:
        found = test.run(split, generator(derive_seed("mixtures", "rows", seed)))
        step()
        drawn = test.repeated(n_bootstrap, "questions", seed, lambda g: test.run((split[0].drawn(g), split[1].drawn(g)), g))
        step()
        others = test.repeated(n_splits, "splits", seed, lambda g: test.run(random_halves(answers, g), g))
        step()
        chance = _chance(test, split, placebos, seed)
        step()
    known = fingerprints(answers, split[0])
    groups = feature_groups(known, test.decoder)
    sizes = {name: int((groups == k).sum()) for k, name in enumerate(answers.names)}
    settings = {"n_mixtures": n_mixtures, "n_rows": n_rows, "n_bootstrap": n_bootstrap, "seed": seed, "primary": PRIMARY,
                "baseline": BASELINE, "fingerprints": asdict(split[0]), "mixtures": asdict(split[1])}  # fmt: skip
    return MixtureResult(answers.names, _rows(found, test), _scores(found, test, drawn), chance, _splits(others), sizes, settings)


def _rows(found: Estimates, test: MixtureTest) -> tuple[MixtureRow, ...]:
    names = test.answers.names
    errors = {method: share_errors(p, test.recipes).tolist() for method, p in found.items()}
    orders = {method: orders_right(p, test.recipes).tolist() for method, p in found.items()}

    def named(values: Tensor) -> dict[str, float]:
        return dict(zip(names, values.tolist(), strict=True))

    return tuple(
        MixtureRow(named(test.recipes[i]), {method: named(p[i]) for method, p in found.items()},
                   {method: one[i] for method, one in errors.items()}, {method: one[i] for method, one in orders.items()})
        for i in range(len(test.recipes))
    )  # fmt: skip


def _scores(found: Estimates, test: MixtureTest, drawn: Mapping[str, Tensor]) -> tuple[MethodScore, ...]:
    def score(method: str, error: float, order: float) -> MethodScore:
        low, high = (end.tolist() for end in percentile_interval(drawn[method]))
        largest = share_errors(found[method], test.recipes).max().item()
        return MethodScore(method, error, (low[0], high[0]), order, (low[1], high[1]), largest)

    return tuple(score(method, *figures) for method, figures in test.scores(found).items())


def _splits(others: Mapping[str, Tensor]) -> dict[str, Any]:
    def described(runs: Tensor) -> dict[str, float]:
        error, order = runs.unbind(dim=1)
        aims = (error <= MAX_SHARE_ERROR) & (order >= MIN_ORDER_RIGHT)
        return {"share_error": error.mean().item(), "worst_share_error": error.max().item(), "order_right": order.mean().item(),
                "worst_order_right": order.min().item(), "aims_met": aims.double().mean().item()}  # fmt: skip

    return {"n": len(next(iter(others.values()))), "methods": {method: described(runs) for method, runs in others.items()}}


def _chance(test: MixtureTest, split: Halves, placebos: PlaceboCodes | None, seed: int) -> dict[str, Any]:
    """What every control gets: {control: {method: {share_error, order_right}}}."""
    answers, (first, second) = test.answers, split
    equal = torch.full_like(test.recipes, 1 / test.recipes.shape[1])
    same_wording = Half(first.questions, second.instructions)
    runs = {
        "shuffled": lambda g: test.run(split, g, known=fingerprints(_shuffled(answers, g), first)),
        "same_instructions": lambda g: test.run((same_wording, second), g),
        "same_answers": lambda g: test.run((second, second), g),
    }
    if placebos is not None and len(placebos) >= len(answers.names):
        runs["placebos"] = lambda g: test.run(split, g, known=_some(placebos, len(answers.names), g))
    tables = {name: test.repeated(N_NULLS, name, seed, once) for name, once in runs.items()}
    means = {name: {method: _pair(run.mean(dim=0).tolist()) for method, run in table.items()} for name, table in tables.items()}
    return {"equal_parts": _pair(test.scores({"equal": equal})["equal"]), **means}


def _pair(figures: Sequence[float]) -> dict[str, float]:
    return {"share_error": figures[0], "order_right": figures[1]}


def _shuffled(answers: Answers, random: torch.Generator) -> Answers:
    """The sub-personas' names dealt out anew over their answers; neutral ones stay."""
    persona = answers.persona.copy()
    named = np.flatnonzero(persona != answers.neutral)
    persona[named] = persona[named][torch.randperm(len(named), generator=random).numpy()]
    return replace(answers, persona=persona)


def _some(placebos: PlaceboCodes, n: int, random: torch.Generator) -> Differences:
    chosen = torch.randperm(len(placebos), generator=random)[:n]
    sign = torch.randint(2, (n, 1), generator=random) * 2.0 - 1  # which of a placebo's arms comes first is arbitrary
    return Differences((placebos.vectors[chosen] * sign).double(), (placebos.delta_codes[chosen] * sign).double())


def effect_sizes(
    answers: Answers,
    shown: Mapping[str, Sequence[bool]],
    *,
    placebos: PlaceboCodes | None = None,
    n_bootstrap: int = 500,
    seed: int = 0,
) -> dict[str, Any]:
    """How strong and how distinct the sub-personas are: {rates, norms, placebo_norms, cosines, cosines_across_halves, n_answers}.

    `shown[name][row]`: whether the answer does what sub-persona `name` does. `rates[who][what]` = {rate, interval}, the share of
    the answers of `who` that do it, with an interval over questions; a sub-persona does its one thing when its own rate is high
    and the rates of neutral and of the others are not. Norms are those of the differences against neutral, all answers;
    `cosines_across_halves[i][j]` is between i's vector from the first half of the main split and j's from the second.
    """
    whole = fingerprints(answers, answers.everything)
    first, second = (_unit(fingerprints(answers, half).vectors) for half in halves(answers))
    random = generator(derive_seed("mixtures", "effects", seed))
    who = (*answers.names, answers.neutral)
    flags = {what: np.asarray(one) for what, one in shown.items()}
    rates = {name: {what: _rate(answers, name, one, n_bootstrap, random) for what, one in flags.items()} for name in who}
    norms = dict(zip(answers.names, whole.vectors.norm(dim=1).tolist(), strict=True))
    return {
        "rates": rates,
        "norms": norms,
        "placebo_norms": None if placebos is None else sorted(placebos.vectors.norm(dim=1).tolist()),
        "cosines": (_unit(whole.vectors) @ _unit(whole.vectors).T).tolist(),
        "cosines_across_halves": (first @ second.T).tolist(),
        "n_answers": {name: int((answers.persona == name).sum()) for name in who},
    }


def _rate(answers: Answers, who: str, flags: np.ndarray, n_bootstrap: int, random: torch.Generator) -> dict[str, Any]:
    own = answers.persona == who
    means = torch.tensor([flags[own & (answers.question == q)].mean() for q in dict.fromkeys(answers.question[own])])
    drawn = bootstrap_counts(len(means), n_bootstrap, random) @ means.double() / len(means)
    low, high = percentile_interval(drawn)
    return {"rate": means.mean().item(), "interval": [low.item(), high.item()]}


def _unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.norm(dim=1, keepdim=True)

"""What is scored: the package's tests and views, an oracle to aim for, a control to beat, and methods of yours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.decomposition.crossed import crossed_tests
from workbench.decomposition.methods import COMPARISON_METHODS, METHODS, Method, decoder_of, encode
from workbench.decomposition.nulls import feature_tests
from workbench.decomposition.rows import RowCodes, read_row_codes
from workbench.decomposition.shares import Accounting, Design, account, question_contributions
from workbench.maths.statistics import benjamini_hochberg

from .dictionaries import Truth
from .experiment import HOOK, Experiment
from .world import World

PRIMARY, CROSSED, ORACLE, CONTROL = "shares", "crossed", "oracle", "tokens"


@dataclass(frozen=True, eq=False, repr=False)
class Findings(Shown):
    """What a method says of each latent.

    `coefficients [d_sae]`: how much of the latent the vector holds, in the SAE's units, positive where the persona has more
    of it. `ranking [d_sae]`: the larger, the surer. `q [d_sae]`: false discovery rate at which the latent is found; None for a
    method that only ranks, whose list is then as long as the truth, which it is told.
    """

    coefficients: Tensor
    ranking: Tensor
    q: Tensor | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Trial(Shown):
    """One experiment and one SAE, with the truth about its latents."""

    experiment: Experiment
    sae: Any
    truth: Truth

    @property
    def world(self) -> World:
        """The planted world."""
        return self.experiment.world

    @cached_property
    def rows(self) -> RowCodes:
        """Mean activations, codes and errors of every response, as the package reads them."""
        held = self.experiment.vector.rows["id"].tolist()
        return read_row_codes(self.experiment.tokens.rows(HOOK), held, self.sae)

    @cached_property
    def design(self) -> Design:
        """The weights, questions and instructions of the experiment's rows."""
        rows = self.experiment.vector.rows
        return Design.of(*(rows[name].tolist() for name in ("weight", "question_id", "instruction_id")))

    @cached_property
    def accounting(self) -> Accounting:
        """The exact shares of the vector."""
        return account(self.rows, self.design, decoder_of(self.sae))

    @cached_property
    def n_true(self) -> int:
        """How many latents truly change (10 where none does): the length of a list that comes without error rates."""
        return int((self.truth.change != 0).sum()) or 10


Test = Callable[[Trial], Findings]


def shares(trial: Trial) -> Findings:
    """The package's primary test: exact sign flips over questions, Benjamini-Hochberg; ranked by share, as its tables are."""
    tests = feature_tests(question_contributions(trial.rows, trial.design), seed=trial.experiment.seed, family=False)
    return Findings(trial.accounting.delta_codes, trial.accounting.shares, tests.q_value.nan_to_num(1.0))


def crossed(trial: Trial) -> Findings:
    """The same differences, tested over questions crossed with instructions (`decomposition.crossed`); ranked by p."""
    tests, codes = crossed_tests(trial.rows, trial.design), trial.accounting.delta_codes
    if tests is None:
        return Findings(codes, trial.accounting.shares, torch.ones_like(codes))
    return Findings(codes, -tests.p_value, tests.q_value.nan_to_num(1.0))


def token_t_test(trial: Trial) -> Findings:
    """A control that is wrong: Welch's t over single tokens, as if tokens of one response were independent."""
    from scipy.stats import ttest_ind

    weights = trial.design.weights.tolist()
    codes = [encode(trial.sae, tokens).cpu().double() for _, tokens in trial.experiment.tokens.rows(HOOK)]
    up, down = (torch.cat([c for c, w in zip(codes, weights, strict=True) if sign * w > 0]) for sign in (1, -1))
    _, found = ttest_ind(up.numpy(), down.numpy(), equal_var=False)
    p = torch.from_numpy(found)
    return Findings(up.mean(0) - down.mean(0), -p.nan_to_num(1.0), benjamini_hochberg(p).nan_to_num(1.0))


def ranked_by(method: Method) -> Test:
    """A method of `decomposition.methods` (vector, sae, n_atoms) -> scores [d_sae], as a list ordered by |score|."""

    def findings(trial: Trial) -> Findings:
        scores = method(trial.experiment.vector.at(HOOK), trial.sae, trial.n_true).double().cpu()
        return Findings(scores, scores.abs())

    return findings


def cosine_findings(trial: Trial) -> Findings:
    """The signed decoder cosine; its coefficients are the projections of the vector on single directions."""
    vector = trial.experiment.vector.at(HOOK).float()
    cosines = METHODS["cosine"](vector, trial.sae, trial.n_true).double().cpu()
    return Findings(cosines * vector.norm().double() / decoder_of(trial.sae).double().norm(dim=1), cosines.abs())


def tests_of(methods: Mapping[str, Method] | None = None, tests: Mapping[str, Test] | None = None) -> dict[str, Test]:
    """All that is scored: both tests, every method of the registries and of `methods`, `tests`, and the control."""
    found: dict[str, Test] = {PRIMARY: shares, CROSSED: crossed}
    found |= {name: ranked_by(method) for name, method in {**METHODS, **COMPARISON_METHODS, **(methods or {})}.items()}
    if "cosine" not in (methods or {}):
        found["cosine"] = cosine_findings
    return found | {CONTROL: token_t_test} | dict(tests or {})

"""A planted world: known features, how often and how strongly they fire in each arm, and what changes between the arms."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.randomness import derive_seed, generator

from .difficulties import Difficulty

N_CHILDREN, N_FACTORS = 4, 4
DENSE_RATE, DENSE_STRENGTH, STRENGTH_SPREAD = 0.95, 3.0, 0.2
ARMS = {"positive": 1, "negative": -1}


@dataclass(frozen=True, eq=False, repr=False)
class World(Shown):
    """Features and what the persona does to them.

    `directions [n_features, d_model]` (unit rows), `bias [d_model]`, `log_odds [n_features]` of firing, `strengths
    [n_features]` when they fire. `rate_change` (log-odds) and `strength_change` (log ratio), both `[n_features]`, are
    positive arm minus negative arm. `parent [n_features]` is the feature without which one never fires (-1 = none).
    `nuisance [n_features]` marks changed features that are none of the persona's, `worded` those that an instruction's
    wording moves; `sensitivity [n_features]` is each feature's own factor on what moves it by accident.
    """

    difficulty: Difficulty
    directions: Tensor
    bias: Tensor
    log_odds: Tensor
    strengths: Tensor
    rate_change: Tensor
    strength_change: Tensor
    parent: Tensor
    nuisance: Tensor
    sensitivity: Tensor
    worded: Tensor

    @property
    def sds(self) -> dict[str, Tensor]:
        """The sd of what question, instruction, wording, interaction and row do to each feature's log-odds `[n_features]`."""
        d = self.difficulty
        named = {"question": d.question_sd, "instruction": d.instruction_sd, "interaction": d.interaction_sd, "row": d.row_sd}
        found = {name: sd * self.sensitivity for name, sd in named.items()}
        return found | {"wording": d.wording_sd * self.sensitivity * self.worded}

    @property
    def spread(self) -> Tensor:
        """The sd of each feature's log-odds over rows `[n_features]`."""
        return torch.stack(list(self.sds.values())).square().sum(dim=0).sqrt()

    @property
    def n_features(self) -> int:
        """The number of true features."""
        return len(self.directions)

    @cached_property
    def hierarchy(self) -> Any:
        """SAELens' modifier that silences children of silent parents; None without families."""
        if not (self.parent >= 0).any():
            return None
        from sae_lens.synthetic import HierarchyNode, hierarchy_modifier

        parents = self.parent[self.parent >= 0].unique().tolist()
        members = {one: (self.parent == one).nonzero().flatten().tolist() for one in parents}
        return hierarchy_modifier([HierarchyNode(one, [HierarchyNode(child) for child in members[one]]) for one in parents])

    @cached_property
    def correlation(self) -> Any:
        """SAELens' low-rank correlation of the features' firing; None when they fire independently."""
        scale = self.difficulty.correlation
        if not scale:
            return None
        from sae_lens.synthetic import LowRankCorrelationMatrix

        drawn = torch.rand(self.n_features, N_FACTORS, generator=generator(derive_seed("lab", "factors")))
        factor = torch.where(drawn < 0.75, scale, -scale)  # most pairs fire together, some avoid each other
        return LowRankCorrelationMatrix(factor, torch.full((self.n_features,), 1 - N_FACTORS * scale**2))

    @cached_property
    def change(self) -> Tensor:
        """Positive minus negative arm of each feature's mean activation in the population, `[n_features]` float64: the truth.

        The population is over questions, instructions, wordings and responses. Exactly 0 for what the arms do not differ in.
        """
        return self.mean_codes(1) - self.mean_codes(-1)

    @cached_property
    def vector(self) -> Tensor:
        """The persona vector of an endless experiment, sum_f change_f direction_f: `[d_model]` float64."""
        return self.change @ self.directions.double()

    @cached_property
    def complement(self) -> Tensor:
        """Orthonormal rows `[d_model - n_features, d_model]` orthogonal to every feature."""
        return torch.linalg.svd(self.directions.double())[2][self.n_features :].float()

    def rates(self, sign: int) -> Tensor:
        """How often each feature fires in an arm (1, -1; 0 = between them) if its parent does, spread integrated out."""
        nodes, weights = (torch.from_numpy(one) for one in np.polynomial.hermite_e.hermegauss(63))
        odds = self.log_odds.double() + sign * self.rate_change.double() / 2
        return torch.sigmoid(odds[:, None] + self.spread[:, None] * nodes) @ weights / math.sqrt(2 * math.pi)

    def mean_strengths(self, sign: int) -> Tensor:
        """How strong each feature is in an arm where it fires."""
        return self.strengths.double() * torch.exp(sign * self.strength_change.double() / 2)

    def mean_codes(self, sign: int) -> Tensor:
        """Mean activation of every feature in an arm, tokens where it is silent among them."""
        rates = self.rates(sign)
        return self.mean_strengths(sign) * rates * torch.where(self.parent >= 0, rates[self.parent.clamp_min(0)], 1.0)

    def generator_for(self, log_odds: Tensor, sign: int) -> Any:
        """SAELens' generator of feature activations `[n, n_features]` for one row with these log-odds, in one arm."""
        from sae_lens.synthetic import ActivationGenerator

        strengths = self.mean_strengths(sign).float()
        return ActivationGenerator(
            self.n_features,
            torch.sigmoid(log_odds + sign * self.rate_change / 2),
            std_firing_magnitudes=STRENGTH_SPREAD * strengths,
            mean_firing_magnitudes=strengths,
            modify_activations=self.hierarchy,
            correlation_matrix=self.correlation,
        )


def make_world(difficulty: Difficulty, seed: int = 0) -> World:
    """The world of a difficulty; the same seed gives the same world on the same machine.

    Feature directions come from `sae_lens.synthetic.FeatureDictionary` (random unit rows), rates fall like a Zipf law from
    .3. What changes is drawn among the third of the features that fire most, so that it can be seen at all: the
    changes alternate between rate and strength and between up and down. With families, two parents change first, and
    so do their children.
    """
    from sae_lens.synthetic import FeatureDictionary, zipfian_firing_probabilities

    d, source = difficulty, generator(derive_seed("lab", difficulty.name, "world", seed))
    with seeded(derive_seed("lab", difficulty.name, "directions", seed)):
        dictionary = FeatureDictionary(d.n_features, d.d_model, bias=d.bias_norm or False, initializer=None)
    rates = zipfian_firing_probabilities(d.n_features, exponent=0.5, max_prob=0.3, min_prob=0.02)
    strengths = 0.75 + 0.75 * torch.rand(d.n_features, generator=source)
    order = torch.randperm(d.n_features // 3, generator=source)
    order = torch.cat([order[order < d.n_parents][:2], order[order >= d.n_parents]])  # two parents first, if there are any
    parent, dense = _families(d), torch.arange(d.n_features - d.n_dense, d.n_features)
    rates[parent >= 0] = 0.4
    rates[dense], strengths[dense] = DENSE_RATE, DENSE_STRENGTH
    changed, nuisance = order[: d.n_planted + d.n_nuisance], torch.zeros(d.n_features, dtype=torch.bool)
    nuisance[changed[d.n_planted :]] = True
    rate_change, strength_change = _changes(d, changed)
    worded = torch.rand(d.n_features, generator=source) < d.wording_share
    sensitivity = torch.exp(d.unevenness * torch.randn(d.n_features, generator=source))
    return World(
        d, dictionary.feature_vectors.detach(), dictionary.bias.detach(), torch.logit(rates), strengths,
        rate_change, strength_change, parent, nuisance, sensitivity, worded,
    )  # fmt: skip


def _families(d: Difficulty) -> Tensor:
    """The parent of every feature: the first ones, which fire most, are parents of the next ones, four each."""
    parent = torch.full((d.n_features,), -1)
    children = torch.arange(d.n_parents, d.n_parents * (1 + N_CHILDREN))
    parent[children] = torch.arange(d.n_parents).repeat_interleave(N_CHILDREN)
    return parent


def _changes(d: Difficulty, changed: Tensor) -> tuple[Tensor, Tensor]:
    """(rate_change, strength_change): up and down in turn, two in the rate and two in the strength."""
    place = torch.arange(len(changed))
    sign = torch.where(place % 2 == 0, 1.0, -1.0)
    rate, strength = torch.zeros(d.n_features), torch.zeros(d.n_features)
    rate[changed] = sign * d.rate_change * (place % 4 < 2)
    strength[changed] = sign * d.strength_change * (place % 4 >= 2)
    return rate, strength


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """A context in which torch's own generator, which SAELens draws from, starts from `seed`; afterwards it is as before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield

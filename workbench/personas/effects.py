"""What adding a whole vector does to the model, at doses stated in token norms, against random directions.

    odd = (C(+delta) - C(-delta)) / 2     delta = dose x (median token norm at the hook) x v / |v|

on written reply pairs (see `causal`): nats per token by which the trait's reply gains on its opposite. Random directions
are drawn with the covariance of the activations and pushed equally far. `specific` subtracts the odd part on the control
pairs, which differ in something else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import compress
from typing import Any

import torch
from torch import Tensor

from workbench.base.randomness import derive_seed, generator
from workbench.maths.geometry import covariance_matched_directions
from workbench.maths.statistics import bootstrap_counts, percentile_interval, rank_p
from workbench.models.hookpoints import HookPoint
from workbench.models.model import Model
from workbench.personas.causal import ReplyContrast
from workbench.personas.traits import ReplyPair

DOSES = (0.5, 1.0)
N_RANDOM = 20
_BLOCK = 16  # deltas per call, which bounds memory


class DoseInstrument:
    """The reply pairs of one split read once at a hook, for directions pushed to doses in norms."""

    def __init__(self, model: Model, hook: HookPoint, pairs: Sequence[ReplyPair]) -> None:
        self.contrast = ReplyContrast(model, hook, pairs)
        self.median_norm = float(model.norm_medians([hook])[0])
        kinds = [pair.kind == "contrast" for pair in pairs]
        self.is_contrast = torch.tensor(kinds)
        # Nulls need no control pairs, which are half of the work.
        self.of_contrasts = self.contrast if all(kinds) else ReplyContrast(model, hook, list(compress(pairs, kinds)))

    def odd_even(self, directions: Tensor, dose: float) -> tuple[Tensor, Tensor]:
        """(odd, even) `[v, n_pairs]` of `directions [v, d_model]` at `dose` norms; even has the baseline taken off."""
        up, down = self._pushed(self.contrast, directions, dose)
        return (up - down) / 2, (up + down) / 2 - self.contrast.baseline

    def mean_odd(self, directions: Tensor, dose: float) -> Tensor:
        """The odd effect `[v]` of `directions [v, d_model]`, mean over the contrast pairs alone."""
        if not len(directions):
            return torch.zeros(0, dtype=torch.float64)
        up, down = self._pushed(self.of_contrasts, directions, dose)
        return (up - down).mean(dim=1) / 2

    def _pushed(self, contrast: ReplyContrast, directions: Tensor, dose: float) -> tuple[Tensor, ...]:
        unit = torch.nn.functional.normalize(directions.float(), dim=1)
        parts = []
        for block in (unit * (dose * self.median_norm)).split(_BLOCK):
            parts.append(contrast(torch.stack([block, -block], dim=1).flatten(0, 1)).unflatten(0, (-1, 2)))
        return torch.cat(parts).unbind(1)


def vector_effects(
    model: Model,
    hook: HookPoint,
    pairs: Sequence[ReplyPair],
    direction: Tensor,
    activations: Tensor,
    *,
    doses: Sequence[float] = DOSES,
    n_random: int = N_RANDOM,
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """{dose: {odd, interval, specific, specific_interval, damage, random_interval, p, n_pairs, n_random}} for one vector.

    direction `[d_model]`; activations `[n, d_model]`: rows whose covariance the random directions have. Intervals
    bootstrap the pairs; random_interval holds the middle 95% of the random directions' |odd| with either sign.
    """
    instrument = DoseInstrument(model, hook, pairs)
    random = generator(derive_seed("vector effects", seed))
    drawn = covariance_matched_directions(activations, n_random, random)
    found = {}
    for dose in doses:
        odd, even = instrument.odd_even(direction[None], dose)
        null = instrument.mean_odd(drawn, dose)
        found[str(dose)] = _summary(odd[0], even[0], null, instrument.is_contrast, n_bootstrap, random)
    return found


def effects_side_by_side(
    model: Model,
    hook: HookPoint,
    pairs: Sequence[ReplyPair],
    directions: Mapping[str, Tensor],
    activations: Tensor,
    *,
    placebos: Mapping[str, Tensor] | None = None,
    dose: float = 1.0,
    n_random: int = N_RANDOM,
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """{name: what `vector_effects` says of it at `dose`, and {placebo_interval, p_placebo, n_placebos}}.

    directions: several vectors `[d_model]` by name, all beside the same random directions. placebos: by the same names the
    placebo directions `[m, d_model]` that each is held against, pushed equally far; a name may be left out.
    """
    instrument = DoseInstrument(model, hook, pairs)
    random = generator(derive_seed("vector effects", seed))
    beside = [(placebos or {}).get(name, activations[:0]) for name in directions]
    stacks = [covariance_matched_directions(activations, n_random, random), *beside]
    odd, even = instrument.odd_even(torch.stack(list(directions.values())), dose)
    nulls = instrument.mean_odd(torch.cat([stack.float() for stack in stacks]), dose)
    null, *others = nulls.split([len(stack) for stack in stacks])
    found = {}
    for i, (name, other) in enumerate(zip(directions, others, strict=True)):
        one = _summary(odd[i], even[i], null, instrument.is_contrast, n_bootstrap, random)
        found[name] = one | _beside_placebos(one["odd"], other)
    return found


def _beside_placebos(odd: float, placebos: Tensor) -> dict[str, Any]:
    """The middle 95% of the placebos' |odd| with either sign (a placebo has no side), and the rank p of `odd` among them."""
    if not len(placebos):
        return {"placebo_interval": None, "p_placebo": None, "n_placebos": 0}
    return {"placebo_interval": _both_signs(placebos), "p_placebo": float(rank_p(odd, placebos.abs())),
            "n_placebos": len(placebos)}  # fmt: skip


def _both_signs(effects: Tensor) -> list[float]:
    return [float(torch.quantile(torch.cat([effects, -effects]), q)) for q in (0.025, 0.975)]


def _summary(
    odd: Tensor, even: Tensor, null: Tensor, is_contrast: Tensor, n_bootstrap: int, random: torch.Generator
) -> dict[str, Any]:  # fmt: skip
    on, off = odd[is_contrast], odd[~is_contrast]
    effect = on.mean()
    drawn = bootstrap_counts(len(on), n_bootstrap, random) @ on / len(on)
    low, high = percentile_interval(drawn)
    found = {
        "odd": float(effect), "interval": [float(low), float(high)],
        "damage": float(even[is_contrast].mean()),
        "random_interval": _both_signs(null),
        # A random direction has no sign of its own: its larger side counts.
        "p": float(rank_p(effect, null.abs())), "n_pairs": len(on), "n_random": len(null),
    }  # fmt: skip
    if len(off):
        base = bootstrap_counts(len(off), n_bootstrap, random) @ off / len(off)
        low, high = percentile_interval(drawn - base)
        found |= {"specific": float(effect - off.mean()), "specific_interval": [float(low), float(high)]}
    return found

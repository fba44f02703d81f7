"""The cheap causal view of many features: first-order prediction for all, exact effects for some fifty.

The ten candidates of `causal.verdict` get a verdict; here the largest features by every method, and matched controls,
are measured at one equal dose (|delta| in median token norms) in both directions, and put back in the persona's own run. No
verdict is given: fifty features against as many controls cannot carry one, but a table of controls beside them can mislead
nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.base.progress import track
from workbench.maths.statistics import percentile_interval

from ..methods import decoder_of
from .attribution import contrast_gradient, push_attribution
from .controls import match_controls, sealed_pairs
from .mediation import SystemPromptRun, positive_prompts
from .pushing import Bench, contrast_draws
from .verdict import direction_sign

if TYPE_CHECKING:
    from workbench.models.model import Model
    from workbench.personas.traits import Trait
    from workbench.saes.interface import SparseAutoencoder

    from ..result import Decomposition

N_FEATURES, N_CONTROLS = 50, 30
DOSE = 0.25


def screen(
    parts: Decomposition,
    model: Model,
    sae: SparseAutoencoder,
    trait: Trait,
    *,
    n_features: int = N_FEATURES,
    n_controls: int = N_CONTROLS,
    dose: float = DOSE,
    seed: int = 0,
) -> dict[str, Any]:
    """Effects of the features that any method calls large, beside `n_controls` matched ones that nobody chose.

    Features and signs are chosen on the decomposition and on the `select` pairs (first-order effects); everything is measured
    on the sealed pairs, for the controls on the contrast pairs alone. Each feature is pushed by s_j * dose along its direction,
    s_j the sign of its mean code difference.

    Returns {dose_norms, n_pairs, features: [row], controls: [row], persona_effect, bounds, balance, agreement}. A row: feature,
    methods (that chose it), sign, odd (contrast pairs, toward the trait), interval, control_odd (control pairs), specific (odd -
    control_odd), damage (even part), kl (nats per token on neutral text), predicted (first-order `specific`), mediated (share of
    the persona's effect that goes when the feature is put back; `mediation`), mediated_interval, mediated_predicted.
    `bounds` (`SystemPromptRun.bounds`) say what all features together and the whole residual could take away. `agreement`:
    correlations of predicted and measured, and the share of features beyond the controls' 95th percentile (by chance .05).
    """
    select, sealed = sealed_pairs(trait, "select"), sealed_pairs(trait)
    contrast = [pair for pair in sealed if pair.kind == "contrast"]
    decoder = decoder_of(sae)
    chosen = union_of_methods(parts, push_attribution(contrast_gradient(model, sae.hook, select), decoder), n_features)
    features = list(chosen)
    controls, balance = match_controls(model, sae, features, n_controls=n_controls, seed=seed)
    with track("screen", 3, "steps") as step:
        signs = [direction_sign(parts, j) for j in features]
        rows = _pushed(Bench(model, sae.hook, sealed), decoder, features, signs, dose, seed)
        # A control has no sign of its own: it is pushed as the features mostly are, on the contrast pairs alone.
        common = [1 if sum(signs) >= 0 else -1] * len(controls)
        null = _pushed(Bench(model, sae.hook, contrast), decoder, list(controls), common, dose, seed)
        step()
        told = SystemPromptRun(model, sae, contrast, positive_prompts(trait))
        step()
        _mediate(told, rows + null, seed)
        step()
    first = push_attribution(contrast_gradient(model, sae.hook, sealed), decoder)
    length = dose * float(model.norm_medians([sae.hook])[0])
    for row in rows:
        row |= {"methods": chosen[row["feature"]], "predicted": row["sign"] * length * float(first[row["feature"]])}
    return {
        "dose_norms": dose,
        "n_pairs": {"contrast": len(contrast), "control": len(sealed) - len(contrast)},
        "persona_effect": _mean_interval(told.effect, seed),
        "bounds": {name: _mean_interval(change, seed) for name, change in told.bounds.items()},
        "features": rows,
        "controls": null,
        "balance": balance,
        "agreement": _agreement(rows, null),
    }


def union_of_methods(parts: Decomposition, gradient: Tensor, n: int) -> dict[int, list[str]]:
    """{feature: names of the methods}: the largest of every method in turn, until there are `n` of them.

    Methods: |share|, |cosine|, |pursuit|, |placebo score| and the first-order effect |gradient|; what is unknown is left out.
    """
    views: Mapping[str, Tensor] = {
        "share": parts.share, "cosine": parts.cosine, "pursuit": parts.pursuit, "placebo": parts.placebo_score,
        "attribution": gradient,
    }  # fmt: skip
    orders = {name: _order(view) for name, view in views.items()}
    found: dict[int, list[str]] = {}
    for rank in range(parts.d_sae):
        for name, order in orders.items():
            if rank >= len(order):
                continue
            feature = order[rank]
            if feature in found or len(found) < n:
                found.setdefault(feature, []).append(name)
        if len(found) >= n:
            return found
    return found


def _order(view: Tensor) -> list[int]:
    known = view.double().nan_to_num(0.0).abs()
    order = known.argsort(descending=True)
    return order[: int((known > 0).sum())].tolist()


def _pushed(
    bench: Bench, decoder: Tensor, features: list[int], signs: list[int], dose: float, seed: int
) -> list[dict[str, Any]]:
    """One row per feature: what pushing it by its sign does."""
    pushed, draws = bench.at_dose(decoder[features], dose), bench.draws(seed)
    rows = []
    for n, (feature, sign) in enumerate(zip(features, signs, strict=True)):
        odd = pushed.odd[n] * sign
        low, high = percentile_interval(draws @ odd)
        on, off = float(odd @ bench.contrast), float(odd @ bench.control) if bench.control.any() else None
        rows.append({
            "feature": feature, "sign": sign, "odd": on, "interval": [float(low), float(high)], "control_odd": off,
            "specific": None if off is None else on - off, "damage": float(pushed.even[n] @ bench.contrast),
            "kl": float(pushed.kl[n]),
        })  # fmt: skip
    return rows


def _mediate(told: SystemPromptRun, rows: list[dict[str, Any]], seed: int) -> None:
    """Adds to every row the share of the persona's effect that goes when its feature is put back."""
    weights = torch.full_like(told.effect, 1 / len(told.effect))
    effect, draws = float(told.effect.mean()), contrast_draws(weights, seed)
    change = told.restored([[row["feature"]] for row in rows])
    low, high = percentile_interval(-(draws @ change.T) / (draws @ told.effect)[:, None])
    predicted = -told.predicted(weights) / effect
    for n, row in enumerate(rows):
        row |= {
            "mediated": -float(change[n].mean()) / effect, "mediated_interval": [float(low[n]), float(high[n])],
            "mediated_predicted": float(predicted[row["feature"]]),
        }  # fmt: skip


def _mean_interval(values: Tensor, seed: int) -> dict[str, Any]:
    low, high = percentile_interval(contrast_draws(torch.full_like(values, 1 / len(values)), seed) @ values)
    return {"value": float(values.mean()), "interval": [float(low), float(high)]}


def _agreement(rows: list[dict[str, Any]], null: list[dict[str, Any]]) -> dict[str, Any]:
    """Predicted against measured, and how many features do more than 95% of the controls."""
    limit = {key: _quantile([row[key] for row in null], 0.95) for key in ("odd", "mediated")}
    return {
        "predicted": _correlation(rows, "predicted", "specific"),
        "mediated_predicted": _correlation(rows + null, "mediated_predicted", "mediated"),
        "beyond_controls": {key: sum(row[key] > limit[key] for row in rows) / len(rows) for key in limit},
        "control_q95": limit,
    }


def _quantile(values: list[float], q: float) -> float:
    return float(torch.tensor(values, dtype=torch.float64).quantile(q))


def _correlation(rows: list[dict[str, Any]], *columns: str) -> float:
    return float(torch.corrcoef(torch.tensor([[row[name] for row in rows] for name in columns], dtype=torch.float64))[0, 1])

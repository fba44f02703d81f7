"""The cheap causal view of many features: first-order prediction for all, exact effects for some fifty.

The ten candidates of `causal.verdict` get a verdict; here the largest features by every method, and matched controls,
are measured at one equal dose (|delta| in median token norms) in both directions, and put back in the persona's own run. No
verdict is given: fifty features against as many controls cannot carry one, but a table of controls beside them can mislead
nobody.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.base.errors import WorkbenchError
from workbench.base.progress import track
from workbench.maths.statistics import percentile_interval, rank_p

from ..methods import decoder_of
from .attribution import contrast_gradient, push_attribution
from .controls import match_controls, require_pairs, sealed_pairs
from .mediation import SystemPromptRun, positive_prompts
from .pushing import Bench, contrast_draws
from .verdict import LEVEL, direction_sign

if TYPE_CHECKING:
    from workbench.models.model import Model
    from workbench.personas.traits import Trait
    from workbench.saes.interface import SparseAutoencoder

    from ..result import Decomposition

N_FEATURES, N_CONTROLS, MIN_CONTROLS = 50, 39, 19
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
    on the sealed pairs. Each feature is pushed by s_j * dose along its direction, s_j the sign of its mean code difference; a
    control, which has no sign of its own, by +dose on the contrast pairs, and a feature of sign s stands among s times their
    effects. Only features are put back: how much that does goes with how much a feature's code changed, which controls that
    are matched on density and length are not matched on.

    Returns {dose_norms, n_pairs, features: [row], controls: [{feature, odd, ...}], persona_effect, totals, balance, agreement}.
    A row: feature, methods (that chose it), sign, odd (contrast pairs, toward the trait), interval, p (rank of odd among the
    controls), control_odd (control pairs), specific (odd - control_odd), damage (even part), kl (nats per token on neutral text),
    predicted (first-order `specific`), put_back (nats of the persona's effect that go when the feature is put back; see
    `mediation`), put_back_interval, put_back_predicted, mediated (its share of the effect, None unless the effect's
    interval lies above 0). `totals`: what goes with the whole residual, all features, and the SAE's error. `agreement`:
    correlations of predicted and measured; the share of features with p <= .05, and what chance gives.

    Raises WorkbenchError for a trait without contrast and control pairs in both splits, and with fewer than 19 controls.
    """
    require_pairs(trait)
    if n_controls < MIN_CONTROLS:
        raise WorkbenchError(f"{n_controls} controls", f"{MIN_CONTROLS} or more: with fewer no p reaches .05", "ask for more")
    select, sealed = sealed_pairs(trait, "select"), sealed_pairs(trait)
    contrast = [pair for pair in sealed if pair.kind == "contrast"]
    decoder = decoder_of(sae)
    chosen = union_of_methods(parts, push_attribution(contrast_gradient(model, sae.hook, select), decoder), n_features)
    features = list(chosen)
    controls, balance = match_controls(model, sae, features, n_controls=n_controls, seed=seed)
    with track("screen", 3, "steps") as step:
        signs = [direction_sign(parts, j) for j in features]
        rows = _pushed(Bench(model, sae.hook, sealed), decoder, features, signs, dose, seed)
        null = _pushed(Bench(model, sae.hook, contrast), decoder, list(controls), [1] * len(controls), dose, seed)
        step()
        told = SystemPromptRun(model, sae, contrast, positive_prompts(trait))
        step()
        effect = _mean_interval(told.effect, seed)
        _put_back(told, rows, effect, seed)
        step()
    first = push_attribution(contrast_gradient(model, sae.hook, sealed), decoder)
    length = dose * float(model.norm_medians([sae.hook])[0])
    others = torch.tensor([row["odd"] for row in null], dtype=torch.float64)
    for row in rows:
        odd = torch.tensor(row["odd"], dtype=torch.float64)
        row |= {"methods": chosen[row["feature"]], "predicted": row["sign"] * length * float(first[row["feature"]]),
                "p": float(rank_p(odd, row["sign"] * others))}  # fmt: skip
    return {
        "dose_norms": dose,
        "n_pairs": {"contrast": len(contrast), "control": len(sealed) - len(contrast)},
        "persona_effect": effect,
        "totals": {name: _mean_interval(-change, seed) for name, change in told.totals.items()},
        "features": rows,
        "controls": null,
        "balance": balance,
        "agreement": _agreement(rows, len(null)),
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


def _put_back(told: SystemPromptRun, rows: list[dict[str, Any]], effect: dict[str, Any], seed: int) -> None:
    """Adds to every row what of the persona's effect goes when its feature is put back."""
    weights = torch.full_like(told.effect, 1 / len(told.effect))
    gone = -told.restored([[row["feature"]] for row in rows])
    low, high = percentile_interval(contrast_draws(weights, seed) @ gone.T)
    predicted, known = -told.predicted(weights), effect["interval"][0] > 0
    for n, row in enumerate(rows):
        mean = float(gone[n].mean())
        row |= {
            "put_back": mean, "put_back_interval": [float(low[n]), float(high[n])],
            "put_back_predicted": float(predicted[row["feature"]]), "mediated": mean / effect["value"] if known else None,
        }  # fmt: skip


def _mean_interval(values: Tensor, seed: int) -> dict[str, Any]:
    low, high = percentile_interval(contrast_draws(torch.full_like(values, 1 / len(values)), seed) @ values)
    return {"value": float(values.mean()), "interval": [float(low), float(high)]}


def _agreement(rows: list[dict[str, Any]], n_controls: int) -> dict[str, Any]:
    """Predicted against measured, and how many features do more than nearly all controls."""
    return {
        "predicted": _correlation(rows, "predicted", "specific"),
        "put_back_predicted": _correlation(rows, "put_back_predicted", "put_back"),
        "beyond_controls": sum(row["p"] <= LEVEL for row in rows) / len(rows),
        "by_chance": math.floor(LEVEL * (n_controls + 1) + 1e-9) / (n_controls + 1),
    }


def _correlation(rows: list[dict[str, Any]], *columns: str) -> float:
    return float(torch.corrcoef(torch.tensor([[row[name] for row in rows] for name in columns], dtype=torch.float64))[0, 1])

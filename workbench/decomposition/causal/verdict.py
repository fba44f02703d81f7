"""The causal view: do the features that make up the vector move the model toward the trait, more than features like them?

For at most ten candidates, chosen by share, with the sign s_j of their mean code difference fixed beforehand:

    E_j = s_j (odd_j on the contrast pairs - odd_j on the control pairs)         at a dose matched by KL
    p_j = (1 + #{s_j E_k >= E_j over controls k}) / (1 + R)                      verified: BH q <= .05, sealed pairs

Null hypothesis: candidate j is exchangeable with a matched feature nobody chose, pushed the same way (+d activates a
feature, -d suppresses it). So a candidate of sign s is compared with the controls' effects times s, not with effects of
random or of both signs: if activating *any* such feature moved the contrast one way, symmetrised controls would call
every activating candidate verified, while controls of the same sign do not.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.base.errors import WorkbenchError
from workbench.base.progress import track
from workbench.base.randomness import derive_seed, generator
from workbench.base.store import content_hash
from workbench.decomposition.causal.controls import (
    N_CONTROLS,
    ControlDistribution,
    control_distribution,
    control_key,
    controls_cache,
    identity,
    pair_weights,
    sealed_pairs,
    shipped_path,
)
from workbench.decomposition.result import CausalRow, Decomposition
from workbench.maths.statistics import benjamini_hochberg, bootstrap_counts, percentile_interval, rank_p
from workbench.personas.causal import CausalInstrument, Effects

if TYPE_CHECKING:
    from workbench.models.model import Model
    from workbench.personas.traits import ReplyPair, Trait
    from workbench.saes.interface import SparseAutoencoder

logger = logging.getLogger(__name__)

LEVEL = 0.05
MAX_CANDIDATES = 10
N_MATCHED = 100
"""How many features of largest |share| the controls are matched to (and never drawn from)."""


def causal_view(
    decomposition: Decomposition,
    model: Model,
    sae: SparseAutoencoder,
    trait: Trait,
    *,
    controls: ControlDistribution | None = None,
    n_candidates: int = MAX_CANDIDATES,
    n_controls: int = N_CONTROLS,
    kl: float = 0.1,
    seed: int = 0,
    cache: str | Path | None = None,
) -> Decomposition:
    """The decomposition with causal rows for its top candidates and with the number expected to verify by chance.

    `controls` default to those shipped beside the SAE, then to those in the cache; else they are computed (minutes,
    resumable) and cached. With fewer than 20 m - 1 of them nothing can be verified and a warning says so. A trait
    without pairs gets no causal view, and a warning. Raises WorkbenchError for controls of another SAE, model or
    pair set, and for an SAE that does not belong to the decomposition.
    """
    pairs, candidates = sealed_pairs(trait), list(decomposition.candidates[: min(n_candidates, MAX_CANDIDATES)])
    _check_site(decomposition, model, sae)
    problem = _nothing_to_do(trait, pairs, candidates)
    if problem:
        return replace(decomposition, warnings=(*decomposition.warnings, problem))
    instrument = CausalInstrument(model, sae.hook, pairs, kl=kl)
    controls = controls or known_controls(model, sae, trait, kl=kl, cache=cache, n_controls=n_controls)
    if controls is None:
        controls = _computed(decomposition, model, sae, trait, n_controls, kl, seed, cache, instrument)
    controls.check(control_key(model, sae, trait, kl=kl))
    signs = [direction_sign(decomposition, feature) for feature in candidates]
    with track("causal effects", len(candidates), "features") as step:
        measured = instrument.measure(sae.decoder_directions[candidates])
        step(len(candidates))
    rows = causal_rows(candidates, signs, measured, pairs, controls, seed=seed)
    return _with_rows(decomposition, rows, signs, controls, candidates, seed)


def _check_site(decomposition: Decomposition, model: Model, sae: SparseAutoencoder) -> None:
    known = decomposition.sae.get("weights_hash")
    if known not in (None, sae.weights_hash):
        raise WorkbenchError(
            f"the decomposition was made with SAE {decomposition.sae.get('id')} ({str(known)[:12]})",
            f"the SAE given, {sae.id} ({sae.weights_hash[:12]})",
            "load the SAE that the decomposition names",
        )
    if sae.d_model != model.d_model:
        raise WorkbenchError(
            f"the SAE reads d_model={sae.d_model} but {model.name} has {model.d_model}",
            "an SAE of this model",
            "choose another SAE",
        )


def _nothing_to_do(trait: Trait, pairs: Sequence[ReplyPair], candidates: Sequence[int]) -> str | None:
    kinds = {pair.kind for pair in pairs}
    if "contrast" not in kinds or len(kinds) < 2:
        return f"No causal view: trait {trait.name!r} has no sealed contrast pairs with control pairs beside them."
    return None if candidates else "No causal view: there are no candidate features."


def direction_sign(decomposition: Decomposition, feature: int) -> int:
    """+1 if the trait activates the feature more (its mean code rises), -1 if less; by cosine when codes are unknown."""
    change = float(decomposition.delta_code[feature])
    if not change or change != change:  # zero or NaN: a bare vector
        change = float(decomposition.cosine[feature])
    return -1 if change < 0 else 1


def known_controls(
    model: Model,
    sae: SparseAutoencoder,
    trait: Trait,
    *,
    kl: float = 0.1,
    cache: str | Path | None = None,
    n_controls: int = N_CONTROLS,
) -> ControlDistribution | None:
    """The distribution shipped beside the SAE or cached, None when neither fits (a misfit is logged, never used)."""
    key = control_key(model, sae, trait, kl=kl)
    paths = [cached_path(key, cache)]
    if sae.folder is not None:
        paths.insert(0, shipped_path(sae.folder, trait.pairs_hash, kl))
    for path in filter(Path.is_file, paths):
        try:
            found = ControlDistribution.load(path)
            found.check(key)
        except WorkbenchError as error:
            logger.warning("%s is not used: %s", path, error)
            continue
        if len(found.features) >= n_controls:
            return found
    return None


def cached_path(key: dict[str, Any], cache: str | Path | None = None) -> Path:
    """Where a computed distribution is kept for later vectors."""
    return controls_cache(cache) / f"{content_hash(identity(key))[:24]}.json"


def features_to_match(decomposition: Decomposition, n: int = N_MATCHED) -> list[int]:
    """The features of largest |share| (of largest |cosine| for a bare vector), and the candidates."""
    ranking = decomposition.share if decomposition.has_shares else decomposition.cosine
    n = min(n, decomposition.d_sae // 4)  # a small SAE must have features left to be controls
    top = ranking.nan_to_num(0.0).abs().topk(max(n, 1)).indices.tolist()
    return list(dict.fromkeys([*top, *decomposition.candidates]))


def _computed(
    decomposition: Decomposition,
    model: Model,
    sae: SparseAutoencoder,
    trait: Trait,
    n_controls: int,
    kl: float,
    seed: int,
    cache: str | Path | None,
    instrument: CausalInstrument,
) -> ControlDistribution:
    found = control_distribution(
        model,
        sae,
        trait,
        features=features_to_match(decomposition),
        n_controls=n_controls,
        kl=kl,
        seed=seed,
        cache=cache,
        instrument=instrument,
    )
    found.save(cached_path(found.key, cache))
    return found


def causal_rows(
    candidates: Sequence[int],
    signs: Sequence[int],
    measured: Effects,
    pairs: Sequence[ReplyPair],
    controls: ControlDistribution,
    *,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> tuple[CausalRow, ...]:
    """One row per candidate: effect toward the trait, bootstrap interval over pairs, damage, dose, p, q, verdict."""
    sign = torch.tensor(signs, dtype=torch.float64)
    contrast, control = pair_weights(pairs)
    odd = measured.odd * sign[:, None]
    effect, control_odd, damage = odd @ (contrast - control), odd @ control, measured.even @ contrast
    null = controls.without(candidates)
    p = torch.stack([rank_p(e, s * null) for e, s in zip(effect, sign, strict=True)])
    q = benjamini_hochberg(p)
    verified = (q <= LEVEL + 1e-12) & (len(null) >= 20 * len(candidates) - 1)
    low, high = _intervals(odd, pairs, n_bootstrap, seed)
    columns = (candidates, effect, low, high, damage, measured.dose_norms, measured.kl, p, q, verified, control_odd)
    return tuple(_row(*values) for values in zip(*columns, strict=True))


def _row(feature: int, effect: Tensor, low: Tensor, high: Tensor, *rest: Tensor) -> CausalRow:
    damage, dose, kl, p, q, verified, control_odd = rest
    numbers = (float(damage), float(dose), float(kl), float(p), float(q))
    return CausalRow(int(feature), float(effect), (float(low), float(high)), *numbers, bool(verified), float(control_odd))


def _intervals(odd: Tensor, pairs: Sequence[ReplyPair], n_bootstrap: int, seed: int) -> tuple[Tensor, Tensor]:
    """95% intervals of the effect [f]: contrast pairs are resampled, and control pairs within their kind."""
    rng = generator(derive_seed("causal intervals", seed))
    kinds = [pair.kind for pair in pairs]
    weights = torch.zeros(n_bootstrap, len(pairs), dtype=torch.float64)
    n_controls = len(set(kinds)) - 1
    for kind in sorted(set(kinds)):
        members = [index for index, other in enumerate(kinds) if other == kind]
        share = 1.0 if kind == "contrast" else -1.0 / n_controls
        weights[:, members] = bootstrap_counts(len(members), n_bootstrap, rng) / len(members) * share
    return percentile_interval(weights @ odd.T)


def expected_by_chance(null: Tensor, signs: Sequence[int], *, n_draws: int = 2000, seed: int = 0) -> float:
    """How many of m candidates the rule verifies when they are controls themselves: the mean over random draws.

    Each draw takes m controls [R] out as pseudo-candidates, with the real candidates' signs, and tests them against
    the others.
    """
    m, rng = len(signs), generator(derive_seed("expected by chance", seed))
    if len(null) <= m:
        return 0.0
    sign = torch.tensor(signs, dtype=torch.float64)[:, None]
    found = 0
    for _ in range(n_draws):
        order = torch.randperm(len(null), generator=rng)
        drawn, others = null[order[:m]], null[order[m:]]
        p = rank_p(sign[:, 0] * drawn, sign * others)
        found += int(_step_up(p))
    return found / n_draws


def _step_up(p: Tensor) -> Tensor:
    """How many p-values Benjamini-Hochberg rejects at LEVEL: the largest k with p_(k) <= LEVEL k / m."""
    m = len(p)
    passed = p.sort().values <= LEVEL * torch.arange(1, m + 1, dtype=p.dtype) / m + 1e-12
    return (passed * torch.arange(1, m + 1)).max()


def _with_rows(
    decomposition: Decomposition,
    rows: Sequence[CausalRow],
    signs: Sequence[int],
    controls: ControlDistribution,
    candidates: Sequence[int],
    seed: int,
) -> Decomposition:
    null = controls.without(candidates)
    enough = len(null) >= 20 * len(candidates) - 1
    majority = 1 if sum(signs) >= 0 else -1
    added = {
        "expected_by_chance": expected_by_chance(null, signs, seed=seed) if enough else None,
        "causal_control_odd": (majority * null).tolist(),
        "causal_controls_used": {
            "n_controls": len(null),
            "kl": controls.key["kl"],
            "split": controls.key["split"],
            "pairs": controls.key["pairs"],
            "median_dose_norms": torch.tensor(controls.dose_norms).median().item(),
            "balance": controls.settings.get("balance"),
            "signs": {str(feature): sign for feature, sign in zip(candidates, signs, strict=True)},
        },
    }
    done = decomposition.with_causal(rows, added)
    if enough:
        return done
    problem = (
        f"Nothing can be verified: {len(null)} control features for {len(candidates)} candidates, "
        f"and {20 * len(candidates) - 1} are needed for q <= .05."
    )
    return replace(done, warnings=(*done.warnings, problem))


def add_causal(
    decomposition: Decomposition, vector: Any, sae: SparseAutoencoder, model: Model, *, trait: Trait | None = None,
    seed: int = 0, **options: Any,
) -> Decomposition:  # fmt: skip
    """`causal_view` with `trait` or the one that the vector names; a trait without files gets a warning instead of a view."""
    from workbench.personas.traits import load_trait

    try:
        trait = trait or load_trait(vector.trait)
    except WorkbenchError as error:
        problem = f"No causal view: the trait's written pairs cannot be read. {error}"
        return replace(decomposition, warnings=(*decomposition.warnings, problem))
    return causal_view(decomposition, model, sae, trait, seed=seed, **options)

"""The methods that a sweep compares: ways to steer with the vector, ways to make another direction, baselines and nulls.

Each direction is brought to the same distances on neutral text (KL), so that no method is judged by the length of its vector.
Ablation, caps and words have no dose: they are single points, or have levels of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.errors import unknown_name

from .. import directions
from .matching import NeutralShift
from .treatments import EditsAt, Treatment, ablating, adding, adding_incrementally, capping, kl_ladder

if TYPE_CHECKING:
    from workbench.decomposition.result import Decomposition
    from workbench.models.model import Model
    from workbench.personas.placebos import PlaceboVectors
    from workbench.personas.vectors import PersonaVector
    from workbench.saes.interface import SparseAutoencoder

KLS = (0.05, 0.15, 0.4)
QUANTILES = (0.75, 0.25, 0.02)
K_DENOISED, K_PCA = 32, 8
NULLS = ("random", "placebo", "random features")


@dataclass(frozen=True, eq=False, repr=False)
class Sources(Shown):
    """What directions are made of: a finished run's vector, its decomposition and SAE, tokens, placebos."""

    vector: PersonaVector
    parts: Decomposition
    sae: SparseAutoencoder
    activations: Tensor
    """Response tokens `[n, d_model]` at the SAE's hook, whose covariance random directions have."""
    folder: Path
    """The run's folder, for the paired rows behind the PCA."""
    placebos: PlaceboVectors | None = None
    k: int = K_DENOISED
    """Features of the denoised vector: the audit's choice on select pairs, where it made one."""
    feature: int | None = None
    """The single feature; None takes `best_feature` of the decomposition."""
    seed: int = 0


def dosed_methods(sources: Sources) -> dict[str, EditsAt]:
    """{method: dose -> edits} of everything that adds: `add` is the whole vector at its block."""
    one, vector, hook = sources, sources.vector, sources.sae.hook
    feature = best_feature(one.parts) if one.feature is None else one.feature
    found: dict[str, Any] = {
        "add": directions.whole(vector, hook),
        "denoised": directions.denoised(one.parts, one.sae, one.k),
        "best feature": directions.one_feature(one.parts, one.sae, feature),
        "difference of means": directions.difference_of_means(vector, hook),
        "PCA": directions.top_pca(directions.paired_rows(one.folder, hook), hook, K_PCA),
        "random features": directions.random_features(one.parts, one.sae, one.k, 1, seed=one.seed)[0],
        "random": directions.covariance_matched(one.activations, hook, 1, seed=one.seed)[0],
    }
    if one.placebos is not None:
        usable = directions.placebos(one.placebos, hook, trait=vector.trait)
        found |= {"placebo": usable[one.seed % len(usable)]} if usable else {}
    edits = {name: adding(direction) for name, direction in found.items()}
    return edits if len(vector.hooks) == 1 else edits | {"incremental": adding_incrementally(vector)}


def best_feature(parts: Decomposition) -> int:
    """The feature of the largest causal effect on the written pairs, or of the largest share where none was measured."""
    return max(parts.causal, key=lambda row: row.odd).feature if parts.causal else parts.top(1)[0]


def treatments(
    sources: Sources,
    model: Model,
    neutral: NeutralShift,
    *,
    wanted: int,
    kls: Sequence[float] = KLS,
    quantiles: Sequence[float] = QUANTILES,
    methods: Sequence[str] | None = None,
) -> tuple[Treatment, ...]:
    """Every method of the figure. `wanted` 1: toward the trait; -1: away from it, with ablation and caps beside. Raises
    WorkbenchError for a method that there is none of."""
    check_methods(sources, wanted, methods)
    found: list[Treatment] = []
    for name, edits_at in dosed_methods(sources).items():
        if methods is None or name in methods:
            found += kl_ladder(name, edits_at, kls, neutral, sign=wanted)
    if wanted < 0:
        found += _removals(sources, model, quantiles)
    found.append(Treatment("prompting", None, (), "positive" if wanted > 0 else "negative"))
    return tuple(one for one in found if methods is None or one.method in methods)


def check_methods(sources: Sources, wanted: int, methods: Sequence[str] | None) -> None:
    """Refuse what is no method here: a name of its own, a removal where the trait is to grow, a placebo where there are none."""
    if methods is None:
        return
    several = len(sources.vector.hooks) > 1
    removals = ["ablate", *(["ablate everywhere"] if several else []), "cap"] if wanted < 0 else []
    known = [*dosed_methods(sources), *removals, "prompting"]
    for name in methods:
        if name not in known:
            raise unknown_name("method", name, known)


def ordinary_projections(vector: PersonaVector, model: Model, *, per_row: int = 8) -> Tensor:
    """Coordinates `[n]` along the unit vector of tokens of answers under neutral prompts (without them: negative ones)."""
    arms = vector.rows["arm"]
    arm = "neutral" if bool((arms == "neutral").any()) else "negative"
    used: Any = vector.rows[arms == arm]
    unit = torch.nn.functional.normalize(vector.direction.float(), dim=0)
    spread = (tokens[:: max(1, len(tokens) // per_row)][:per_row] for tokens in _tokens(vector, model, used))
    return torch.cat([tokens.float() @ unit for tokens in spread])


def _removals(sources: Sources, model: Model, quantiles: Sequence[float]) -> Iterator[Treatment]:
    vector = sources.vector
    yield ablating(vector)
    if len(vector.hooks) > 1:
        yield ablating(vector, hooks=vector.hooks)
    yield from capping(vector, ordinary_projections(vector, model), quantiles)


def _tokens(vector: PersonaVector, model: Model, used: Any) -> Iterator[Tensor]:
    from workbench.decomposition.decompose import tokens_of

    wanted = set(used["id"])
    return (tokens for row_id, tokens in tokens_of(vector, vector.hook, model, used) if row_id in wanted and len(tokens))


def sources_of(
    run: str | Path, parts: Decomposition, sae: SparseAutoencoder, model: Model, *,
    placebos: PlaceboVectors | None = None, audit: Mapping[str, Any] | None = None, screen: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Sources:  # fmt: skip
    """The sources of a finished run's folder. `audit` (a behavioural audit) tells how many features the denoised vector has,
    `screen` which single feature does most on the written pairs."""
    from workbench.decomposition.causal.audit import sampled_tokens
    from workbench.personas.vectors import PersonaVector

    vector = PersonaVector.load(Path(run) / "vector")
    k = (audit or {}).get("k") or K_DENOISED
    screened = (screen or {}).get("features") or []
    feature = max(screened, key=lambda row: row["odd"])["feature"] if screened else None
    return Sources(vector, parts, sae, sampled_tokens(vector, sae.hook, model), Path(run), placebos, int(k), feature, seed)

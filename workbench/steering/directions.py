"""Directions that a persona vector is compared with: parts of it, other ways to make it, and its controls.

All lie at one hook point and point toward the trait where there is one. Lengths are those of the residual stream where the
recipe gives one, but a dose is in norms, so that any two of them are compared at the same size of push.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.randomness import derive_seed, generator
from workbench.base.tensors import tensor_hash
from workbench.decomposition.causal.audit import mixtures
from workbench.decomposition.causal.verdict import direction_sign
from workbench.decomposition.methods import decoder_of
from workbench.maths.geometry import covariance_matched_directions, isotropic_directions
from workbench.maths.pursuit import least_squares, signed_omp
from workbench.models.hookpoints import HookPoint
from workbench.personas.methods import Contrast, contrast, paired_differences
from workbench.personas.vectors import PersonaVector

if TYPE_CHECKING:
    from workbench.decomposition.result import Decomposition
    from workbench.personas.placebos import PlaceboVectors
    from workbench.saes.interface import SparseAutoencoder


@dataclass(frozen=True, eq=False, repr=False)
class NamedDirection(Shown):
    """A direction `[d_model]` (float32) at `hook` with a name and what it was made from; `Edit.add` and its siblings take it."""

    name: str
    hook: HookPoint
    direction: Tensor
    source: dict[str, Any] = field(default_factory=dict)
    """method, and its parameters and inputs (JSON types only)."""

    def __post_init__(self) -> None:
        row = self.direction.detach().to("cpu", torch.float32)
        if row.ndim != 1 or not bool(torch.isfinite(row).all()) or not float(row.norm()) > 0:
            raise WorkbenchError(
                f"the direction {self.name!r} has shape {tuple(row.shape)} and length {float(row.norm())}",
                "a direction [d_model] of finite length above 0",
                "check what it was made from",
            )
        object.__setattr__(self, "direction", row)

    def cosine(self, other: NamedDirection | Tensor) -> float:
        """The cosine with another direction."""
        row = other if isinstance(other, Tensor) else other.direction
        return float(torch.cosine_similarity(self.direction, row.float().cpu(), dim=0))

    def description(self) -> dict[str, Any]:
        """For provenance (JSON types only)."""
        return {"name": self.name, "hook": str(self.hook), "direction": tensor_hash(self.direction), **self.source}


def whole(vector: PersonaVector, hook: HookPoint | str | None = None) -> NamedDirection:
    """The persona vector itself at `hook` (its own by default): the difference of means over the rows that the judge kept."""
    where = vector.hook if hook is None else HookPoint.parse(hook)
    return NamedDirection("whole vector", where, vector.at(where), {"method": "mean difference, filtered", "trait": vector.trait})


def difference_of_means(vector: PersonaVector, hook: HookPoint | str | None = None) -> NamedDirection:
    """The difference of means over all rows, without the judge's filter."""
    where = vector.hook if hook is None else HookPoint.parse(hook)
    if vector.unfiltered is None:
        raise WorkbenchError(
            f"the vector of {vector.trait} was stored without its unfiltered direction", "a vector made by extract", "extract it"
        )
    source = {"method": "mean difference, unfiltered", "trait": vector.trait}
    return NamedDirection("difference of means", where, vector.unfiltered[vector.index(where)], source)


def denoised(parts: Decomposition, sae: SparseAutoencoder, k: int, *, by: str = "shares") -> NamedDirection:
    """The vector rebuilt from its `k` foremost features, by "shares" or by "pursuit".

    shares: r_k = sum of dz_j d_j over the features of the largest |share|, as in the audit; pursuit: the least-squares
    sum over the k atoms of the signed pursuit. Source: SAE-denoised vectors (arXiv 2505.15038).
    """
    if by == "pursuit":
        found = signed_omp(_vector(parts), decoder_of(sae), n_atoms=_checked_k(k, sae.d_sae))
        features = [index for index in found.support[0].tolist() if index >= 0]
        direction = found.dense(sae.d_sae)[0] @ decoder_of(sae)
    elif by == "shares":
        features = _by_share(parts)[: _checked_k(k, sae.d_sae)]
        direction = _sum(parts, sae, features)
    else:
        raise WorkbenchError(f"denoised by {by!r}", "shares or pursuit", "choose one of them")
    return _part(f"denoised, {k} features by {by}", direction, parts, sae, {"method": f"denoised by {by}", "k": k}, features)


def of_features(parts: Decomposition, sae: SparseAutoencoder, features: Sequence[int]) -> NamedDirection:
    """The sum of the vector's own parts dz_j d_j over `features`, each once; for a bare vector, their least-squares sum."""
    features = list(dict.fromkeys(features))
    return _part("chosen features", _sum(parts, sae, features), parts, sae, {"method": "chosen features"}, features)


def without_features(parts: Decomposition, sae: SparseAutoencoder, features: Sequence[int]) -> NamedDirection:
    """The vector less the parts dz_j d_j of `features`, each once: what is left when they are taken out."""
    features = list(dict.fromkeys(features))
    left = _vector(parts) - _sum(parts, sae, features)
    return _part("without the chosen features", left, parts, sae, {"method": "without chosen features"}, features)


def decoder_direction(sae: SparseAutoencoder, feature: int) -> NamedDirection:
    """A feature's decoder direction as it is: toward more of the feature."""
    _check_features([feature], sae)
    source = {"method": "decoder direction", "sae": sae.weights_hash, "features": [feature]}
    return NamedDirection(f"feature {feature}", sae.hook, decoder_of(sae)[feature], source)


def one_feature(parts: Decomposition, sae: SparseAutoencoder, feature: int) -> NamedDirection:
    """A feature's decoder direction, signed so that it points the way in which the trait changes it."""
    _check_features([feature], sae)
    sign = direction_sign(parts, feature)
    return _part(
        f"feature {feature}", sign * decoder_of(sae)[feature], parts, sae, {"method": "one feature", "sign": sign}, [feature]
    )


def paired_rows(folder: str | Path, hook: HookPoint | str | None = None) -> Contrast:
    """The kept extraction rows of a finished run with their stored mean activations, paired by question and instruction."""
    from workbench.personas.evidence import code_rows
    from workbench.personas.parts import PartStore
    from workbench.personas.reencoding import gather_means

    vector, store = PersonaVector.load(Path(folder) / "vector"), PartStore(Path(folder))
    where = vector.hook if hook is None else HookPoint.parse(hook)
    frame: Any = vector.rows
    frame = frame[(frame["weight"] != 0).to_numpy()].reset_index(drop=True)
    headers = [header for header in store.headers() if header.offers((where,), ())]
    held = {row_id for header in headers for row_id in header.ids}
    if not len(frame) or not set(frame["id"]) <= held:
        raise WorkbenchError(
            f"{folder} holds the mean activations of {len(held & set(frame['id']))} of {len(frame)} rows at {where}",
            "the rollouts that the vector was made from",
            "extract the trait again into this folder",
        )
    codes = code_rows(frame)
    means = gather_means(store, headers, frame["id"].tolist(), (where,))[:, 0]
    return contrast(means, codes.positive, codes.question, codes.instruction)


def top_pca(rows: Contrast, hook: HookPoint | str, k: int) -> NamedDirection:
    """The mean difference within the span of the `k` leading principal directions (not centred) of the paired differences.

    At k = 1 it is `paired_pca` of personas.methods (Zou et al. 2023, arXiv 2310.01405), at the mean difference's length there.
    """
    differences, mass = paired_differences(rows)
    leading = torch.linalg.svd(differences * mass.sqrt()[:, None], full_matrices=False).Vh[: max(k, 1)]
    difference = rows.weight @ rows.x
    source = {"method": "PCA of the paired differences", "k": k, "n_pairs": len(differences)}
    return NamedDirection(f"PCA, top {k}", HookPoint.parse(hook), (leading.T @ (leading @ difference)).float(), source)


def random_features(parts: Decomposition, sae: SparseAutoencoder, k: int, n: int, *, seed: int = 0) -> tuple[NamedDirection, ...]:
    """`n` denoisings by `k` random features: the vector's own parts dz_j d_j, at the length of `denoised(parts, sae, k)`.

    Drawn among the features that change between the arms, without the k foremost: what any k parts of the vector give at
    equal energy.
    """
    kept = denoised(parts, sae, k)
    foremost = set(kept.source["features"])
    others = [index for index in parts.delta_code.nan_to_num(0.0).nonzero().flatten().tolist() if index not in foremost]
    if len(others) < k:
        raise WorkbenchError(f"{len(others)} other features change", f"at least {k}", "choose a smaller k")
    random, found = generator(derive_seed("random denoising", seed)), []
    for number in range(n):
        chosen = [others[place] for place in torch.randperm(len(others), generator=random)[:k].tolist()]
        row = _sum(parts, sae, chosen)
        row = row * (kept.direction.norm() / row.norm())
        source = {"method": "random features", "k": k, "seed": seed, "number": number}
        found.append(_part(f"{k} random features, draw {number}", row, parts, sae, source, chosen))
    return tuple(found)


def random_mixtures(
    parts: Decomposition, kept: NamedDirection, activations: Tensor, n: int, *, seed: int = 0
) -> tuple[NamedDirection, ...]:
    """`n` directions with the cosine that `kept` has with the vector, the rest random with `activations`' covariance.

    What anything that close to the vector does; the control of the audit.
    """
    rows = mixtures(_vector(parts), kept.cosine(_vector(parts)), activations, n, seed)
    source = {"method": "random mixture", "cosine": kept.cosine(_vector(parts)), "seed": seed}
    return _numbered("random mixture", kept.hook, rows, source)


def covariance_matched(activations: Tensor, hook: HookPoint | str, n: int, *, seed: int = 0) -> tuple[NamedDirection, ...]:
    """`n` random directions with the covariance of `activations [n_tokens, d_model]`: the hard null."""
    rows = covariance_matched_directions(activations, n, generator(derive_seed("steering controls", seed)))
    return _numbered("random, covariance-matched", HookPoint.parse(hook), rows, {"method": "covariance-matched", "seed": seed})


def isotropic(d_model: int, hook: HookPoint | str, n: int, *, seed: int = 0) -> tuple[NamedDirection, ...]:
    """`n` random directions, uniform on the sphere: the easy null."""
    rows = isotropic_directions(n, d_model, generator(derive_seed("isotropic controls", seed)))
    return _numbered("random, isotropic", HookPoint.parse(hook), rows, {"method": "isotropic", "seed": seed})


def placebos(vectors: PlaceboVectors, hook: HookPoint | str, *, trait: str | None = None) -> tuple[NamedDirection, ...]:
    """The contrasts that are no persona, at `hook`, without those that come close to `trait`."""
    where = HookPoint.parse(hook)
    names = [vectors.names[place] for place in vectors.unrelated(trait)]
    return tuple(
        NamedDirection(f"placebo {name}", where, row, {"method": "placebo contrast", "placebo": name})
        for name, row in zip(names, vectors.at(where, trait=trait), strict=True)
    )


def _numbered(name: str, hook: HookPoint, rows: Tensor, source: dict[str, Any]) -> tuple[NamedDirection, ...]:
    return tuple(NamedDirection(f"{name} {n}", hook, row, {**source, "number": n}) for n, row in enumerate(rows))


def _vector(parts: Decomposition) -> Tensor:
    if not bool(parts.direction.isfinite().all()):
        raise WorkbenchError(
            "the decomposition does not hold its vector's direction", "one that does", "decompose the vector again"
        )
    return parts.direction.float()


def _by_share(parts: Decomposition) -> list[int]:
    if not parts.has_shares:
        raise WorkbenchError("a decomposition without shares", "one of a vector with its rollouts", "denoise by pursuit instead")
    shares = parts.share.nan_to_num(0.0).abs()
    return [index for index in shares.argsort(descending=True).tolist() if shares[index] > 0]


def _sum(parts: Decomposition, sae: SparseAutoencoder, features: Sequence[int]) -> Tensor:
    _check_features(features, sae)
    chosen, decoder = torch.tensor(list(features)), decoder_of(sae)
    own = parts.delta_code[chosen].float() if parts.has_shares else least_squares(_vector(parts), decoder, chosen)[0]
    return own @ decoder[chosen]


def _check_features(features: Sequence[int], sae: SparseAutoencoder) -> None:
    wrong = [index for index in features if not 0 <= index < sae.d_sae]
    if wrong or not features:
        raise WorkbenchError(
            f"the features {list(features)[:8]}",
            f"one or more from 0 to {sae.d_sae - 1} of {sae.id}",
            "take them from Decomposition.top()",
        )


def _checked_k(k: int, d_sae: int) -> int:
    if not 1 <= k <= d_sae:
        raise WorkbenchError(f"a denoising with k={k}", f"a number of features from 1 to {d_sae}", "choose for instance 16")
    return k


def _part(
    name: str, direction: Tensor, parts: Decomposition, sae: SparseAutoencoder, source: dict[str, Any], features: Sequence[int]
) -> NamedDirection:  # fmt: skip
    """A part of the vector with how much of it that is: cosine, and energy = 1 - |v - r|^2 / |v|^2 (as in the audit)."""
    vector = _vector(parts)
    energy = 1 - float((vector - direction).square().sum() / vector.square().sum())
    cosine = float(torch.cosine_similarity(vector, direction, dim=0))
    known = {"trait": parts.trait, "sae": sae.weights_hash, "features": list(features), "cosine": cosine, "energy": energy}
    return NamedDirection(name, sae.hook, direction, {**source, **known})

"""Do the same persona directions exist in another model? Similarity through shared texts, and vectors carried across.

Two models read the same neutral segments. A ridge map fitted on those alone (no persona text) carries a vector of the
source into the target's space, where it is compared with the target's own vector of that trait. Nulls: the map fitted on
permuted segments, and placebo contrasts carried the same way (a map that brings *every* contrast to its counterpart
shows that the models represent system prompts alike, not personas). Behaviour: the carried vector is added to the target.

Family, size and training stage are confounded between most pairs of models; the report names both models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.base.errors import WorkbenchError
from workbench.base.progress import track
from workbench.base.randomness import derive_seed, generator
from workbench.maths.similarity import RidgeMap, linear_cka, ridge_map, rsa
from workbench.maths.statistics import rank_p
from workbench.models.capture import capture
from workbench.models.hookpoints import HookPoint
from workbench.models.model import Model
from workbench.models.prompts import ChatTokens

MIN_SEGMENTS = 5000
N_PERMUTED = 20
_SPAN = "segment"


def split_segments(documents: Sequence[str], *, n_words: int = 24, limit: int | None = None) -> list[str]:
    """Neutral texts cut into segments of `n_words` words, whole segments only, in document order, each text once."""
    segments: dict[str, None] = {}
    for document in documents:
        words = document.split()
        for start in range(0, len(words) - n_words + 1, n_words):
            segments[" ".join(words[start : start + n_words])] = None
    return list(segments)[:limit]


def segment_means(model: Model, segments: Sequence[str], hooks: Sequence[HookPoint]) -> Tensor:
    """Mean activations `[n, n_hooks, d_model]` of plain texts at `hooks` (position 0 and sinks left out)."""
    rows = []
    for text in segments:
        ids = tuple(model.tokenizer(text)["input_ids"])
        rows.append(ChatTokens(ids, {_SPAN: ((0, len(ids)),)}))
    found = torch.zeros(len(rows), len(hooks), model.d_model)
    with track(f"segments through {model.name}", len(rows), "segments") as step:
        for indices, pooled in capture(model, rows, hooks, span=_SPAN):
            for index, one in zip(indices, pooled, strict=True):
                found[index] = one.means.nan_to_num()
            step(len(indices))
    return found


def similarity_map(source: Tensor, target: Tensor, *, n_items: int = 1000, seed: int = 0) -> dict[str, Any]:
    """CKA and RSA between all hooks of two models on shared segments `[n, n_hooks, d]`, and for permuted segments.

    {cka [h_source][h_target], rsa ..., cka_permuted, rsa_permuted: the largest value of any pair of hooks when one
    side's segments are permuted}. On `n_items` segments drawn at random.
    """
    random = generator(derive_seed("similarity map", seed))
    chosen = torch.randperm(len(source), generator=random)[:n_items]
    shuffled = chosen[torch.randperm(len(chosen), generator=random)]
    measures = {"cka": linear_cka, "rsa": rsa}
    found: dict[str, Any] = {"n_items": len(chosen)}
    for name, measure in measures.items():
        pairs = [[measure(source[chosen, i], target[chosen, j]) for j in range(target.shape[1])]
                 for i in range(source.shape[1])]  # fmt: skip
        null = [measure(source[shuffled, i], target[chosen, j])
                for i in range(source.shape[1]) for j in range(target.shape[1])]  # fmt: skip
        found |= {name: pairs, f"{name}_permuted": max(null)}
    return found


@dataclass(frozen=True, eq=False)
class Transfer:
    """How a source model's vectors fare in a target model; matrices `[n_source, n_target]`, rows carried over by the map.

    `cosines`: carried source trait against target trait. `placebo_cosines`: the same for placebo contrasts (None
    without them). `null`: |cosine| of every trait with its counterpart under maps of permuted segments `[n_maps, n]`.
    """

    traits: tuple[str, ...]
    placebos: tuple[str, ...]
    cosines: Tensor
    placebo_cosines: Tensor | None
    null: Tensor
    map: RidgeMap
    map_r2_permuted: float
    carried: Tensor
    """The carried vectors `[n, d_target]`, not normalised."""

    def matched(self) -> Tensor:
        """Cosine `[n]` of every carried vector with the target's own."""
        return self.cosines.diagonal()

    def to_json(self) -> dict[str, Any]:
        """Per trait {cosine, rank, p_permuted, null_q95}; retrieval rates of traits and placebos; the map's fit."""
        per_trait = {}
        for i, trait in enumerate(self.traits):
            value = self.cosines[i, i]
            per_trait[trait] = {
                "cosine": float(value), "rank": int((self.cosines[i] > value).sum()) + 1,
                "p_permuted": float(rank_p(value, self.null[:, i])), "null_q95": float(torch.quantile(self.null[:, i], 0.95)),
                "best": self.traits[int(self.cosines[i].argmax())],
            }  # fmt: skip
        off = self.cosines[~torch.eye(len(self.traits), dtype=torch.bool)]
        return {"traits": per_trait, "retrieval": _retrieval(self.cosines), "chance": 1 / len(self.traits),
                "mean_matched": float(self.matched().mean()), "mean_mismatched": float(off.mean()),
                **_placebo_figures(self.placebo_cosines), "map": {"r2_held_out": self.map.r2, "penalty": self.map.penalty,
                "n_segments": self.map.n_rows, "r2_permuted": self.map_r2_permuted},
                "cosines": self.cosines.tolist()}  # fmt: skip


def transfer(
    source_segments: Tensor,
    target_segments: Tensor,
    source_vectors: Mapping[str, Tensor],
    target_vectors: Mapping[str, Tensor],
    *,
    source_placebos: Mapping[str, Tensor] | None = None,
    target_placebos: Mapping[str, Tensor] | None = None,
    min_segments: int = MIN_SEGMENTS,
    n_permuted: int = N_PERMUTED,
    seed: int = 0,
) -> Transfer:
    """Fit the map on shared segments `[n, d]` and carry the vectors of the traits that both models have.

    Raises WorkbenchError for fewer than `min_segments` segments or no shared trait.
    """
    traits = tuple(name for name in source_vectors if name in target_vectors)
    if len(source_segments) < min_segments or not traits:
        raise WorkbenchError(
            f"{len(source_segments)} shared segments and {len(traits)} shared traits",
            f"at least {min_segments} neutral segments that both models read, and one trait or more",
            "give more neutral text, and extract the same traits from both models",
        )
    random = generator(derive_seed("transfer", seed))
    fitted = ridge_map(source_segments, target_segments, generator=random)
    source, target = (torch.stack([side[name] for name in traits]) for side in (source_vectors, target_vectors))
    carried = fitted.directions(source)
    nulls, r2 = [], []
    for _ in range(n_permuted):
        order = torch.randperm(len(source_segments), generator=random)
        permuted = ridge_map(source_segments[order], target_segments, generator=random)
        nulls.append(_cosines(permuted.directions(source), target).diagonal().abs())
        r2.append(permuted.r2)
    names = tuple(name for name in source_placebos or {} if name in (target_placebos or {}))
    placebo = None
    if names and source_placebos and target_placebos:
        sides = [torch.stack([side[name] for name in names]) for side in (source_placebos, target_placebos)]
        placebo = _cosines(fitted.directions(sides[0]), sides[1])
    return Transfer(traits, names, _cosines(carried, target), placebo, torch.stack(nulls), fitted, max(r2), carried)


def _cosines(rows: Tensor, columns: Tensor) -> Tensor:
    rows, columns = (torch.nn.functional.normalize(side.double(), dim=1) for side in (rows, columns))
    return rows @ columns.T


def _retrieval(cosines: Tensor) -> float:
    """The share of carried vectors whose nearest target vector is their own."""
    return float((cosines.argmax(dim=1) == torch.arange(len(cosines))).double().mean())


def _placebo_figures(cosines: Tensor | None) -> dict[str, Any]:
    if cosines is None:
        return {"placebo_mean_matched": None, "placebo_mean_mismatched": None, "placebo_retrieval": None, "n_placebos": 0}
    off = cosines[~torch.eye(len(cosines), dtype=torch.bool)]
    return {"placebo_mean_matched": float(cosines.diagonal().mean()), "placebo_mean_mismatched": float(off.mean()),
            "placebo_retrieval": _retrieval(cosines), "n_placebos": len(cosines)}  # fmt: skip

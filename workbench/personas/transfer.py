"""Do the same persona directions exist in another model? Similarity through shared texts, and vectors carried across.

Two models read the same neutral segments. A ridge map fitted on those alone (no persona text) carries a vector of the
source into the target's space, where it is compared with the target's own vector of that trait. Nulls:

- maps fitted on permuted segments: their images are directions drawn with the covariance of the target's segments;
- placebo contrasts carried by the true map, against the target's vector of the *trait*: what any contrast has in common
  with that vector once it is carried;
- placebo contrasts carried against their own counterparts: a map that brings *every* contrast home shows that the models
  represent system prompts alike, not personas.

Behaviour: the carried vector is added to the target, beside carried placebos (see `transfer_study`). Family, size and
training stage are confounded between most pairs of models; the report names both models.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.progress import track
from workbench.base.randomness import derive_seed, generator
from workbench.maths.similarity import Ridge, RidgeMap, cka_profile, n_aside, pair_order, rsa_profile
from workbench.maths.statistics import rank_p
from workbench.models.capture import capture
from workbench.models.hookpoints import HookPoint
from workbench.models.model import Model
from workbench.models.prompts import ChatTokens

MIN_SEGMENTS = 5000
"""Segments that the map is fitted on, at the least; more are read, to choose its penalty and to tell its fit."""
N_PERMUTED = 1000
N_PERMUTED_R2 = 20
N_PERMUTED_SIMILARITY = 20
_SPAN = "segment"
_PROFILES = {"cka": (cka_profile, True), "rsa": (rsa_profile, False)}


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


def similarity_map(
    source: Tensor, target: Tensor, *, n_items: int = 1000, n_permuted: int = N_PERMUTED_SIMILARITY, seed: int = 0
) -> dict[str, Any]:
    """CKA and RSA between all hooks of two models on shared segments `[n, n_hooks, d]`, and for permuted segments.

    {n_items, n_permuted, cka [h_source][h_target], rsa ...}; of the highest value that any pair of hooks reaches when one
    side's segments are permuted: cka_permuted_mean, cka_permuted_q95 and, the highest of all permutations, cka_permuted,
    and the same for rsa. On `n_items` segments drawn at random.
    """
    random = generator(derive_seed("similarity map", seed))
    chosen = torch.randperm(len(source), generator=random)[:n_items]
    orders = [torch.randperm(len(chosen), generator=random) for _ in range(n_permuted)]
    found: dict[str, Any] = {"n_items": len(chosen), "n_permuted": n_permuted}
    for name, (profile, diagonal) in _PROFILES.items():
        first, second = (torch.stack([profile(hook) for hook in side[chosen].unbind(1)]) for side in (source, target))
        highest = [(first @ second[:, pair_order(order, diagonal=diagonal)].T).max() for order in orders]
        found |= {name: (first @ second.T).tolist(), **_permuted(name, torch.stack(highest))}
    return found


def pair_similarity(
    source: Tensor, target: Tensor, *, n_items: int = 1000, n_permuted: int = 200, seed: int = 0
) -> dict[str, Any]:
    """`similarity_map` for a single pair of hooks, `[n, d]` each: numbers, not matrices."""
    found = similarity_map(source[:, None], target[:, None], n_items=n_items, n_permuted=n_permuted, seed=seed)
    return {**found, "cka": found["cka"][0][0], "rsa": found["rsa"][0][0]}


def _permuted(name: str, values: Tensor) -> dict[str, float]:
    return {f"{name}_permuted": float(values.max()), f"{name}_permuted_mean": float(values.mean()),
            f"{name}_permuted_q95": float(torch.quantile(values, 0.95))}  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class CarriedPlacebos(Shown):
    """Placebo contrasts that both models have, brought to the target by the map of the traits.

    vectors `[m, d_target]`: not normalised. own `[m, d_target]`: the target's own. related: per placebo the traits that it
    comes close to, in whose null it has no part.
    """

    names: tuple[str, ...]
    vectors: Tensor
    own: Tensor
    related: Mapping[str, Collection[str]] = field(default_factory=dict)

    def unrelated(self, trait: str) -> list[int]:
        """The places of the placebos that do not come close to `trait`."""
        return [i for i, name in enumerate(self.names) if trait not in self.related.get(name, ())]

    def cosines(self) -> Tensor:
        """Carried placebo against target placebo `[m, m]`."""
        return _cosines(self.vectors, self.own)


@dataclass(frozen=True, eq=False, repr=False)
class Transfer(Shown):
    """How a source model's vectors fare in a target model; matrices `[n_source, n_target]`, rows carried over by the map.

    cosines: carried source trait against target trait. null: |cosine| of every trait with its counterpart under maps of
    permuted segments `[n_maps, n]`, the largest over all penalties that the map could have been given. carried
    `[n, d_target]`: the carried vectors, target `[n, d_target]`: the target's own; not normalised.
    """

    traits: tuple[str, ...]
    cosines: Tensor
    null: Tensor
    map: RidgeMap
    map_r2_permuted: float
    carried: Tensor
    target: Tensor
    placebos: CarriedPlacebos | None = None

    def matched(self) -> Tensor:
        """Cosine `[n]` of every carried vector with the target's own."""
        return self.cosines.diagonal()

    def to_json(self) -> dict[str, Any]:
        """Per trait its cosine, its rank and its nulls; retrieval rates of traits and placebos; the map's fit."""
        off = self.cosines[~torch.eye(len(self.traits), dtype=torch.bool)]
        fit = {"r2_held_out": self.map.r2, "penalty": self.map.penalty, "n_segments": self.map.n_rows,
               "n_segments_penalty": self.map.n_aside, "n_segments_r2": self.map.n_aside,
               "r2_permuted": self.map_r2_permuted, "n_permuted_r2": N_PERMUTED_R2, "n_permuted": len(self.null)}  # fmt: skip
        return {"traits": {trait: self._row(i) | self._beside_placebos(i) for i, trait in enumerate(self.traits)},
                "retrieval": _retrieval(self.cosines), "chance": 1 / len(self.traits),
                "mean_matched": float(self.matched().mean()), "mean_mismatched": float(off.mean()),
                **_placebo_figures(self.placebos), "map": fit, "cosines": self.cosines.tolist()}  # fmt: skip

    def _row(self, i: int) -> dict[str, Any]:
        value = self.cosines[i, i]
        return {
            "cosine": float(value), "rank": int((self.cosines[i] > value).sum()) + 1,
            "p_permuted": float(rank_p(value, self.null[:, i])), "null_q95": float(torch.quantile(self.null[:, i], 0.95)),
            "best": self.traits[int(self.cosines[i].argmax())],
        }  # fmt: skip

    def _beside_placebos(self, i: int) -> dict[str, Any]:
        """{p_placebo, placebo_q95, n_placebos} of |cos(carried placebo, target's trait vector)|; placebo_own_share_below.

        That is the null: a carried contrast that is not this trait, against this trait's vector; placebos have no side,
        so |cos|. placebo_own_share_below is a comparison, no null: the share of placebos that come less close to *their
        own* counterparts than the trait does to its own.
        """
        there = [] if self.placebos is None else self.placebos.unrelated(self.traits[i])
        if self.placebos is None or not there:
            return {"p_placebo": None, "placebo_q95": None, "placebo_own_share_below": None, "n_placebos": 0}
        null = _cosines(self.placebos.vectors[there], self.target[i : i + 1])[:, 0].abs()
        own, value = self.placebos.cosines().diagonal()[there], self.cosines[i, i]
        return {"p_placebo": float(rank_p(value, null)), "placebo_q95": float(torch.quantile(null, 0.95)),
                "placebo_own_share_below": float((own < value).double().mean()), "n_placebos": len(there)}  # fmt: skip


def transfer(
    source_segments: Tensor,
    target_segments: Tensor,
    source_vectors: Mapping[str, Tensor],
    target_vectors: Mapping[str, Tensor],
    *,
    source_placebos: Mapping[str, Tensor] | None = None,
    target_placebos: Mapping[str, Tensor] | None = None,
    related: Mapping[str, Collection[str]] | None = None,
    min_segments: int = MIN_SEGMENTS,
    n_permuted: int = N_PERMUTED,
    seed: int = 0,
) -> Transfer:
    """Fit the map on shared segments `[n, d]` and carry the vectors of the traits that both models have.

    related: per placebo the traits that it comes close to. Raises WorkbenchError when fewer than `min_segments` segments
    are left to be fitted, or for no shared trait.
    """
    traits = tuple(name for name in source_vectors if name in target_vectors)
    _check(len(source_segments), len(traits), min_segments)
    random = generator(derive_seed("transfer", seed))
    ridge = Ridge(source_segments, target_segments, generator=random)
    fitted = ridge.map()
    source, target = (torch.stack([side[name] for name in traits]) for side in (source_vectors, target_vectors))
    carried = fitted.directions(source)
    # What a permuted map makes of a vector hardly depends on its penalty; the largest cosine of any penalty bounds it.
    null = [_matched(images, target).abs().amax(dim=1) for images in ridge.permuted_images(source, n_permuted, random)]
    r2 = [ridge.map(torch.randperm(ridge.n_rows, generator=random)).r2 for _ in range(N_PERMUTED_R2)]
    return Transfer(
        traits, _cosines(carried, target), torch.cat(null), fitted, max(r2), carried, target,
        _carried_placebos(fitted, source_placebos or {}, target_placebos or {}, related or {}),
    )  # fmt: skip


def _check(n: int, n_traits: int, min_segments: int) -> None:
    n_fitted = n - 2 * n_aside(n)
    if n_fitted < min_segments or not n_traits:
        raise WorkbenchError(
            f"a map fitted on {n_fitted} of {n} shared segments, and {n_traits} shared traits",
            f"at least {min_segments} neutral segments to fit (the others choose the penalty and tell r2), and one trait or more",
            "give more neutral text, and extract the same traits from both models",
        )


def _carried_placebos(
    fitted: RidgeMap, source: Mapping[str, Tensor], target: Mapping[str, Tensor], related: Mapping[str, Collection[str]]
) -> CarriedPlacebos | None:
    names = tuple(name for name in source if name in target)
    if not names:
        return None
    sides = [torch.stack([side[name] for name in names]) for side in (source, target)]
    return CarriedPlacebos(names, fitted.directions(sides[0]), sides[1], related)


def _cosines(rows: Tensor, columns: Tensor) -> Tensor:
    rows, columns = (torch.nn.functional.normalize(side.double(), dim=1) for side in (rows, columns))
    return rows @ columns.T


def _matched(images: Tensor, target: Tensor) -> Tensor:
    """Cosine `[..., n]` of images `[..., n, d]` with their counterparts `[n, d]`."""
    return torch.cosine_similarity(images, target.double(), dim=-1)


def _retrieval(cosines: Tensor) -> float:
    """The share of carried vectors whose nearest target vector is their own."""
    return float((cosines.argmax(dim=1) == torch.arange(len(cosines))).double().mean())


def _placebo_figures(placebos: CarriedPlacebos | None) -> dict[str, Any]:
    if placebos is None:
        return {"placebo_mean_matched": None, "placebo_mean_mismatched": None, "placebo_retrieval": None, "n_placebos": 0}
    cosines = placebos.cosines()
    off = cosines[~torch.eye(len(cosines), dtype=torch.bool)]
    return {"placebo_mean_matched": float(cosines.diagonal().mean()), "placebo_mean_mismatched": float(off.mean()),
            "placebo_retrieval": _retrieval(cosines), "n_placebos": len(cosines)}  # fmt: skip

"""Persona probing: can a few features tell a trait's two arms apart where the probe was not made, as raw activations can?

Rollouts come in as values (`PersonaRollouts`): responses re-encoded *without* the system prompt, so that nothing of the
instruction is in context. A probe is made from the kept extraction rows under one part of the instructions and scores
unseen questions under the other part; AUCs are means over the divisions ("cells"). Beside every dictionary stand the same
probe on raw activations and on random dictionaries of the same L0; `persona_probe_gap` = AUC_raw - AUC_sae, where the number
of features k <= 32 is chosen by cross-validation over questions inside the rows that make the probe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.base.display import Shown
from workbench.base.randomness import derive_seed, generator
from workbench.base.store import content_hash
from workbench.saes.evaluation.probing import N_FOLDS, RAW, fit_probe, mean_difference

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.models.prompts import ChatTokens
    from workbench.saes.evaluation.pooling import PooledRows

PERSONA_KS = (1, 2, 4, 8, 16, 32)
N_BOOTSTRAP = 200


@dataclass(frozen=True, eq=False, repr=False)
class PersonaRollouts(Shown):
    """One trait's rollouts of two arms, as values; all tensors `[n]` but `vector [d_model]`.

    `chats` are the responses without the system prompt (span "response"), `in_context` whole conversations as sampled, for
    the fitness on this kind of text. `positive` is the trait's arm, `question` codes, `judged` the judge's score or NaN.
    `cells` are (rows that make the probe, rows that are scored) as bool masks: no question and no instruction on both sides.
    `vector` points toward the trait, at the SAE's hook.
    """

    trait: str
    chats: tuple[ChatTokens, ...]
    positive: Tensor
    question: Tensor
    judged: Tensor
    cells: tuple[tuple[Tensor, Tensor], ...]
    vector: Tensor
    in_context: tuple[ChatTokens, ...] = ()

    def identity(self) -> dict[str, Any]:
        """What a figure made from these rollouts depends on: hashes of all of it."""
        from workbench.base.tensors import tensor_hash

        tensors = {name: getattr(self, name) for name in ("positive", "question", "judged", "vector")}
        tensors |= {f"cells.{i}.{j}": mask for i, cell in enumerate(self.cells) for j, mask in enumerate(cell)}
        chats = [[(chat.ids, chat.spans) for chat in rows] for rows in (self.chats, self.in_context)]
        return {"tensors": tensor_hash(tensors), "chats": content_hash(chats)}


@dataclass(frozen=True, eq=False)
class _Scored:
    """Per cell the scores of its scored rows, and the chosen numbers of features."""

    scores: list[Tensor]
    ks: list[int]


def persona_probing(
    rollouts: PersonaRollouts, pooled: PooledRows, *, ks: Sequence[int] = PERSONA_KS, seed: int = 0
) -> dict[str, Any]:
    """The trait's figures: AUC with interval per dictionary and per k, the gap to raw, within-arm rank correlations.

    Intervals (95%) draw the scored questions with replacement, the probes held fixed. `within_positive` is the mean Spearman
    correlation of probe score and judge score inside the positive arm: between arms any difference separates, within one
    only what the judge sees does. The null of every AUC is .5; that of the gap is 0.
    """
    cells = [cell for cell in rollouts.cells if _usable(rollouts, cell)]
    if not cells:
        return {"trait": rollouts.trait, "measured": False, "reason": "no division holds both arms on both sides"}
    counts = _draws(rollouts.question, seed)
    raw = _evaluate(rollouts, pooled.raw, cells, None)
    areas = {RAW: _areas(rollouts, cells, raw.scores, counts)}
    found: dict[str, Any] = {RAW: _summary(rollouts, cells, raw, areas[RAW])}
    for name, codes in pooled.codes.items():
        best = _evaluate(rollouts, codes, cells, ks)
        areas[name] = _areas(rollouts, cells, best.scores, counts)
        found[name] = _summary(rollouts, cells, best, areas[name]) | {
            "auc_by_k": {str(k): _plain_auc(rollouts, codes, cells, k) for k in ks},
            "k_chosen": best.ks,
            "gap": float(areas[RAW][0] - areas[name][0]),
            "gap_interval": _interval(areas[RAW] - areas[name]),
        }
    return {
        "trait": rollouts.trait,
        "measured": True,
        "n_rows": len(rollouts.positive),
        "n_cells": len(cells),
        "n_scored_questions": len({int(q) for _, score in cells for q in rollouts.question[score].unique()}),
        "dictionaries": found,
    }


def top_persona_features(
    rollouts: PersonaRollouts, codes: Any, decoder: Tensor, n: int = 30
) -> tuple[list[int], list[float]]:
    """(features, shares): the `n` features with the largest |share| of the vector, dz_j <d_j, v> / |v|^2.

    dz is the difference of mean codes of the rows that make any probe; source: the accounting identity (`maths.identity`).
    """
    make = _union([make for make, _ in rollouts.cells])
    dz = mean_difference(_take(codes, make), rollouts.positive[make])
    vector = rollouts.vector.double().cpu()
    shares = dz * (decoder.double().cpu() @ vector) / vector.square().sum()
    top = shares.abs().topk(min(n, len(shares))).indices
    return top.tolist(), shares[top].tolist()


def _union(masks: Sequence[Tensor]) -> Tensor:
    import torch

    return torch.stack(list(masks)).any(0)


def _usable(rollouts: PersonaRollouts, cell: tuple[Tensor, Tensor]) -> bool:
    return all(len(rollouts.positive[part].unique()) == 2 for part in cell)


def _take(x: Any, mask: Tensor) -> Any:
    import torch

    return x[mask] if isinstance(x, torch.Tensor) else x[mask.numpy()]


def _evaluate(
    rollouts: PersonaRollouts, x: Any, cells: Sequence[tuple[Tensor, Tensor]], ks: Sequence[int] | None
) -> _Scored:
    scores, chosen = [], []
    for make, score in cells:
        own, labels, folds = _take(x, make), rollouts.positive[make], rollouts.question[make] % N_FOLDS
        k = None if ks is None else _best_k(own, labels, folds, ks)
        scores.append(fit_probe(own, labels, k=k, folds=folds).scores(_take(x, score)))
        chosen.append(0 if k is None else k)
    return _Scored(scores, chosen)


def _best_k(x: Any, labels: Tensor, folds: Tensor, ks: Sequence[int]) -> int:
    """The k with the highest AUC on held-out folds of questions; the smallest of equals, the largest where no fold counts."""
    from workbench.maths.statistics import auc

    totals = dict.fromkeys(ks, 0.0)
    for fold in folds.unique():
        held = folds == fold
        if any(len(labels[part].unique()) < 2 for part in (held, ~held)):
            continue
        for k in ks:
            probe = fit_probe(_take(x, ~held), labels[~held], k=k, folds=folds[~held])
            totals[k] += float(auc(probe.scores(_take(x, held)), labels[held]))
    best = max(ks, key=lambda k: (round(totals[k], 9), -k))
    return best if totals[best] else max(ks)


def _plain_auc(rollouts: PersonaRollouts, x: Any, cells: Sequence[tuple[Tensor, Tensor]], k: int) -> float:
    from workbench.maths.statistics import auc

    areas = []
    for make, score in cells:
        folds = rollouts.question[make] % N_FOLDS
        probe = fit_probe(_take(x, make), rollouts.positive[make], k=k, folds=folds)
        areas.append(float(auc(probe.scores(_take(x, score)), rollouts.positive[score])))
    return sum(areas) / len(areas)


def _draws(question: Tensor, seed: int) -> Tensor:
    """Row weights [1 + N_BOOTSTRAP, n]: the data as it is, then questions drawn with replacement."""
    import torch

    from workbench.maths.statistics import bootstrap_counts

    n = int(question.max()) + 1
    drawn = bootstrap_counts(n, N_BOOTSTRAP, generator(derive_seed("persona probing", seed)))
    return torch.cat([torch.ones(1, n, dtype=torch.float64), drawn])[:, question]


def _areas(
    rollouts: PersonaRollouts, cells: Sequence[tuple[Tensor, Tensor]], scores: Sequence[Tensor], counts: Tensor
) -> Tensor:
    """Mean AUC over the cells, per replicate [1 + N_BOOTSTRAP]."""
    import torch

    from workbench.maths.separation import replicated_auc

    columns = [
        replicated_auc(own[None].expand(len(counts), -1), rollouts.positive[score], counts[:, score])
        for own, (_, score) in zip(scores, cells, strict=True)
    ]
    return torch.stack(columns).nanmean(0)


def _summary(
    rollouts: PersonaRollouts, cells: Sequence[tuple[Tensor, Tensor]], scored: _Scored, areas: Tensor
) -> dict[str, Any]:
    return {
        "auc": float(areas[0]),
        "auc_interval": _interval(areas),
        "within_positive": _within(rollouts, cells, scored.scores),
    }


def _interval(areas: Tensor) -> list[float]:
    from workbench.maths.statistics import percentile_interval

    low, high = percentile_interval(areas[1:])
    return [float(low), float(high)]


def _within(
    rollouts: PersonaRollouts, cells: Sequence[tuple[Tensor, Tensor]], scores: Sequence[Tensor]
) -> float | None:
    import torch
    from scipy.stats import spearmanr

    values = []
    for own, (_, score) in zip(scores, cells, strict=True):
        judged = rollouts.judged[score]
        chosen = rollouts.positive[score] & torch.isfinite(judged)
        if int(chosen.sum()) > 2 and own[chosen].std() > 0 and judged[chosen].std() > 0:
            values.append(float(spearmanr(own[chosen].numpy(), judged[chosen].numpy())[0]))  # pyright: ignore[reportArgumentType]
    return sum(values) / len(values) if values else None


def persona_summary(per_trait: Sequence[Mapping[str, Any]], sae: str) -> dict[str, Any]:
    """Means over the measured traits: `persona_probe_auc`, `persona_probe_gap`, and that of each random dictionary."""
    measured = [one for one in per_trait if one["measured"]]
    if not measured:
        return {"persona_probe_auc": None, "persona_probe_gap": None}

    def mean(name: str, key: str) -> float:
        return sum(one["dictionaries"][name][key] for one in measured) / len(measured)

    others = [name for name in measured[0]["dictionaries"] if name != RAW]
    return {
        "persona_probe_auc_raw": mean(RAW, "auc"),
        "persona_probe_auc": mean(sae, "auc"),
        "persona_probe_gap": mean(sae, "gap"),
        "persona_probe_auc_of": {name: mean(name, "auc") for name in others},
    }



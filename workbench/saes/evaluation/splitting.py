"""Feature splitting and absorption: one concept over several features, and a main feature that falls silent for another.

*Splitting* (Bricken et al. 2023, "Towards Monosemanticity"): a feature with a decoder neighbour at cosine > .7 is one of a
pair that means nearly the same; the pair is *nested* when the rarer of the two fires almost only where the commoner one does
(a parent and its child), which is told from chance by pairs of features of the same densities that are no neighbours.

*Absorption* (Chanin et al. 2024, arXiv 2409.14507), on concepts that a small model has: properties of the token itself (it
opens with a capital, is a number, begins with s, ...), which the tokenizer labels without error. The probe direction is the
logistic one on raw activations, made on one half; the main feature is the one with the best AUC there. On the other half, which
shares neither a document nor a token type with the first (as Chanin et al. keep words apart): the share of positive tokens that
the probe finds on which the main feature is silent and another feature, whose decoder direction points along the probe
(cosine > .025), gives at least two fifths of what the active features add along it. A simplification of Chanin et al.: their
first-letter task is spelling, which needs a model that can spell.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.base.display import Shown
from workbench.base.randomness import derive_seed, generator
from workbench.saes.evaluation.fitness import pieces
from workbench.saes.evaluation.probing import fit_probe

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.saes.evaluation.sample import TokenSample
    from workbench.saes.interface import SparseAutoencoder

NEIGHBOUR_COSINE = 0.7
NESTED = 0.9
"""A pair is nested when the rarer feature fires beside the commoner one at least so often."""
MAX_PAIRS = 20_000
MIN_FIRINGS = 10
ALONG_PROBE = 0.025
ABSORBED_SHARE = 0.4
MIN_EXAMPLES = 50
MIN_MAIN_AUC = 0.75
"""A concept whose best single feature is worse than this has no main feature that could be absorbed."""

CONCEPTS: dict[str, Callable[[str], bool]] = {
    "capital": lambda text: bool(re.fullmatch(r"\s?[A-Z].*", text)),
    "number": lambda text: bool(re.fullmatch(r"\s?\d+", text)),
    "punctuation": lambda text: bool(re.fullmatch(r"\s?[^\w\s]+", text)),
    "starts_with_s": lambda text: bool(re.fullmatch(r"\s[sS]\w*", text)),
    "starts_with_t": lambda text: bool(re.fullmatch(r"\s[tT]\w*", text)),
    "plural_or_s": lambda text: bool(re.fullmatch(r"\s?\w{2,}s", text)),
}


@dataclass(frozen=True, eq=False, repr=False)
class Pairs(Shown):
    """Pairs of features: `first [p]` fires more often than `second [p]`; `together [p]` = share of second's firings."""

    first: Tensor
    second: Tensor
    together: Tensor


def splitting(sae: SparseAutoencoder, activations: Tensor, *, seed: int = 0) -> dict[str, Any]:
    """Shares of the alive features with a decoder neighbour, and with a nested one, beside pairs of equal density.

    "Alive" are features that fire on at least 10 of the tokens `activations [n, d_model]`; rarer ones say nothing about
    nesting. `nested_chance` is the share of nested pairs among features drawn at random with the parent's density.
    """
    import torch

    counts = firing_counts(sae, activations)
    alive = (counts >= MIN_FIRINGS).nonzero().flatten()
    first, second, n_found = neighbour_pairs(sae.decoder_directions, counts, alive)
    pairs = cofiring(sae, activations, first, second, counts)
    matched = _same_density(first, counts, alive, seed)
    chance = cofiring(sae, activations, matched, second, counts)
    nested = pairs.together >= NESTED
    children = pairs.second[nested].unique()
    return {
        "n_alive": len(alive),
        "neighbour_share": len(torch.cat([first, second]).unique()) / max(len(alive), 1),
        "nested_share": len(children) / max(len(alive), 1),
        "n_pairs": n_found,
        "nested_pairs": float(nested.double().mean()) if len(nested) else None,
        "nested_chance": float((chance.together >= NESTED).double().mean()) if len(nested) else None,
        "cosine": NEIGHBOUR_COSINE,
    }


def firing_counts(sae: SparseAutoencoder, activations: Tensor) -> Tensor:
    """On how many of the tokens each feature fires [d_sae] (int64)."""
    import torch

    counts = torch.zeros(sae.d_sae, dtype=torch.int64)
    for part in pieces(activations, sae.d_sae):
        counts += (sae.encode(part) != 0).sum(0).cpu()
    return counts


def neighbour_pairs(decoder: Tensor, counts: Tensor, alive: Tensor) -> tuple[Tensor, Tensor, int]:
    """(parents [p], children [p], pairs found): pairs of alive features at cosine > .7, the commoner one first.

    At most `MAX_PAIRS`, those with the largest cosine, so that memory stays bounded.
    """
    import torch

    unit = torch.nn.functional.normalize(decoder[alive.to(decoder.device)].float(), dim=1).cpu()
    best: tuple[Tensor, Tensor] = (torch.empty(0), torch.empty(0, 2, dtype=torch.int64))
    n_found = 0
    start = 0
    for part in pieces(unit, len(unit)):
        cosines = part @ unit.T
        found = (cosines > NEIGHBOUR_COSINE).nonzero()
        found = found[found[:, 0] + start < found[:, 1]]
        n_found += len(found)
        values = torch.cat([best[0], cosines[found[:, 0], found[:, 1]]])
        places = torch.cat([best[1], found + torch.tensor([start, 0])])
        order = values.argsort(descending=True)[:MAX_PAIRS]
        best = values[order], places[order]
        start += len(part)
    ends = alive[best[1]]
    swap = counts[ends[:, 0]] < counts[ends[:, 1]]
    parents = torch.where(swap, ends[:, 1], ends[:, 0])
    return parents, torch.where(swap, ends[:, 0], ends[:, 1]), n_found


def cofiring(
    sae: SparseAutoencoder, activations: Tensor, first: Tensor, second: Tensor, counts: Tensor
) -> Pairs:
    """How often `first` fires where `second` does, as a share of the second's firings."""
    import torch

    both = torch.zeros(len(first), dtype=torch.int64)
    for part in pieces(activations, sae.d_sae + 2 * len(first)):
        fired = (sae.encode(part) != 0).cpu()
        both += (fired[:, first] & fired[:, second]).sum(0)
    return Pairs(first, second, both.double() / counts[second].clamp_min(1))


def _same_density(parents: Tensor, counts: Tensor, alive: Tensor, seed: int) -> Tensor:
    """For every parent another alive feature that fires about as often: a neighbour in the order of densities."""
    import torch

    order = alive[counts[alive].argsort()]
    if len(order) < 2 or not len(parents):
        return parents
    place = torch.zeros(len(counts), dtype=torch.int64)
    place[order] = torch.arange(len(order))
    random = generator(derive_seed("same density", seed))
    step = torch.randint(1, min(20, len(order) - 1) + 1, (len(parents),), generator=random)
    sign = torch.where(torch.rand(len(parents), generator=random) < 0.5, -1, 1)
    moved = place[parents] + step * sign
    inside = (moved >= 0) & (moved < len(order))
    return order[torch.where(inside, moved, place[parents] - step * sign).clamp(0, len(order) - 1)]


def token_concepts(texts: Mapping[int, str], ids: Tensor) -> dict[str, Tensor]:
    """Labels `[n]` (bool) of the concepts for tokens `ids [n]`, given the text of every token."""
    import torch

    return {
        name: torch.tensor([holds(texts[int(token)]) for token in ids]) for name, holds in CONCEPTS.items()
    }


def token_texts(tokenizer: Any, ids: Tensor) -> dict[int, str]:
    """The text of each token that occurs in `ids`."""
    return {int(token): tokenizer.decode([int(token)]) for token in ids.unique()}


def absorption(
    sae: SparseAutoencoder, sample: TokenSample, labels: Tensor, *, max_train: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """One concept's figures: probe AUC, the main feature with its AUC and recall, and the absorption rate.

    `absorption_rate` is over positive tokens of the second half that the probe finds (a score above the midpoint of the two
    classes' means in the first half); None where there are too few examples or no main feature (`reason` says which).
    """
    import torch

    from workbench.maths.statistics import auc

    make, score = halves(sample.ids, sample.documents, labels)
    if min(int((labels[part] == side).sum()) for part in (make, score) for side in (True, False)) < MIN_EXAMPLES:
        return {"absorption_rate": None, "reason": f"fewer than {MIN_EXAMPLES} examples a class and half"}
    train = _balanced(make, labels, max_train, seed)
    probe = fit_probe(sample.activations[train], labels[train])
    scores = probe.scores(sample.activations)
    direction = torch.nn.functional.normalize(probe.weight / probe.spread, dim=0).float()
    main, main_auc = main_feature(sae, sample.activations[train], labels[train])
    known: dict[str, Any] = {
        "probe_auc": float(auc(scores[score], labels[score])),
        "main_feature": main,
        "main_auc": main_auc,
    }
    if main_auc < MIN_MAIN_AUC:
        return known | {"absorption_rate": None, "reason": f"no feature tells the concept at an AUC of {MIN_MAIN_AUC}"}
    boundary = (scores[make & labels].mean() + scores[make & ~labels].mean()) / 2
    found = score & labels & (scores > boundary)
    silent, absorbed = _absorbed(sae, sample.activations[found], main, direction)
    return known | {
        "n_found": int(found.sum()),
        "main_recall": 1 - silent / max(int(found.sum()), 1),
        "absorption_rate": absorbed / max(int(found.sum()), 1),
    }


def halves(ids: Tensor, documents: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(tokens that make the probe, tokens that are scored), bool `[n]`: no document and no token type on both sides.

    Every second document, and of each class token types of (about) half its tokens; the other two quarters are left out.
    """
    import torch

    early = documents.unique(return_inverse=True)[1] % 2 == 0
    types, index = ids.unique(return_inverse=True)
    chosen, given = torch.zeros(len(types), dtype=torch.bool), torch.zeros(len(types), dtype=torch.bool)
    for side in (labels, ~labels):
        counts = index[side].bincount(minlength=len(types)) * ~given
        balance = 0
        for place in counts.argsort(descending=True, stable=True)[: int((counts > 0).sum())].tolist():
            chosen[place], given[place] = balance <= 0, True
            balance += int(counts[place]) if balance <= 0 else -int(counts[place])
    return early & chosen[index], ~early & ~chosen[index]


def main_feature(sae: SparseAutoencoder, activations: Tensor, labels: Tensor) -> tuple[int, float]:
    """(feature, AUC): the feature whose codes tell the labels best, among the 64 with the largest mean difference."""
    import torch

    from workbench.maths.statistics import auc

    means = {True: torch.zeros(sae.d_sae, dtype=torch.float64), False: torch.zeros(sae.d_sae, dtype=torch.float64)}
    for side in (True, False):
        for part in pieces(activations[labels == side], sae.d_sae):
            means[side] += sae.encode(part).sum(0).cpu().double() / int((labels == side).sum())
    candidates = (means[True] - means[False]).topk(min(64, sae.d_sae)).indices
    codes = torch.cat([sae.encode(part)[:, candidates.to(sae.device)].cpu() for part in pieces(activations, sae.d_sae)])
    areas = auc(codes.T.contiguous(), labels)
    return int(candidates[areas.argmax()]), float(areas.max())


def _absorbed(sae: SparseAutoencoder, activations: Tensor, main: int, direction: Tensor) -> tuple[int, int]:
    """(tokens on which the main feature is silent, those among them on which another feature speaks for it)."""
    along = sae.decoder_directions.float().cpu() @ direction
    cosine = along / sae.decoder_directions.float().cpu().norm(dim=1).clamp_min(1e-12)
    silent = absorbed = 0
    for part in pieces(activations, sae.d_sae):
        codes = sae.encode(part).float().cpu()
        quiet = codes[:, main] == 0
        added = codes[quiet] * along
        total = added.clamp_min(0).sum(1)
        strongest = (added * (cosine > ALONG_PROBE)).max(dim=1).values
        silent += int(quiet.sum())
        absorbed += int(((strongest >= ABSORBED_SHARE * total) & (strongest > 0)).sum())
    return silent, absorbed


def _balanced(half: Tensor, labels: Tensor, most: int, seed: int) -> Tensor:
    """Indices of as many positive as negative rows of the half, at most `most` in all, in their order."""
    import torch

    random = generator(derive_seed("absorption", seed))
    sides = [(half & side).nonzero().flatten() for side in (labels, ~labels)]
    n = min(most // 2, *map(len, sides))
    return torch.cat([side[torch.randperm(len(side), generator=random)[:n]] for side in sides]).sort().values

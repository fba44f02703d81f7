"""The running state of one pass over documents: counts, histograms and windows of the tracked features."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.labeling.contexts.same_token import Pool
from workbench.labeling.contexts.sightings import (
    N_BINS,
    Sighting,
    Sightings,
    activation_bin,
    distinct,
    priority,
    window_bounds,
)
from workbench.labeling.contexts.streams import TokenDocument, is_scoring
from workbench.labeling.evidence import Context, FeatureEvidence
from workbench.labeling.lens import promoted_and_suppressed
from workbench.labeling.tokens import special_ids, token_strings
from workbench.labeling.words import words_of
from workbench.saes.token_rows import SINK_RATIO, activations_at

if TYPE_CHECKING:
    from workbench.models.model import Model
    from workbench.saes.interface import SparseAutoencoder

log = logging.getLogger(__name__)

ENCODE_ROWS = 2048
N_RANDOM = 60
N_CONTRAST = 4


@dataclass(frozen=True)
class HeldOut:
    """A context of the scoring half, and which of the collected features fire anywhere in it."""

    context: Context
    active: frozenset[int]


@dataclass(frozen=True, repr=False)
class Collection(Shown):
    """What one pass found.

    `evidence` per asked feature (explaining half); `held_out` contexts of the scoring half per asked feature *and* decoder
    neighbour; `neighbours` the nearest features in decoder space; `random` contexts of the scoring half at random tokens;
    `background` how often each word was read; `n_tokens` how many tokens counted; `same_token` per asked feature contexts of
    the scoring half whose marked token is one of the feature's peak tokens while the feature fires nowhere in them; `contrast`
    per asked feature windows of the *explaining* half in which it is silent, for whoever explains: the strongest of its decoder
    neighbours and random ones, in turns.
    """

    evidence: Mapping[int, FeatureEvidence]
    held_out: Mapping[int, tuple[HeldOut, ...]]
    neighbours: Mapping[int, tuple[int, ...]]
    random: tuple[HeldOut, ...]
    background: Counter[str]
    n_tokens: int
    same_token: Mapping[int, tuple[HeldOut, ...]] = field(default_factory=dict)
    contrast: Mapping[int, tuple[Context, ...]] = field(default_factory=dict)


def warn_of_missing(collection: Collection) -> None:
    """Log each kind of negative that no feature has any of: scores against it cannot be had, which must be said."""
    if not collection.evidence:
        return
    near = [collection.held_out.get(other) for others in collection.neighbours.values() for other in others]
    wanted_near = any(collection.neighbours.values())
    kinds = {"random": bool(collection.random), "neighbours": any(near) or not wanted_near,
             "same_token": any(collection.same_token.values())}  # fmt: skip
    for kind in (kind for kind, there in kinds.items() if not there):
        log.warning("no feature has any negatives of the kind %s in these texts: read more of them", kind)


class Reading:
    """""The running state of one pass."""

    def __init__(
        self, sae: SparseAutoencoder, model: Model, tracked: list[int], context: int, *, capacity: int
    ):
        self.sae, self.model, self.tracked, self.context = sae, model, tracked, context
        self.columns = torch.tensor(tracked, dtype=torch.long)
        self.explaining = [Sightings(capacity) for _ in tracked]
        self.scoring = [Sightings(capacity) for _ in tracked]
        self.random: dict[bool, list[tuple[int, Sighting]]] = {False: [], True: []}
        self.pool = Pool(model.tokenizer)
        self.fired = torch.zeros(len(tracked), dtype=torch.long)
        self.largest = torch.zeros(len(tracked))
        self.histograms = {
            half: torch.zeros(len(tracked), N_BINS, dtype=torch.long) for half in (False, True)
        }
        self.sources: Counter[str] = Counter()
        self.background: Counter[str] = Counter()
        self.n_tokens = 0
        self.sink_norm = SINK_RATIO * float(model.norm_medians([sae.hook])[0])
        self.special = torch.tensor(special_ids(model.tokenizer), dtype=torch.long)

    # ------------------------------------------------------------------------------------------------ reading

    def read(self, batch: list[TokenDocument]) -> None:
        known = [document for document in batch if document.activations is not None]
        unknown = [document for document in batch if document.activations is None]
        for document in known:
            assert document.activations is not None
            self.document(document, document.activations, first=0)
        if unknown:
            for document, rows in zip(unknown, self._activations(unknown), strict=True):
                self.document(document, rows, first=1)

    def _activations(self, documents: list[TokenDocument]) -> Tensor:
        width = max(len(document.ids) for document in documents)
        ids = torch.zeros(len(documents), width, dtype=torch.long)
        mask = torch.zeros(len(documents), width, dtype=torch.long)
        for row, document in enumerate(documents):
            ids[row, : len(document.ids)] = torch.tensor(document.ids)
            mask[row, : len(document.ids)] = 1
        return activations_at(self.model, self.sae.hook, ids, mask)

    @torch.no_grad()
    def document(self, document: TokenDocument, rows: Tensor, *, first: int) -> None:
        """Take one document in: `rows` [>= n_tokens, d_model]; tokens before `first` never count."""
        ids = torch.tensor(document.ids)
        rows = rows[: len(ids)].float()
        counts = (rows.norm(dim=-1) <= self.sink_norm).cpu() & ~torch.isin(ids, self.special)
        counts[:first] = False
        values = self._codes(rows) * counts[:, None]
        n = int(counts.sum())
        self.n_tokens += n
        self.sources[document.source] += n
        self.background.update(words_of("".join(token_strings(self.model.tokenizer, document.ids))))
        self._tally(values, scoring=is_scoring(document.group))
        if n:
            self._offer(document, values, counts)

    def _codes(self, rows: Tensor) -> Tensor:
        """Codes [n, n_tracked] on the CPU, encoded in pieces so that the full dictionary is never held for long."""
        pieces = [
            self.sae.encode(piece)[:, self.columns.to(self.sae.device)].cpu()
            for piece in rows.split(ENCODE_ROWS)
        ]
        return torch.cat(pieces).float()

    def _tally(self, values: Tensor, *, scoring: bool) -> None:
        self.fired += (values > 0).sum(0)
        self.largest = torch.maximum(self.largest, values.amax(0))
        tokens, features = (values > 0).nonzero(as_tuple=True)
        bins = torch.tensor([activation_bin(v) for v in values[tokens, features].tolist()], dtype=torch.long)
        self.histograms[scoring].view(-1).index_add_(0, features * N_BINS + bins, torch.ones_like(bins))

    def _offer(self, document: TokenDocument, values: Tensor, counts: Tensor) -> None:
        scoring = is_scoring(document.group)
        halves = self.scoring if scoring else self.explaining
        peaks = values.argmax(0).tolist()
        for index in (values.amax(0) > 0).nonzero().flatten().tolist():
            order = priority(self.tracked[index], document.id)
            self._offer_feature(halves[index], document, values, index, peaks[index], order)
        self._offer_random(self.random[scoring], document, values, counts)
        if scoring:
            self.pool.offer(document, values, counts)

    def _offer_feature(
        self, kept: Sightings, document: TokenDocument, values: Tensor, index: int, peak: int, order: int
    ) -> None:
        if kept.wants_top(float(values[peak, index]), order):
            kept.add_top(order, self._window(document, values, index, peak))
        firing = values[:, index].nonzero().flatten()
        token = int(firing[order % len(firing)])
        bin_index = activation_bin(float(values[token, index]))
        if kept.wants_bin(bin_index, order):
            kept.add_bin(bin_index, order, self._window(document, values, index, token))

    def _offer_random(
        self, kept: list[tuple[int, Sighting]], document: TokenDocument, values: Tensor, counts: Tensor
    ) -> None:
        order = priority("random", document.id)
        if len(kept) == N_RANDOM and order >= kept[-1][0]:
            return
        usable = counts.nonzero().flatten()
        sighting = self._window(document, values, None, int(usable[order % len(usable)]))
        kept[:] = sorted([*kept, (order, sighting)], key=lambda item: item[0])[:N_RANDOM]

    def _window(self, document: TokenDocument, values: Tensor, index: int | None, token: int) -> Sighting:
        start, stop = window_bounds(len(document.ids), token, self.context)
        fires = (values[start:stop] > 0).any(0).nonzero().flatten().tolist()
        own = values[start:stop, index].tolist() if index is not None else [0.0] * (stop - start)
        return Sighting(
            ids=document.ids[start:stop],
            values=tuple(float(f"{value:.4g}") for value in own),
            peak=token - start,
            position=token,
            source=document.source,
            document=document.id,
            active=frozenset(self.tracked[i] for i in fires),
        )

    # ------------------------------------------------------------------------------------------------ results

    def collection(
        self, asked: list[int], neighbours: dict[int, tuple[int, ...]], **sizes: int
    ) -> Collection:
        lenses = promoted_and_suppressed(self.model, self.sae.decoder_directions[asked]) if asked else []
        evidence = {
            feature: self._evidence(feature, lens, sizes["n_top"], sizes["n_quantiles"])
            for feature, lens in zip(asked, lenses, strict=True)
        }
        made = Collection(
            evidence=evidence,
            held_out={feature: self._held_out(feature, sizes["n_held_out"]) for feature in self.tracked},
            neighbours=neighbours,
            random=tuple(self._held(sighting) for _, sighting in self.random[True]),
            background=self.background,
            n_tokens=self.n_tokens,
            same_token={feature: self._same_token(feature, sizes["n_held_out"]) for feature in asked},
            contrast={feature: self._contrast(feature, neighbours[feature]) for feature in asked},
        )
        warn_of_missing(made)
        return made

    def _evidence(self, feature: int, lens: tuple[Any, Any], n_top: int, n_quantiles: int) -> FeatureEvidence:
        index = self.tracked.index(feature)
        kept = self.explaining[index]
        top = kept.top(n_top)
        spread = kept.across_quantiles(self.histograms[False][index].tolist(), n_quantiles, besides=top)
        return FeatureEvidence(
            feature=feature,
            density=_rounded(float(self.fired[index]) / self.n_tokens),
            max_activation=_rounded(float(self.largest[index])),
            top=tuple(self._context(sighting) for sighting in top),
            quantiles=tuple(self._context(sighting) for sighting in spread),
            promoted=lens[0],
            suppressed=lens[1],
            n_tokens=self.n_tokens,
            sources=dict(sorted(self.sources.items())),
        )

    def _held_out(self, feature: int, n: int) -> tuple[HeldOut, ...]:
        """Half the strongest windows of the scoring half, half from across the quantiles."""
        index = self.tracked.index(feature)
        top = self.scoring[index].top((n + 1) // 2)
        spread = self.scoring[index].across_quantiles(
            self.histograms[True][index].tolist(), n // 2, besides=top
        )
        return tuple(self._held(sighting) for sighting in (*top, *spread))

    def _same_token(self, feature: int, n: int) -> tuple[HeldOut, ...]:
        """Windows of the scoring half around the feature's peak tokens (of either half), in which it is silent."""
        index = self.tracked.index(feature)
        seen = (item[-1] for kept in (self.explaining[index], self.scoring[index]) for item in kept.strongest)
        tokens = [token_strings(self.model.tokenizer, one.ids)[one.peak] for one in seen]
        positives = Counter(held.context.source for held in self._held_out(feature, n))
        found = self.pool.silent(tokens, feature, self.tracked, positives, size=self.context, n=n)
        return tuple(self._held(sighting) for sighting in found)

    def _contrast(self, feature: int, neighbours: Iterable[int]) -> tuple[Context, ...]:
        """Windows of the explaining half without the feature: each neighbour's strongest and random ones, in turns."""
        near = [self.explaining[self.tracked.index(other)].top(4 * N_CONTRAST) for other in neighbours]
        pools = [*near, [sighting for _, sighting in self.random[False]]]
        silent = [distinct((s for s in pool if feature not in s.active), N_CONTRAST) for pool in pools]
        mixed = [sighting for turn in zip_longest(*silent) for sighting in turn if sighting is not None]
        return tuple(self._context(sighting) for sighting in distinct(mixed, len(mixed)))

    def _held(self, sighting: Sighting) -> HeldOut:
        return HeldOut(self._context(sighting), sighting.active)

    def _context(self, sighting: Sighting) -> Context:
        tokens = token_strings(self.model.tokenizer, sighting.ids)
        place = {"source": sighting.source, "document": sighting.document, "position": sighting.position}
        return Context(tokens, sighting.values, sighting.peak, **place)


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")

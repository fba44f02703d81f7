"""What a feature does for the prediction of the next token: its contribution is taken out where it fires, and so is that
of matched other features.

For feature f with code z_f(t) at token t, z_f(t) d_f is subtracted from the residual at the SAE's hook at every firing token
of a context; the rest of the residual, the SAE's error included, stays. With p the model's distribution before and q after,

    KL = sum_x p(x) (log p(x) - log q(x))        change of a token x = log q(x) - log p(x)        nats, at the edited tokens

The same is done with controls, so that every number has its null. A control draw ranks all features at random and at each
edited token takes out the first-ranked of the features that fire there with a contribution |z_g d_g| between half and twice
this one's: one and the same feature wherever that is possible. Only tokens that have such a feature are edited. Where few
features match, draws repeat: the controls' mean and interval are over all draws, p is over the distinct ones.

All features, contexts and draws go through the later blocks together, from the first edited token on (`models.rerun`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.base.progress import track
from workbench.base.randomness import derive_seed, generator
from workbench.labeling.lens import largest_and_smallest, unusable_tokens
from workbench.labeling.tokens import special_ids
from workbench.labeling.views.values import Ablation, Compared, TokenValue
from workbench.maths.statistics import bootstrap_counts, percentile_interval, rank_p
from workbench.models.model import Model
from workbench.models.rerun import Batch, Passage, Rerun
from workbench.saes.interface import SparseAutoencoder
from workbench.saes.token_rows import SINK_RATIO, activations_at

N_DRAWS = 39
MATCHED_WITHIN = 2.0
N_BOOTSTRAP = 1000
MIN_FOR_INTERVAL = 3
_FEW_EDITS = 14
_LOGIT_BUDGET = 25_000_000  # numbers in one block of logits: 100 MB in float32
_SHIFT_BUDGET = 64_000_000  # numbers in the mean changes of all tokens under all draws: 256 MB


@dataclass(frozen=True)
class Ablations:
    """The effect per feature, and for every other asked feature why there is none."""

    found: Mapping[int, Ablation]
    missing: Mapping[int, str]


def ablation_effects(
    passages: Mapping[int, Sequence[Passage]],
    sae: SparseAutoencoder,
    model: Model,
    *,
    n_draws: int = N_DRAWS,
    n_tokens: int = 10,
    batch_tokens: int = 256,
    seed: int = 0,
) -> Ablations:
    """The ablation effect of each feature on its own passages; see `Ablation`.

    A feature is taken out at every token from a passage's `start` on at which it fires, position 0, special tokens, sinks
    (norm > 10 x the model's median), the last token and tokens without a matched control apart. `n_tokens` is how many losing
    and gaining tokens are listed; `batch_tokens` bounds the edited positions of one pass. A feature's result depends on its
    own passages and `seed` only, to rounding.
    """
    plan = _plan(passages, sae, model, n_draws, batch_tokens, seed)
    together = max(1, _SHIFT_BUDGET // ((1 + n_draws) * model.vocab_size))
    features = sorted(plan.sites)
    found: dict[int, Ablation] = {}
    with track("Taking features out", len(features), "features") as step:
        for start in range(0, len(features), together):
            group = features[start : start + together]
            measured = _measure({f: plan.sites[f] for f in group}, sae, model, n_draws, batch_tokens)
            for feature in group:
                found[feature] = _summary(measured[feature], plan, feature, model, n_tokens, seed)
            step(len(group))
    return Ablations(found, {f: plan.reason(f) for f in passages if f not in found})


# ---------------------------------------------------------------------------------------------------------------- where


@dataclass(frozen=True, eq=False)
class _Site:
    """One passage of one feature: k `places` to edit, in u different ways: `codes` [u, k] of the features `which` [u, k]."""

    ids: tuple[int, ...]
    places: Tensor
    codes: Tensor
    which: Tensor
    edit_of: Tensor
    """Which of the edits stands for the feature itself (entry 0) and for each control draw [1 + n_draws]: draws repeat."""
    ratios: Tensor
    """Sizes of the controls' contributions relative to the feature's [n_draws, k]."""

    @property
    def offsets(self) -> Tensor:
        """The places, counted from the first one [k]."""
        return self.places - self.places[0]


@dataclass(frozen=True, eq=False)
class _Match:
    """One passage of one feature: at each of its `places` the `options`, the feature itself first, and their `codes`."""

    ids: tuple[int, ...]
    places: list[int]
    options: list[Tensor]
    codes: list[Tensor]


@dataclass(frozen=True, eq=False)
class _Plan:
    """Sites per feature that has any; how many passages were silent and how many tokens unmatched, per asked feature."""

    sites: dict[int, list[_Site]]
    n_given: dict[int, int]
    n_silent: dict[int, int]
    n_unmatched: dict[int, int]

    def reason(self, feature: int) -> str:
        if not self.n_given[feature]:
            return "there is no context whose text is known"
        if self.n_silent[feature] == self.n_given[feature]:
            return "the feature does not fire in any of its contexts as they are read here"
        return "no other feature fires on the same tokens with a contribution of similar size: there is nothing to compare with"


def _plan(
    passages: Mapping[int, Sequence[Passage]],
    sae: SparseAutoencoder,
    model: Model,
    n_draws: int,
    batch_tokens: int,
    seed: int,
) -> _Plan:
    plan = _Plan({}, {f: len(own) for f, own in passages.items()}, dict.fromkeys(passages, 0), dict.fromkeys(passages, 0))
    lengths = sae.decoder_directions.float().norm(dim=1).cpu()
    matches: dict[int, list[_Match]] = {}
    for feature, ids, codes, usable in _read(passages, sae, model, batch_tokens):
        firing = (usable & (codes[:, feature] > 0)).nonzero().flatten()
        plan.n_silent[feature] += int(not len(firing))
        match = _match(feature, ids, firing, codes, lengths)
        plan.n_unmatched[feature] += len(firing) - len(match.places)
        if match.places:
            matches.setdefault(feature, []).append(match)
    for feature, own in matches.items():
        drawn = generator(derive_seed("ablation controls", feature, seed))
        plan.sites[feature] = _sites(own, lengths, torch.rand(n_draws, sae.d_sae, generator=drawn))
    return plan


def _read(
    passages: Mapping[int, Sequence[Passage]], sae: SparseAutoencoder, model: Model, batch_tokens: int
) -> Iterator[tuple[int, tuple[int, ...], Tensor, Tensor]]:
    """(feature, ids, codes [n, d_sae], which tokens may be edited [n]) of every passage; equal ones are read once."""
    readers: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for feature, own in passages.items():
        for passage in own:
            readers.setdefault(passage.ids, []).append((feature, passage.start))
    special = torch.tensor(special_ids(model.tokenizer), dtype=torch.long)
    sink_norm = SINK_RATIO * float(model.norm_medians([sae.hook])[0])
    ordered = sorted(readers, key=lambda ids: (len(ids), ids))
    for group in _groups(ordered, batch_tokens):
        for ids, rows in zip(group, _activations(group, sae, model), strict=True):
            usable = (rows.norm(dim=-1) <= sink_norm) & ~torch.isin(torch.tensor(ids), special)
            usable[[0, -1]] = False  # position 0 is a sink, and nothing is known to come after the last token
            codes = sae.encode(rows).cpu().float()
            for feature, start in readers[ids]:
                yield feature, ids, codes, usable & (torch.arange(len(ids)) >= start)


def _groups(ordered: list[tuple[int, ...]], batch_tokens: int) -> Iterator[list[tuple[int, ...]]]:
    group: list[tuple[int, ...]] = []
    for ids in ordered:
        if group and len(ids) * (len(group) + 1) > batch_tokens:
            yield group
            group = []
        group.append(ids)
    if group:
        yield group


@torch.no_grad()
def _activations(group: list[tuple[int, ...]], sae: SparseAutoencoder, model: Model) -> list[Tensor]:
    width = max(map(len, group))
    ids = torch.tensor([[*one, *[0] * (width - len(one))] for one in group])
    mask = torch.tensor([[1] * len(one) + [0] * (width - len(one)) for one in group])
    found = activations_at(model, sae.hook, ids, mask).float().cpu()
    return [rows[: len(one)] for one, rows in zip(group, found, strict=True)]


def _match(feature: int, ids: tuple[int, ...], firing: Tensor, codes: Tensor, lengths: Tensor) -> _Match:
    """Those `firing` tokens that have a matched control."""
    match = _Match(ids, [], [], [])
    for place in firing.tolist():
        sizes = codes[place] * lengths
        matched = (sizes >= sizes[feature] / MATCHED_WITHIN) & (sizes <= sizes[feature] * MATCHED_WITHIN)
        matched[feature] = False
        others = matched.nonzero().flatten()
        if len(others):
            match.places.append(place)
            match.options.append(torch.cat([torch.tensor([feature]), others]))
            match.codes.append(codes[place, match.options[-1]])
    return match


def _sites(matches: Sequence[_Match], lengths: Tensor, ranks: Tensor) -> list[_Site]:
    """The matches with a control of every draw at each place, the first of the options by `ranks` [n_draws, d_sae]."""
    sites = []
    for match in matches:
        picks = [torch.cat([torch.zeros(1).long(), 1 + ranks[:, options[1:]].argmin(dim=1)]) for options in match.options]
        chosen = [(a[pick], b[pick]) for a, b, pick in zip(match.options, match.codes, picks, strict=True)]
        which, codes = (torch.stack(columns, dim=1) for columns in zip(*chosen, strict=True))
        sizes = codes * lengths[which]
        edits, edit_of = which.unique(dim=0, return_inverse=True)
        of_edits = torch.empty(edits.shape).index_copy_(0, edit_of, codes)
        sites.append(_Site(match.ids, torch.tensor(match.places), of_edits, edits, edit_of, sizes[1:] / sizes[:1]))
    return sites


def _distinct(sites: Sequence[_Site]) -> Tensor:
    """One control draw (0 to n_draws - 1) of each lot that takes out the same features at all places of all sites."""
    lots = torch.stack([site.edit_of[1:] for site in sites], dim=1).unique(dim=0, return_inverse=True)[1].tolist()
    return torch.tensor(list({lot: draw for draw, lot in enumerate(lots)}.values()))


# ------------------------------------------------------------------------------------------------------------- how much


@dataclass(frozen=True, eq=False)
class _Measured:
    """Of one feature, row 0 itself and rows 1.. its control draws: `kl`, `next_token` [v, n_sites]; `shift` [v, vocab_size]."""

    kl: Tensor
    next_token: Tensor
    shift: Tensor


def _measure(
    sites: Mapping[int, list[_Site]], sae: SparseAutoencoder, model: Model, n_draws: int, batch_tokens: int
) -> dict[int, _Measured]:
    result = {feature: _empty(len(own), n_draws, model) for feature, own in sites.items()}
    flat = [(result[feature], index, site) for feature, own in sites.items() for index, site in enumerate(own)]
    for few in (True, False):  # every batch meets as many edits as the site with the most of them
        group = [one for one in flat if (len(one[-1].which) <= _FEW_EDITS) == few]
        if group:
            _run(group, sae, model, batch_tokens)
    for feature, own in sites.items():
        result[feature].shift.div_(len(own))
    return result


@torch.no_grad()
def _run(
    flat: list[tuple[_Measured, int, _Site]], sae: SparseAutoencoder, model: Model, batch_tokens: int
) -> None:
    passages = [Passage(site.ids[: int(site.places[-1]) + 1], int(site.places[0])) for *_, site in flat]
    rerun = Rerun(model, sae.hook, passages, batch_tokens=batch_tokens)

    def deltas(batch: Batch, chosen: slice) -> Tensor:
        return _deltas([flat[row][-1] for row in batch.rows], chosen, batch, sae)

    for batch, chosen, hidden in rerun.edited_at(max(len(site.which) for *_, site in flat), deltas):
        for row, (into, index, site) in enumerate(flat[row] for row in batch.rows):
            at = site.offsets.to(hidden.device)
            _take(into, index, site, chosen.start, batch.reference[row, at], hidden[:, row, at], model)


def _empty(n_sites: int, n_draws: int, model: Model) -> _Measured:
    kl, next_token = torch.zeros(2, 1 + n_draws, n_sites, dtype=torch.float64)
    return _Measured(kl, next_token, torch.zeros(1 + n_draws, model.vocab_size))


def _deltas(sites: list[_Site], chosen: slice, batch: Batch, sae: SparseAutoencoder) -> Tensor:
    """What is added [v', n, T, d_model]: minus code x decoder direction at each site's places, 0 beyond a site's last edit."""
    result = torch.zeros(chosen.stop - chosen.start, *batch.valid.shape, sae.d_model, device=sae.device)
    for row, site in enumerate(sites):
        which, codes = site.which[chosen].to(sae.device), site.codes[chosen, :, None].to(sae.device)
        result[: len(which), row, site.offsets] = -codes * sae.decoder_directions[which].float()
    return result


def _take(
    into: _Measured, index: int, site: _Site, first: int, before: Tensor, after: Tensor, model: Model
) -> None:
    """Add edits `first`.. of one site: final hidden states `before` [k, d_model], `after` [v', k, d_model]; places weigh 1/k."""
    k, targets = len(site.places), torch.tensor(site.ids)[site.places + 1]
    size = max(1, _LOGIT_BUDGET // model.vocab_size)
    for low in range(first, min(first + len(after), len(site.which)), size):
        high = min(low + size, first + len(after), len(site.which))
        draws = ((site.edit_of >= low) & (site.edit_of < high)).nonzero().flatten()
        edits = site.edit_of[draws] - low
        for place in range(k):
            logp = model.logits_of(before[place, None]).float().log_softmax(dim=-1)
            change = model.logits_of(after[low - first : high - first, place]).float().log_softmax(dim=-1) - logp
            into.kl[draws, index] += -(change @ logp[0].exp()).double().cpu()[edits] / k
            into.next_token[draws, index] += change[:, targets[place]].double().cpu()[edits] / k
            into.shift[draws] += change.cpu()[edits] / k


# ------------------------------------------------------------------------------------------------------------- in short


def _summary(measured: _Measured, plan: _Plan, feature: int, model: Model, n_tokens: int, seed: int) -> Ablation:
    sites = plan.sites[feature]
    distinct = _distinct(sites)
    draws = generator(derive_seed("ablation intervals", feature, seed))
    usable = unusable_tokens(model, measured.shift) == 0
    ((gaining, losing),) = largest_and_smallest(model, measured.shift[:1], n=n_tokens)
    return Ablation(
        n_contexts=len(sites),
        n_tokens=sum(len(site.places) for site in sites),
        n_unmatched=plan.n_unmatched[feature],
        n_silent=plan.n_silent[feature],
        n_draws=len(measured.kl) - 1,
        n_distinct=len(distinct),
        size_ratio=float(torch.cat([site.ratios.flatten() for site in sites]).median()),
        kl=_compared(measured.kl, distinct, draws),
        next_token=_compared(measured.next_token, distinct, draws),
        losing=tuple(TokenValue(*one) for one in losing if one[1] < 0),
        gaining=tuple(TokenValue(*one) for one in gaining if one[1] > 0),
        loss=_beside(measured.shift[:, usable].amin(dim=1).double(), distinct, None),
        gain=_beside(measured.shift[:, usable].amax(dim=1).double(), distinct, None),
    )


def _compared(by_context: Tensor, distinct: Tensor, draws: torch.Generator) -> Compared:
    """Of [v, n_contexts]: the feature's mean with its interval beside the draws' means; p compares sizes, whatever the sign."""
    own, n = by_context[0], by_context.shape[1]
    ends = None
    if n >= MIN_FOR_INTERVAL:
        low, high = percentile_interval(bootstrap_counts(n, N_BOOTSTRAP, draws) @ own / n)
        ends = (float(low), float(high))
    return _beside(by_context.mean(dim=1), distinct, ends)


def _beside(means: Tensor, distinct: Tensor, ends: tuple[float, float] | None) -> Compared:
    value, controls = means[0], means[1:]
    low, high = percentile_interval(controls)
    p = float(rank_p(value.abs(), controls[distinct].abs()))
    return Compared(float(value), float(controls.mean()), (float(low), float(high)), p, ends)

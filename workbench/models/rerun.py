"""Many edits of one hook point at a fraction of the price: only the blocks after it run again, only where it matters.

An edit at the positions from `start` on leaves everything before `start` as it was, at every block. So each passage goes
through the model once; what is kept is its residual at the hook and the keys and values that the later blocks computed for the
prefix. An edited pass then runs the later blocks on the positions from `start` on. It uses the model's own decoder with the
earlier blocks skipped, so masks, rotary positions, sliding windows and norms are the model's own code in every family. Whether
that works is measured: on the first rows the result is compared with plain hooked passes, and when it differs, or the family
cannot be run this way, plain passes are used throughout.
"""

from __future__ import annotations

import copy
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from workbench.base.display import Shown
from workbench.base.randomness import derive_seed, generator
from workbench.models.halving import halving
from workbench.models.hookpoints import HookPoint
from workbench.models.model import Model
from workbench.models.norms import SINK_FACTOR

logger = logging.getLogger(__name__)

AGREEMENT = 1e-4
"""Nats by which log-probabilities of the fast and the plain pass may differ in float32."""
_AGREEMENT_LOW_PRECISION = 0.2
_WHOLE = 8
"""Positions of a batch's unedited pass, prompts included, per `batch_tokens`."""
_CHECKED_ROWS = 4
_BLOCK_LISTS = ("layers", "h", "blocks")


@dataclass(frozen=True)
class Passage:
    """Token ids, and the first position that edits may touch (everything before it is computed once)."""

    ids: tuple[int, ...]
    start: int

    def __len__(self) -> int:
        return len(self.ids) - self.start


@dataclass(frozen=True, eq=False, repr=False)
class Batch(Shown):
    """Passages of similar length after one unedited pass; n rows, T = the most positions that run again, S = all.

    `positions`, `valid`, `steered` are [n, T]: position in the passage, whether there is one, and whether an edit
    applies there (valid, not position 0, not a sink). `residual` [n, T, d_model] at the hook, `reference`
    [n, T, d_model] after the final norm, both unedited. `prefix_mask` [n, P] marks the prefix, padded on the left.
    """

    rows: tuple[int, ...]  # indices into the passages that were given
    ids: Tensor
    mask: Tensor
    positions: Tensor
    valid: Tensor
    steered: Tensor
    residual: Tensor
    reference: Tensor
    prefix_mask: Tensor
    prefix: tuple[tuple[Tensor, Tensor], ...] | None
    """Keys and values [n, heads, P, d_head] of the blocks that run again, None when they are not to be had."""

    @property
    def n_positions(self) -> int:
        """Positions of one edited pass, padding included."""
        return self.valid.numel()


class Rerun:
    """Passages under edits at one hook point: `for batch, chosen, hidden in rerun.edited(deltas)`.

    `batch_tokens` bounds the positions of one pass, hence memory. `fast` says whether only later blocks run.
    """

    def __init__(
        self,
        model: Model,
        hook: HookPoint,
        passages: Sequence[Passage],
        *,
        batch_tokens: int = 2048,
        fast: bool = True,
    ) -> None:
        self.model, self.hook, self.batch_tokens = model, hook, batch_tokens
        first = hook.block + 1 if hook.site == "hook_resid_post" else hook.block
        tail = _tail_of(model, first) if fast and first > 0 and hook.site.startswith("hook_resid") else None
        self.batches = [
            _prepared(model, hook, passages, rows, first if tail else None)
            for rows in _batched(passages, batch_tokens)
        ]
        self._tail = tail if tail and self._agrees(tail, passages, first) else None
        if fast and self._tail is None:
            logger.warning("%s at %s: later blocks cannot be run alone, using whole passes.", model.name, hook)

    @property
    def fast(self) -> bool:
        """True when edited passes run the later blocks only."""
        return self._tail is not None

    def edited(self, deltas: Tensor) -> Iterator[tuple[Batch, slice, Tensor]]:
        """Final hidden states (after the final norm) under each of `deltas` [v, d_model], added at steered positions.

        Yields (batch, which deltas, hidden [v', n, T, d_model]) until every batch has met every delta.
        """
        return self.edited_at(len(deltas), lambda batch, chosen: deltas[chosen, None, None])

    @torch.no_grad()
    def edited_at(self, n_edits: int, deltas: Callable[[Batch, slice], Tensor]) -> Iterator[tuple[Batch, slice, Tensor]]:
        """`edited`, with deltas that may differ by position: `deltas(batch, chosen)` gives [v', n or 1, T or 1, d_model]."""
        for batch in self.batches:
            size = max(1, self.batch_tokens // batch.n_positions)
            groups = [list(range(low, min(low + size, n_edits))) for low in range(0, n_edits, size)]
            for rows, hidden in halving(groups, partial(self._chosen, batch, deltas)):
                yield batch, slice(rows[0], rows[-1] + 1), hidden

    def _chosen(self, batch: Batch, deltas: Callable[[Batch, slice], Tensor], rows: list[int]) -> Tensor:
        return self._run(batch, deltas(batch, slice(rows[0], rows[-1] + 1)).to(self.model.device, self.model.dtype))

    def gradients(self, objective: Callable[[Batch, Tensor], Tensor]) -> Iterator[tuple[Batch, Tensor]]:
        """(batch, gradient [n, T, d_model]) of a scalar of its final hidden states [1, n, T, d_model] by the residual.

        One forward and one backward pass of the later blocks per batch; 0 where no edit applies.
        """
        for batch in self.batches:
            with torch.enable_grad():
                delta = torch.zeros_like(batch.residual)[None].requires_grad_()
                (gradient,) = torch.autograd.grad(objective(batch, self._run(batch, delta)), delta)
            yield batch, gradient[0]

    def _run(self, batch: Batch, deltas: Tensor) -> Tensor:
        return (self._whole if self._tail is None else self._tail.run)(batch, deltas)

    def _whole(self, batch: Batch, deltas: Tensor) -> Tensor:
        """Whole passes with a hook that adds the deltas: right for any model and any site."""
        v, (n, width) = len(deltas), batch.ids.shape
        where = (deltas * batch.steered[..., None].to(deltas.dtype)).expand(v, n, batch.valid.shape[1], -1)
        places = batch.positions[None, ..., None].expand_as(where)
        added = torch.zeros(v, n, width, where.shape[-1], dtype=where.dtype, device=where.device).scatter_add(2, places, where)

        def add(tensor: Tensor) -> Tensor:
            return tensor + added.flatten(0, 1).to(tensor)

        with self.model.hooked({self.hook: add}):
            hidden = self.model.decoder(
                input_ids=batch.ids.repeat(v, 1), attention_mask=batch.mask.repeat(v, 1), use_cache=False
            ).last_hidden_state
        return _at(hidden, batch.positions.repeat(v, 1)).unflatten(0, (v, n))

    @torch.no_grad()
    def _agrees(self, tail: _Tail, passages: Sequence[Passage], first: int) -> bool:
        """Whether the fast pass equals the plain one on rows of the first batch, without an edit and with one."""
        batch = _prepared(self.model, self.hook, passages, self.batches[0].rows[:_CHECKED_ROWS], first)
        drawn = torch.randn(self.model.d_model, generator=generator(derive_seed("rerun check")))
        size = 0.3 * batch.residual[batch.steered].float().norm(dim=-1).median() if batch.steered.any() else 1.0
        delta = (drawn.to(self.model.device) / drawn.norm() * size).to(self.model.dtype)
        deltas = torch.stack([torch.zeros_like(delta), delta])[:, None, None]
        try:
            gap = _gap(self.model, batch, tail.run(batch, deltas), self._whole(batch, deltas))
        except Exception as error:  # whatever a family's decoder objects to: plain passes serve as well
            logger.info("running the later blocks alone failed: %s", error)
            return False
        return gap <= (AGREEMENT if self.model.dtype == torch.float32 else _AGREEMENT_LOW_PRECISION)


def _gap(model: Model, batch: Batch, left: Tensor, right: Tensor, n_tokens: int = 64) -> float:
    """The largest difference of the likeliest token's log-probability over some valid positions."""
    ends = [hidden[:, batch.valid][:, -n_tokens:].flatten(0, 1) for hidden in (left, right)]
    first, second = (model.logits_of(rows).float().log_softmax(dim=-1) for rows in ends)
    best = second.argmax(dim=-1, keepdim=True)
    return float((first.gather(1, best) - second.gather(1, best)).abs().max())


def _batched(passages: Sequence[Passage], batch_tokens: int) -> list[tuple[int, ...]]:
    """Rows grouped by similar length: two edits of a whole batch fit in one pass. Deterministic."""
    order = sorted(
        range(len(passages)), key=lambda row: (len(passages[row]), passages[row].start, row), reverse=True
    )
    groups: list[tuple[int, ...]] = []
    while order:
        size = max(1, batch_tokens // (2 * max(1, len(passages[order[0]]))))
        longest = max(len(passages[row].ids) for row in order[:size])  # long prompts count as well: their keys are kept
        size = max(1, min(size, _WHOLE * batch_tokens // longest))
        n_groups = -(-len(order) // size)
        size = -(-len(order) // n_groups)
        groups.append(tuple(order[:size]))
        order = order[size:]
    return groups


@torch.no_grad()
def _prepared(
    model: Model, hook: HookPoint, passages: Sequence[Passage], rows: tuple[int, ...], first: int | None
) -> Batch:
    """The unedited pass of one batch; `first` = the first block that will run again, None to keep no keys."""
    chosen = [passages[row] for row in rows]
    ids, mask = _padded(chosen, model.device)
    starts = torch.tensor([passage.start for passage in chosen], device=model.device)
    lengths = torch.tensor([len(passage.ids) for passage in chosen], device=model.device)
    positions = starts[:, None] + torch.arange(max(len(p) for p in chosen), device=model.device)
    valid = positions < lengths[:, None]
    positions = torch.minimum(positions, lengths[:, None] - 1)
    residual, reference, cache = _unedited(model, hook, ids, mask, keep_keys=first is not None)
    residual = _at(residual, positions)
    sink = residual.float().norm(dim=-1) > SINK_FACTOR * model.norm_medians([hook])[0].to(model.device)
    prefix_mask = _left_padded(mask, starts)
    prefix = None if first is None or cache is None else _prefixes(cache, first, model.n_blocks, starts)
    steered = valid & ~sink & (positions > 0)
    return Batch(
        rows, ids, mask, positions, valid, steered, residual, _at(reference, positions), prefix_mask, prefix
    )


def _unedited(
    model: Model, hook: HookPoint, ids: Tensor, mask: Tensor, *, keep_keys: bool
) -> tuple[Tensor, Tensor, Any]:
    from transformers import DynamicCache

    # Built without the config: every layer then keeps all positions, also where the model's window slides.
    cache = DynamicCache() if keep_keys else None
    seen: list[Tensor] = []
    with model.hooked({hook: lambda tensor: seen.append(tensor.detach())}):
        options = {"past_key_values": cache, "use_cache": True} if keep_keys else {"use_cache": False}
        hidden = model.decoder(input_ids=ids, attention_mask=mask, **options).last_hidden_state
    return seen[0], hidden, cache


def _padded(passages: Sequence[Passage], device: torch.device) -> tuple[Tensor, Tensor]:
    width = max(len(passage.ids) for passage in passages)
    ids = torch.tensor([list(p.ids) + [0] * (width - len(p.ids)) for p in passages], device=device)
    mask = torch.tensor([[1] * len(p.ids) + [0] * (width - len(p.ids)) for p in passages], device=device)
    return ids, mask


def _at(hidden: Tensor, positions: Tensor) -> Tensor:
    """hidden [n, S, d] at positions [n, T] -> [n, T, d]."""
    return hidden.gather(1, positions[..., None].expand(-1, -1, hidden.shape[-1]))


def _left_padded(values: Tensor, starts: Tensor) -> Tensor:
    """The first `starts[r]` entries of every row of values [n, S, ...], moved to the right end of [n, max(starts), ...]."""
    width = int(starts.max())
    padded = values.new_zeros(values.shape[0], width, *values.shape[2:])
    for row, start in enumerate(starts.tolist()):
        padded[row, width - start :] = values[row, :start]
    return padded


def _prefixes(cache: Any, first: int, n_blocks: int, starts: Tensor) -> tuple[tuple[Tensor, Tensor], ...] | None:
    """Keys and values of blocks `first`.. for the prefix of every row; None when the cache holds no such thing."""

    def prefix(states: Tensor) -> Tensor:
        return _left_padded(states.transpose(1, 2), starts).transpose(1, 2).contiguous()

    try:
        return tuple(
            (prefix(cache.layers[b].keys), prefix(cache.layers[b].values)) for b in range(first, n_blocks)
        )
    except (AttributeError, IndexError, TypeError):  # layers without keys: recurrent or shared ones
        return None


class _Skipped(nn.Module):
    """Stands in the place of a block that need not run; other attributes are the block's own."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.__dict__["_block"] = block  # not a sub-module

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_block"], name)

    def forward(self, hidden_states: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        return hidden_states


class _Given(_Skipped):
    """The last skipped block: its output is the residual that was put into `value`."""

    value: Tensor | None = None

    def forward(self, hidden_states: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        assert self.value is not None
        return self.value


@dataclass(frozen=True, eq=False)
class _Tail:
    """A decoder that shares every weight with the model's but starts after block `first - 1`."""

    decoder: nn.Module
    given: _Given
    first: int

    def run(self, batch: Batch, deltas: Tensor) -> Tensor:
        """Final hidden states [v, n, T, d_model] of a batch under `deltas` [v, n or 1, T or 1, d_model]."""
        v = len(deltas)
        hidden = batch.residual + deltas * batch.steered[..., None].to(deltas.dtype)
        mask = torch.cat([batch.prefix_mask, torch.ones_like(batch.valid, dtype=batch.mask.dtype)], dim=1)
        self.given.value = hidden.flatten(0, 1)
        try:
            final = self.decoder(
                inputs_embeds=self.given.value,
                attention_mask=mask.repeat(v, 1),
                position_ids=batch.positions.repeat(v, 1),
                past_key_values=self._cache(batch, v),
                use_cache=True,
            ).last_hidden_state
        finally:
            self.given.value = None
        return final.unflatten(0, (v, -1))

    def _cache(self, batch: Batch, v: int) -> Any:
        from transformers import DynamicCache

        assert batch.prefix is not None
        rows, width = batch.prefix_mask.shape
        unused = batch.residual.new_zeros(
            rows * v, 1, width, 1
        )  # for skipped blocks: only the length is read
        kept = [(k.repeat(v, 1, 1, 1), values.repeat(v, 1, 1, 1)) for k, values in batch.prefix]
        return DynamicCache([(unused, unused)] * self.first + kept)


def _tail_of(model: Model, first: int) -> _Tail | None:
    decoder = model.decoder
    name = next((name for name in _BLOCK_LISTS if name in decoder._modules), None)
    if name is None:
        return None
    given = _Given(model.blocks[first - 1])
    tail = copy.copy(decoder)  # a second view of the same weights; only its list of blocks is its own
    tail._modules = dict(decoder._modules)
    tail._forward_hooks, tail._forward_pre_hooks = OrderedDict(), OrderedDict()
    skipped = [_Skipped(block) for block in model.blocks[: first - 1]]
    tail._modules[name] = nn.ModuleList([*skipped, given, *model.blocks[first:]])
    return _Tail(tail, given, first)

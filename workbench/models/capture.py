"""Activations of text that is already there: mean-pooled over token spans, or streamed token by token.

One pass serves any number of hook points; it stops after the last block needed and computes no logits. Rows are
grouped by length, padded on the right, and cut after the last token of the span: what follows cannot change it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.base.display import Shown

from .halving import halving
from .hookpoints import HookPoint
from .memory import fitting_tokens
from .norms import SINK_FACTOR, not_finite
from .prompts import ChatTokens
from .transfers import ahead, to_device, to_host

if TYPE_CHECKING:
    from .model import Model

FULL_SPEED_TOKENS = 512
"""From about so many tokens on, a larger batch is no faster per token."""


@dataclass(frozen=True, repr=False)
class Pooled(Shown):
    """What one row's span looked like inside the model."""

    means: Tensor
    """Mean activation [n_hooks, d_model] (float32, CPU) over the span's tokens; NaN where no token was left."""
    tokens: Mapping[HookPoint, Tensor] = field(default_factory=dict)
    """Per token hook, the activations [n_kept, d_model] (float32, CPU) of the tokens that entered the mean."""
    n_sinks: int = 0
    """Tokens left out as attention sinks at one or more of the hooks."""
    n_tokens: int = 0
    """Tokens in the span, sinks included."""


def sink_limits(model: Model, hooks: Sequence[HookPoint]) -> Tensor:
    """The norm [n_hooks] above which a token is a sink: ten times the hook's median norm on the neutral text."""
    return SINK_FACTOR * model.norm_medians(hooks)


def all_hooks(hooks: Sequence[HookPoint], token_hooks: Sequence[HookPoint]) -> list[HookPoint]:
    """The hooks that have to be attached, each once, those for means first."""
    return list(dict.fromkeys([*hooks, *token_hooks]))


def capture(
    model: Model,
    rows: Sequence[ChatTokens],
    hooks: Sequence[HookPoint],
    *,
    span: str = "response",
    token_hooks: Sequence[HookPoint] = (),
    batch_tokens: int = 2048,
) -> Iterator[tuple[list[int], list[Pooled]]]:
    """Yields (row indices, Pooled per row) batch by batch, longest rows first; memory stays that of one batch (of two on a GPU
    without a budget, which works on the next while one is read).

    Position 0 and sinks (norm above 10 x the model's median at that hook) are left out, per hook. `token_hooks` are
    the hooks whose single tokens are wanted too. A row without tokens in the span yields NaN means. Edits in force act, with
    amounts and prompt widths per row of `rows` if they have them. A model with a
    memory budget (`load_model(max_memory=...)`) takes as many of `batch_tokens` at once as fit; a batch that runs out of memory
    all the same is halved (`halving`).
    """
    wanted = all_hooks(hooks, token_hooks)
    limits = sink_limits(model, wanted)
    lengths = [_needed_length(row, span) for row in rows]
    batch_tokens = fitting_tokens(model, max(lengths, default=1), batch_tokens, len(token_hooks))

    def started(indices: list[int]) -> CaptureBatch:
        batch = CaptureBatch(model, [rows[index] for index in indices], span, limits, indices)
        with model.naming_rows(indices):
            batch.start(wanted, token_hooks)
        return batch

    passes = halving(plan_batches(lengths, batch_tokens), started, cost=lambda rows: len(rows) * lengths[rows[0]])
    # A GPU works on the next pass while this one is read, where memory is not counted.
    n_ahead = int(model.device.type == "cuda" and model.max_memory is None)
    for indices, batch in ahead(passes, n_ahead):
        batch.finish()
        yield indices, [batch.pooled(row, len(hooks)) for row in range(len(indices))]


def _needed_length(row: ChatTokens, span: str) -> int:
    return max((end for _, end in row.spans.get(span, ())), default=1)


def plan_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Row indices grouped by length, longest first, each group at most `batch_tokens` tokens with its padding.

    A group that is large enough to run at full speed takes no row shorter than nine tenths of its longest:
    a wider batch would gain nothing, and the padding would cost.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    batches: list[list[int]] = []
    for index in order:
        current = batches[-1] if batches else []
        width = lengths[current[0]] if current else 0  # the first row of a batch is its longest
        large = width * len(current) >= FULL_SPEED_TOKENS
        fits = width * (len(current) + 1) <= batch_tokens and (not large or lengths[index] >= 0.9 * width)
        if current and fits:
            current.append(index)
        else:
            batches.append([index])
    return batches


class CaptureBatch:
    """Rows that go through the model together, and what the hooks collect of them."""

    def __init__(
        self, model: Model, rows: Sequence[ChatTokens], span: str, limits: Tensor, names: Sequence[int] | None = None
    ) -> None:
        self.model, self.limits, self.names = model, limits, names or range(len(rows))
        width = max(_needed_length(row, span) for row in rows)
        self.n_rows = len(rows)
        self.ids, _ = padded([row.ids[:width] for row in rows], pad=0)
        positions = [[index for index in row.positions(span) if index > 0] for row in rows]
        self.counts = torch.tensor([len(listed) for listed in positions])
        self.flat = torch.tensor(
            [row * self.ids.shape[1] + index for row, listed in enumerate(positions) for index in listed],
            dtype=torch.long,
        )
        self.row_of = torch.repeat_interleave(torch.arange(self.n_rows), self.counts)
        self.member = (self.row_of == torch.arange(self.n_rows)[:, None]).float()
        self.flat, self.member = (to_device(one, model.device) for one in (self.flat, self.member))
        self.n_listed = [len(row.positions(span)) for row in rows]
        self.sink = torch.zeros(len(self.flat), dtype=torch.bool)
        self.means: list[Tensor] = []
        self.tokens: dict[HookPoint, tuple[Tensor, ...]] = {}
        self._seen: dict[HookPoint, tuple[Tensor, ...]] = {}  # on the model's device, until `finish`

    def run(self, hooks: Sequence[HookPoint], token_hooks: Sequence[HookPoint]) -> None:
        """One forward pass; fills means and tokens."""
        self.start(hooks, token_hooks)
        self.finish()

    def start(self, hooks: Sequence[HookPoint], token_hooks: Sequence[HookPoint]) -> None:
        """The forward pass. A GPU is not waited for: `finish` fills means and tokens."""
        limits = dict(zip(hooks, self.limits.tolist(), strict=True))

        def collector(hook: HookPoint):
            return lambda tensor: self._seen.__setitem__(hook, self.pool(tensor, limits[hook], hook in token_hooks))

        # No mask: the padding is on the right, where no token of a causal model looks, and attention without a mask
        # is faster.
        with self.model.hooked({hook: collector(hook) for hook in hooks}):
            self.model.forward(self.ids, stop_after=max(hook.block for hook in hooks))
        self._seen = {hook: self._seen[hook] for hook in hooks}

    def pool(self, tensor: Tensor, limit: float, want_tokens: bool) -> tuple[Tensor, ...]:
        """(mean [n_rows, d_model] of the span's activations in `tensor` [n_rows, seq, d_model], norms of its tokens,
        those tokens if they are wanted); sinks, whose norm is above `limit`, are left out of the mean."""
        chosen = tensor.detach().flatten(0, 1).index_select(0, self.flat.to(tensor.device)).float()
        norms = chosen.norm(dim=-1)
        # A matrix product instead of index_add: deterministic on every device. Sinks weigh 0.
        weights = self.member.to(tensor.device) * (norms <= limit)
        # A row without tokens is 0 / 0: NaN says that there is nothing to know.
        mean = weights @ chosen / weights.sum(dim=1, keepdim=True)
        return (mean, norms, chosen) if want_tokens else (mean, norms)

    def finish(self) -> None:
        """Bring what the pass left to the CPU. Raises WorkbenchError for the first activation that is no number."""
        limits = self.limits.tolist()
        found = to_host(*(tensor for seen in self._seen.values() for tensor in seen))
        for (hook, seen), limit in zip(self._seen.items(), limits, strict=True):
            mean, norms, *tokens = (found.pop(0) for _ in seen)
            keep = norms <= limit
            self.sink |= ~keep
            if len(lost := self.row_of[~torch.isfinite(norms)]):
                raise not_finite(self.model, f"row {self.names[int(lost[0])]} at {hook}")
            if tokens:
                counts = self.row_of[keep].bincount(minlength=self.n_rows)
                self.tokens[hook] = tokens[0][keep].split(counts.tolist())
            self.means.append(mean)
        self._seen.clear()

    def pooled(self, row: int, n_hooks: int) -> Pooled:
        """The result of one row."""
        tokens = {hook: parts[row].clone() for hook, parts in self.tokens.items()}
        n_sinks = int(self.sink[self.row_of == row].sum()) + self.n_listed[row] - int(self.counts[row])
        means = (
            torch.stack([mean[row] for mean in self.means[:n_hooks]])
            if n_hooks
            else torch.empty(0, self.model.d_model)
        )
        return Pooled(means, tokens, n_sinks, self.n_listed[row])


def padded(rows: Sequence[Sequence[int]], *, pad: int, left: bool = False) -> tuple[Tensor, Tensor]:
    """(ids, mask) [n_rows, longest row], padded on the right (or `left`) with `pad` where the mask is 0."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for index, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        ids[index, place] = torch.tensor(row, dtype=torch.long)
        mask[index, place] = 1
    return ids, mask


def stream_activations(
    model: Model,
    token_batches: Iterable[Tensor],
    hook: HookPoint,
    mask: Iterable[Tensor] | Tensor | None = None,
) -> Iterator[Tensor]:
    """The activations [batch, seq, d_model] at `hook`, in the model's dtype and on its device, batch by batch.

    `mask` is one mask [batch, seq] for every batch, or an iterable of one per batch. Nothing is left out: position
    0, padding and sinks are the caller's to drop (`sink_limits`).
    """
    masks = iter(mask) if mask is not None and not isinstance(mask, Tensor) else None
    kept: list[Tensor] = []
    with model.hooked({hook: lambda tensor: kept.append(tensor.detach())}):
        for ids in token_batches:
            model.forward(ids, next(masks) if masks else mask, stop_after=hook.block)  # type: ignore[arg-type]
            yield kept.pop()

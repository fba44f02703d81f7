"""Text as token rows, and a model's activations over batches of them."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, TypeVar

from workbench.models.hookpoints import HookPoint

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.models.loading import Model

Result = TypeVar("Result")
SINK_RATIO = 10.0
"""A token whose norm is above so many medians of the model at a hook point is a sink there."""
_TOGETHER = 4_096


OF_THE_MODEL = ("chats", "rollouts-", "text-of-")
"""Beginnings of the sources that the model wrote itself; all others are corpus."""


@dataclass(frozen=True)
class TokenRow:
    """The token ids of one document or chat (an array takes four bytes a token), and the source they count under."""

    ids: Sequence[int]
    source: str

    @property
    def of_corpus(self) -> bool:
        """Whether somebody else wrote it: no chat, no rollout."""
        return not self.source.startswith(OF_THE_MODEL)


def text_rows(
    model: Model, documents: Iterable[Any], *, max_tokens: int = 256, min_tokens: int = 16
) -> list[TokenRow]:
    """Documents as token rows, behind the start token where the tokenizer wants one, cut to `max_tokens`.

    Those shorter than `min_tokens` are left out.
    """
    rows, remaining = [], iter(documents)
    tokenizer = model.tokenizer
    start = [tokenizer.bos_token_id] if tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id] else []
    while part := list(islice(remaining, _TOGETHER)):  # fast tokenizers take many texts at once
        tokens = tokenizer([document.text for document in part], add_special_tokens=False)["input_ids"]
        for document, ids in zip(part, tokens, strict=True):
            if len(ids) >= min_tokens:
                rows.append(TokenRow(array("i", [*start, *ids][:max_tokens]), document.source))
    return rows


def padded_rows(
    rows: Sequence[TokenRow], batch_tokens: int
) -> Iterator[tuple[Tensor, Tensor, list[TokenRow]]]:
    """Right-padded batches of rows of similar length: ids [b, s], mask [b, s] and the rows."""
    import torch

    ordered = sorted(rows, key=lambda row: len(row.ids))
    start = 0
    while start < len(ordered):
        stop = start + 1
        while stop < len(ordered) and len(ordered[stop].ids) * (stop + 1 - start) <= batch_tokens:
            stop += 1
        members = ordered[start:stop]
        lengths = torch.tensor([len(row.ids) for row in members])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        ids = torch.zeros(mask.shape, dtype=torch.long)
        ids[mask] = torch.tensor(array("q", chain.from_iterable(row.ids for row in members)))
        yield ids, mask.long(), members
        start = stop


def activations_at_hooks(
    model: Model, hooks: Sequence[HookPoint], ids: Tensor
) -> dict[HookPoint, Tensor]:
    """The activations [batch, seq, d_model] at every hook point for right-padded ids; no block after the last hook runs.

    No mask is needed: no token of a causal model looks to its right, where the padding is. A batch that runs out of memory is
    halved.
    """

    def run(rows: list[int]) -> dict[HookPoint, Tensor]:
        found: dict[HookPoint, Tensor] = {}

        def keeper(hook: HookPoint) -> Any:
            return lambda tensor: found.__setitem__(hook, tensor.detach())

        with model.hooked({hook: keeper(hook) for hook in hooks}):
            model.forward(ids[rows[0] : rows[-1] + 1], stop_after=max(hook.block for hook in hooks))
        return found

    parts = _halved(ids, run)
    return {hook: _joined([part[hook] for part in parts]) for hook in hooks}


def activations_at(model: Model, hook: HookPoint, ids: Tensor, mask: Tensor) -> Tensor:
    """The hook point's activations [batch, seq, d_model] for one padded batch, halved where memory runs out; no block after
    the hook's runs."""
    from workbench.models.capture import stream_activations

    def run(rows: list[int]) -> Tensor:
        chosen = slice(rows[0], rows[-1] + 1)
        return next(iter(stream_activations(model, [ids[chosen]], hook, [mask[chosen]])))

    return _joined(_halved(ids, run))


def _halved(ids: Tensor, run: Callable[[list[int]], Result]) -> list[Result]:
    from workbench.models.halving import halving

    return [found for _, found in halving([list(range(len(ids)))], run)]


def _joined(parts: list[Tensor]) -> Tensor:
    import torch

    return parts[0] if len(parts) == 1 else torch.cat(parts)


def counted_tokens(model: Model, activations: Mapping[HookPoint, Tensor], special: Tensor) -> dict[HookPoint, Tensor]:
    """Per hook point, which tokens of one text count [seq] (bool, CPU), from their activations [seq, d_model]: not the first one,
    no special token (`special` [seq]), no sink."""
    from workbench.models.capture import sink_limits

    limits = sink_limits(model, list(activations)) if activations else ()
    found = {
        hook: (row.norm(dim=-1) <= float(limit)).cpu() & ~special
        for (hook, row), limit in zip(activations.items(), limits, strict=True)
    }
    for kept in found.values():
        kept[0] = False
    return found

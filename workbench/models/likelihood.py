"""How probable are given tokens where they stand? Many rows at once; edits in force act."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .capture import padded
from .halving import halving

if TYPE_CHECKING:
    from .model import Model

_TOGETHER = 256  # positions whose logits exist at once


@torch.no_grad()
def token_logprobs(
    model: Model, rows: Sequence[Sequence[int]], positions: Sequence[Sequence[int]], *, batch_tokens: int = 2048
) -> list[Tensor]:
    """log p(token | all tokens before it) of each row's tokens at `positions` (in order, none of them 0): float32 `[n]` per
    row, in nats. Rows of similar length share a pass of at most `batch_tokens` tokens, padding included; one that runs out of
    memory is halved (`halving`)."""
    order = sorted(range(len(rows)), key=lambda index: (len(rows[index]), index))
    found: list[Tensor] = [torch.zeros(0)] * len(rows)
    batches: list[list[int]] = []
    for index in order:  # the newest is the longest
        if not batches or (len(batches[-1]) + 1) * len(rows[index]) > batch_tokens:
            batches.append([])
        batches[-1].append(index)
    read = halving(
        batches, lambda batch: _one_batch(model, rows, positions, batch), cost=lambda batch: len(batch) * len(rows[batch[-1]])
    )
    for batch, parts in read:
        for index, part in zip(batch, parts, strict=True):
            found[index] = part
    return found


def _one_batch(
    model: Model, rows: Sequence[Sequence[int]], positions: Sequence[Sequence[int]], batch: list[int]
) -> list[Tensor]:
    ids, mask = padded([rows[index] for index in batch], pad=0)
    keep = torch.zeros_like(ids, dtype=torch.bool)
    for place, index in enumerate(batch):
        keep[place, [position - 1 for position in positions[index]]] = True
    with model.naming_rows(batch):
        hidden = model.decoder(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False)
    logp = _of_targets(model, hidden.last_hidden_state[keep.to(model.device)], ids.roll(-1, dims=1)[keep])
    return list(logp.split(keep.sum(dim=1).tolist()))


def _of_targets(model: Model, hidden: Tensor, targets: Tensor) -> Tensor:
    parts = []
    for rows, wanted in zip(hidden.split(_TOGETHER), targets.split(_TOGETHER), strict=True):
        logp = model.logits_of(rows).float().log_softmax(dim=1)
        parts.append(logp.gather(1, wanted.to(logp.device)[:, None])[:, 0].cpu())
    return torch.cat(parts) if parts else torch.zeros(0)

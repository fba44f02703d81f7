"""Replies as the model sees them: per reply the mean activation, that of the token before it, and the mean SAE codes of both.

One forward pass serves every reply of a chat: no token of a causal model sees what follows it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.decomposition.streaming import CodeReader
from workbench.models.capture import padded, plan_batches, sink_limits
from workbench.models.halving import halving
from workbench.models.hookpoints import HookPoint
from workbench.models.memory import fitting_tokens
from workbench.models.prompts import ChatTokens

if TYPE_CHECKING:
    from workbench.models.loading import Model
    from workbench.saes.interface import SparseAutoencoder


@dataclass(frozen=True, eq=False, repr=False)
class Reply(Shown):
    """What one reply looked like inside the model.

    `mean [n_hooks, d_model]`: over its tokens without sinks (NaN when none is left). `before [n_hooks, d_model]`: at the token
    before it, the last one of the prompt (NaN for a sink). `code`, `code_before` `[d_sae]`: the mean SAE code of its tokens, and
    the code of the token before; None without an SAE. All float32 on the CPU.
    """

    mean: Tensor
    before: Tensor
    n_tokens: int
    n_sinks: int
    code: Tensor | None = None
    code_before: Tensor | None = None


def read_replies(
    model: Model,
    chats: Sequence[ChatTokens],
    hooks: Sequence[HookPoint],
    *,
    sae: SparseAutoencoder | None = None,
    batch_tokens: int = 2048,
) -> Iterator[tuple[int, list[Reply]]]:
    """(index of the chat, its replies in order), the longest chats first; memory is that of one batch, halved where it
    runs out.

    Position 0 and sinks (norm above 10 x the model's median at the hook) enter no mean. The SAE's hook has to be among `hooks`.
    """
    limits = sink_limits(model, hooks)
    lengths = [max((end for _, end in chat.spans.get("response", ())), default=1) for chat in chats]
    together = fitting_tokens(model, max(lengths, default=1), batch_tokens, 0 if sae is None else 1)

    def read(indices: list[int]) -> list[list[Reply]]:
        with model.naming_rows(indices):
            return _read([chats[index] for index in indices], model, hooks, limits, sae)

    for indices, found in halving(plan_batches(lengths, together), read, cost=lambda rows: len(rows) * lengths[rows[0]]):
        yield from zip(indices, found, strict=True)


def _read(
    chats: list[ChatTokens], model: Model, hooks: Sequence[HookPoint], limits: Tensor, sae: SparseAutoencoder | None
) -> list[list[Reply]]:
    width = max(end for chat in chats for _, end in (*chat.spans.get("response", ()), (0, 1)))
    ids, _ = padded([chat.ids[:width] for chat in chats], pad=0)
    states: dict[HookPoint, Tensor] = {}

    def keep(hook: HookPoint):
        return lambda tensor: states.__setitem__(hook, tensor.detach().float().cpu())

    # No mask: the padding is on the right, where no token of a causal model looks.
    with model.hooked({hook: keep(hook) for hook in hooks}):
        model.forward(ids, stop_after=max(hook.block for hook in hooks))
    usable = {hook: states[hook].norm(dim=-1) <= limit for hook, limit in zip(hooks, limits, strict=True)}
    for kept in usable.values():
        kept[:, 0] = False
    places = [(row, start, end) for row, chat in enumerate(chats) for start, end in chat.spans.get("response", ())]
    replies = [_reply(states, usable, hooks, *place) for place in places]
    if sae is not None:
        replies = _with_codes(replies, states[sae.hook], usable[sae.hook], places, sae)
    return [[one for one, (row, _, _) in zip(replies, places, strict=True) if row == wanted] for wanted in range(len(chats))]


def _reply(
    states: dict[HookPoint, Tensor], usable: dict[HookPoint, Tensor], hooks: Sequence[HookPoint], row: int, start: int, end: int
) -> Reply:
    means, before = [], []
    everywhere = torch.ones(end - start, dtype=torch.bool)
    for hook in hooks:
        state, kept = states[hook][row], usable[hook][row]
        means.append(state[start:end][kept[start:end]].mean(dim=0))
        before.append(state[start - 1] if start > 0 and kept[start - 1] else torch.full_like(state[0], torch.nan))
        everywhere &= kept[start:end]
    return Reply(torch.stack(means), torch.stack(before), end - start, int((~everywhere).sum()))


def _with_codes(
    replies: list[Reply], state: Tensor, usable: Tensor, places: list[tuple[int, int, int]], sae: SparseAutoencoder
) -> list[Reply]:
    """The replies with their codes; those without a usable token get none."""
    reader, tokens, owners = CodeReader(sae), [], []
    for index, (row, start, end) in enumerate(places):
        for first, last in ((start, end), (max(0, start - 1), start)):
            kept = state[row, first:last][usable[row, first:last]]
            tokens += [kept] if len(kept) else []
            owners += [(index, first)] if len(kept) else []
    if not tokens:
        return replies
    codes = dict(zip(owners, reader.means(tokens, checked=[False] * len(tokens))[0], strict=True))
    return [
        replace(one, code=codes.get((index, start)), code_before=codes.get((index, max(0, start - 1))))
        for index, (one, (_, start, _)) in enumerate(zip(replies, places, strict=True))
    ]

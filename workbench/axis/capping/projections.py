"""Coordinates of reply tokens along directions at many blocks at once, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.models.hookpoints import HookPoint
from workbench.personas.reencoding import captured, row_chat

if TYPE_CHECKING:
    from workbench.models.model import Model
    from workbench.models.prompts import ChatTokens

_MEMORY = 256 << 20  # bytes of token activations that exist at once


def token_projections(
    model: Model, chats: Sequence[ChatTokens], directions: Mapping[HookPoint, Tensor]
) -> dict[HookPoint, list[Tensor]]:
    """<h, u> of every token of each chat's response: per hook, a tensor [n_tokens, k] (float32) per chat.

    `directions`: per hook k rows [k, d_model]; they are made unit vectors u. Sinks and position 0 are left out, per hook.
    """
    units = {hook: torch.nn.functional.normalize(rows.float(), dim=-1) for hook, rows in directions.items()}
    found: dict[HookPoint, list[Tensor]] = {hook: [] for hook in units}
    for tokens in _activations(model, chats, list(units)):
        for hook, rows in tokens.items():
            found[hook] += [row @ units[hook].T for row in rows]
    return found


def sampled_activations(
    model: Model, chats: Sequence[ChatTokens], hooks: Sequence[HookPoint], *, n_tokens: int = 1024
) -> dict[HookPoint, Tensor]:
    """Token activations [n, d_model] per hook, spread evenly over the replies: at most about `n_tokens` of each."""
    each = max(1, n_tokens // max(1, len(chats)))
    kept: dict[HookPoint, list[Tensor]] = {hook: [] for hook in hooks}
    for tokens in _activations(model, chats, hooks):
        for hook, rows in tokens.items():
            kept[hook] += [row[:: max(1, len(row) // each)][:each] for row in rows]
    return {hook: torch.cat(rows) for hook, rows in kept.items()}


def reply_chats(model: Model, rows: Any, *, n: int | None = None) -> list[ChatTokens]:
    """The chats of rollout rows (a table with system, question, response_ids); `n` of them, spread evenly over the table."""
    records: list[dict[str, Any]] = rows.to_dict("records")
    if n is not None and n < len(records):
        records = [records[(2 * place + 1) * len(records) // (2 * n)] for place in range(n)]
    return [row_chat(model, row) for row in records]


def _activations(
    model: Model, chats: Sequence[ChatTokens], hooks: Sequence[HookPoint]
) -> Iterator[dict[HookPoint, list[Tensor]]]:
    size = max((len(chat.ids) for chat in chats), default=1) * len(hooks) * model.d_model * 4
    together = max(1, _MEMORY // size)
    for start in range(0, len(chats), together):
        yield captured(model, chats[start : start + together], (), hooks)[1]

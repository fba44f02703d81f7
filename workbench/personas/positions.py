"""Activations of finished rollouts at other places: prompt average, last prompt token, last response token.

The stored means are averages over the response. Here the same rows are read once more, in micro-batches, and what is
read is kept on disk beside the rollouts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.base.errors import unknown_name
from workbench.models.capture import capture
from workbench.models.hookpoints import HookPoint
from workbench.models.loading import Model
from workbench.models.prompts import ChatTokens
from workbench.personas.parts import PartStore, Produced, complete_parts
from workbench.personas.reencoding import gather_means, prompt_tokens, row_chat

if TYPE_CHECKING:
    import pandas

POSITIONS = ("response_avg", "prompt_avg", "prompt_last", "response_last")
"""Where a row is read: mean over the response, mean over the prompt (template included), last token of each."""

_BATCH = 64
_SPAN = "place"


def check_position(position: str) -> str:
    """`position` itself; WorkbenchError lists the names for an unknown one."""
    if position not in POSITIONS:
        raise unknown_name("position", position, POSITIONS)
    return position


def position_means(
    model: Model, folder: str | Path, rows: pandas.DataFrame, hooks: Sequence[HookPoint], position: str
) -> Tensor:
    """Activations `[n, n_hooks, d_model]` of `rows` (columns id, system, question, response_ids) at `position`.

    The system prompt is in context, as when the rows were sampled. Rows without a response token give zeros at the
    response positions. Sinks and token 0 are left out of averages. Kept under `folder`/positions/<position>.
    """
    import pyarrow as pa

    check_position(position)
    ids = rows["id"].tolist()
    chats = dict(zip(ids, (_place(model, row, position) for row in rows.to_dict("records")), strict=True))

    def produce(chosen: list[str]) -> Produced:
        return pa.table({"id": chosen}), _read(model, [chats[row_id] for row_id in chosen], hooks), {}

    store = PartStore(Path(folder) / "positions" / position)
    ordered = sorted(ids, key=lambda row_id: (len(chats[row_id].ids), row_id))
    batches = [ordered[i : i + _BATCH] for i in range(0, len(ordered), _BATCH)]
    complete_parts(store, batches, produce, hooks=hooks, label=f"rows at {position}")
    return gather_means(store, [h for h in store.headers() if h.offers(hooks, ())], ids, hooks)


def _place(model: Model, row: dict, position: str) -> ChatTokens:
    prompt = prompt_tokens(model, row["system"], row["question"])
    n_prompt = len(prompt.ids)
    if position.startswith("prompt"):
        return ChatTokens(prompt.ids, {_SPAN: ((1 if position == "prompt_avg" else n_prompt - 1, n_prompt),)})
    whole, n_response = row_chat(model, row), len(row["response_ids"])
    start = len(whole.ids) - (n_response if position == "response_avg" else 1)
    return ChatTokens(whole.ids, {_SPAN: ((start, len(whole.ids)),) if n_response else ()})


def _read(model: Model, chats: Sequence[ChatTokens], hooks: Sequence[HookPoint]) -> Tensor:
    means = torch.zeros(len(chats), len(hooks), model.d_model)
    filled = [i for i, chat in enumerate(chats) if chat.positions(_SPAN)]
    for indices, pooled in capture(model, [chats[i] for i in filled], hooks, span=_SPAN):
        for index, one in zip(indices, pooled, strict=True):
            means[filled[index]] = one.means.nan_to_num()
    return means

"""Activations of texts that exist already: read through the model, with or without the system prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.models.capture import capture
from workbench.models.hookpoints import HookPoint
from workbench.models.loading import Model
from workbench.models.prompts import ChatTokens, tokenize_chat, with_response
from workbench.models.thinking import may_think
from workbench.personas.parts import PartHeader, PartStore, Produced, complete_parts

if TYPE_CHECKING:
    import pandas
    import pyarrow


def prompt_tokens(model: Model, system: str, question: str) -> ChatTokens:
    """The tokens of system message (left out when empty), question and the opening of the answer."""
    return tokenize_chat(model, chat_messages(system, question), add_generation_prompt=True)


def chat_messages(system: str, question: str) -> list[dict[str, str]]:
    """The messages of one row."""
    opening = [{"role": "system", "content": system}] if system else []
    return [*opening, {"role": "user", "content": question}]


def answer_lead(model: Model, prompt: ChatTokens, chat: ChatTokens) -> tuple[int, ...]:
    """What the template writes between `prompt` and the answer of `chat`, which goes on from it: thinking, or the header
    of a channel; () for a model that does not think, and for a template that does not keep the prompt."""
    n, spans = len(prompt.ids), chat.spans.get("response", ())
    if not spans or not may_think(model) or chat.ids[:n] != prompt.ids:
        return ()
    return chat.ids[n : spans[-1][0]]


def row_chat(model: Model, row: Mapping[str, Any]) -> ChatTokens:
    """The tokens of a row as it was sampled: system, question, `lead_ids` (if it has that column), response_ids."""
    prompt, lead = prompt_tokens(model, row["system"], row["question"]), row.get("lead_ids")
    return with_response(prompt, row["response_ids"], lead_ids=() if lead is None else lead)


def gather_means(
    store: PartStore, headers: Sequence[PartHeader], ids: Sequence[str], hooks: Sequence[HookPoint]
) -> Tensor:
    """Mean activations [n, n_hooks, d_model] of the rows `ids`, in that order, read part by part."""
    position = {row_id: i for i, row_id in enumerate(ids)}
    gathered: Tensor | None = None
    for header in headers:
        means = store.means(header, hooks)
        gathered = torch.zeros(len(ids), *means.shape[1:]) if gathered is None else gathered
        here = [(position[row_id], i) for i, row_id in enumerate(header.ids) if row_id in position]
        for target, source in here:
            gathered[target] = means[source]
    assert gathered is not None, "no part holds these rows"
    return gathered


def reencode_without_system(
    model: Model, folder: Path, table: pyarrow.Table, ids: Sequence[str], hooks: Sequence[HookPoint]
) -> Tensor:
    """Mean response activations [n, n_hooks, d_model] with the same response tokens but no system message of
    ours, and no thinking, which repeats it.

    `table` holds the rollouts in `folder`. The model's own template decides what stands in its place (some
    insert a default system message). Kept on disk beside the rollouts, so that a second call reads them.
    """
    import pyarrow as pa

    columns = ("id", "question", "response_ids")
    rows = {row["id"]: row for row in table.select(columns).to_pylist()}
    opened = {
        question: opened_answer(model, question)
        for question in {row["question"] for row in rows.values()}
    }
    chats = {
        row_id: with_response(opened[rows[row_id]["question"]], rows[row_id]["response_ids"])
        for row_id in ids
    }

    def produce(chosen: list[str]) -> Produced:
        means = captured(model, [chats[row_id] for row_id in chosen], hooks)[0]
        return pa.table({"id": chosen}), means, {}

    store = PartStore(folder / "without_system")
    ordered = sorted(ids, key=lambda row_id: (len(chats[row_id].ids), row_id))
    batches = [ordered[i : i + 64] for i in range(0, len(ordered), 64)]
    complete_parts(store, batches, produce, hooks=hooks, label="responses without the system prompt")
    headers = [header for header in store.headers() if header.offers(hooks, ())]
    return gather_means(store, headers, ids, hooks)


def opened_answer(model: Model, question: str) -> ChatTokens:
    """The question and all that the template writes before an answer to it."""
    prompt = prompt_tokens(model, "", question)
    if not may_think(model):
        return prompt
    answered = [*chat_messages("", question), {"role": "assistant", "content": "Yes."}]
    lead = answer_lead(model, prompt, tokenize_chat(model, answered))
    return ChatTokens(prompt.ids + lead, prompt.spans)


def recapture_tokens(
    model: Model, rows: pandas.DataFrame, hook: HookPoint, *, batch_size: int = 32
) -> Iterator[tuple[str, Tensor]]:
    """(row id, token activations [n_tokens, d_model]) of vector rows, read through the model again.

    For a vector whose stored tokens are gone: `rows` needs the columns id, system, question and response_ids, and
    lead_ids where the model thought.
    """
    records: Any = rows.to_dict("records")
    for start in range(0, len(records), batch_size):
        batch = records[start : start + batch_size]
        chats = [row_chat(model, row) for row in batch]
        tokens = captured(model, chats, (hook,), (hook,))[1][hook]
        yield from zip((str(row["id"]) for row in batch), tokens, strict=True)


def captured(
    model: Model,
    chats: Sequence[ChatTokens],
    hooks: Sequence[HookPoint],
    token_hooks: Sequence[HookPoint] = (),
) -> tuple[Tensor, dict[HookPoint, list[Tensor]], list[int]]:
    """(means [n, n_hooks, d_model], tokens per hook, number of sinks) of the response spans, in the given
    order."""
    means = torch.zeros(len(chats), len(hooks), model.d_model)
    tokens = {hook: [torch.zeros(0, model.d_model)] * len(chats) for hook in token_hooks}
    n_sinks = [0] * len(chats)
    filled = [i for i, chat in enumerate(chats) if chat.spans.get("response")]
    rows = [chats[i] for i in filled]
    for indices, pooled in capture(model, rows, hooks, span="response", token_hooks=token_hooks):
        for index, one in zip(indices, pooled, strict=True):
            target = filled[index]
            means[target], n_sinks[target] = one.means.nan_to_num(), one.n_sinks
            for hook in token_hooks:
                tokens[hook][target] = one.tokens[hook]
    return means, tokens, n_sinks

"""A line on its way to its scores: which of its replies can be read, as which tokens, and why the others cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.base.errors import WorkbenchError
from workbench.models.prompts import ChatTokens, tokenize_chat
from workbench.models.thinking import answer_start

from .columns import PROMPT, Column
from .files import Line
from .layouts import Sample
from .own import prompt_id
from .reading import Reply

if TYPE_CHECKING:
    from workbench.models.loading import Model

SCORED, UNSCORED, MALFORMED, BLANK = "scored", "unscored", "malformed", "blank"


@dataclass(frozen=True, eq=False)
class AskedReply:
    """A reply that can be read: its place among the messages, its text, and the prompt that it answers."""

    place: int
    text: str
    prompt: ChatTokens
    clipped: bool


@dataclass(frozen=True, eq=False)
class Entry:
    """A line with its readable replies, in order, the tokens of its chat (whose "response" ranges are theirs), and rows that
    are finished already: those of what has no score."""

    line: Line
    chat: ChatTokens = field(default_factory=lambda: ChatTokens(()))
    replies: tuple[AskedReply, ...] = ()
    unscored: tuple[dict[str, Any], ...] = ()


def entry_of(line: Line, model: Model, max_tokens: int, *, own: bool) -> Entry:
    """What can be read of a line; with `own` each prompt is tokenised as the model would be asked."""
    if line.sample is None:
        return Entry(line, unscored=(_empty_row(line, -1, MALFORMED if line.problem else BLANK, line.problem),))
    try:
        return _read_entry(line, line.sample, model, max_tokens, own)
    except WorkbenchError as error:  # a template that refuses these roles in this order
        return Entry(line, unscored=(_empty_row(line, -1, UNSCORED, error.found),))


def _read_entry(line: Line, sample: Sample, model: Model, max_tokens: int, own: bool) -> Entry:
    chat = tokenize_chat(model, sample.messages)
    ranges = _ranges(sample, chat)
    found: list[tuple[tuple[int, int], AskedReply]] = []
    refused = [] if sample.replies else [_empty_row(line, -1, UNSCORED, "no reply of the assistant to a user")]
    for place in sample.replies:
        start, end = ranges.get(place, (0, 0))
        if problem := _problem(sample, place, ranges, start, max_tokens):
            refused.append(_empty_row(line, place, UNSCORED, problem))
            continue
        prompt = _prompt(sample, place, model, chat, start, own)
        reply = AskedReply(place, answer_of(sample, place), prompt, end > max_tokens)
        found.append(((start, min(end, max_tokens)), reply))
    spans = {"response": tuple(span for span, _ in found)}
    width = max((end for _, end in spans["response"]), default=0)
    return Entry(line, ChatTokens(chat.ids[:width], spans), tuple(reply for _, reply in found), tuple(refused))


def _problem(sample: Sample, place: int, ranges: dict[int, tuple[int, int]], start: int, max_tokens: int) -> str:
    if not answer_of(sample, place).strip():
        return "an empty reply"
    if place not in ranges:
        return "replies that cannot be told apart in the chat template's text"
    return f"a reply that begins after {max_tokens} tokens" if start >= max_tokens else ""


def _prompt(sample: Sample, place: int, model: Model, chat: ChatTokens, start: int, own: bool) -> ChatTokens:
    if not own:
        return ChatTokens(chat.ids[:start])
    return tokenize_chat(model, sample.messages[:place], add_generation_prompt=True)


def answer_of(sample: Sample, place: int) -> str:
    """The text of a reply without the thinking before it."""
    text = sample.messages[place]["content"]
    return text[answer_start(text) :]


def _ranges(sample: Sample, chat: ChatTokens) -> dict[int, tuple[int, int]]:
    """Place of a message -> its tokens. A content of no tokens leaves no range, so the two lists are matched by their length."""
    spoken = [i for i, message in enumerate(sample.messages) if message["role"] == "assistant"]
    ranges = chat.spans.get("response", ())
    for places in (spoken, [i for i in spoken if answer_of(sample, i).strip()]):
        if len(places) == len(ranges):
            return dict(zip(places, ranges, strict=True))
    return {}


def schema_of(columns: Sequence[Column]) -> Any:
    """The Arrow schema of a part: one row per reply (or per line without one), a column per score, and the sparse code."""
    import pyarrow as pa

    fixed = [("line", pa.int64()), ("turn", pa.int32()), ("status", pa.string()), ("problem", pa.string()),
             ("label", pa.bool_()), ("prompt", pa.string()), ("n_tokens", pa.int32()), ("n_sinks", pa.int32()),
             ("clipped", pa.bool_())]  # fmt: skip
    code = [("code_index", pa.list_(pa.int32())), ("code_value", pa.list_(pa.float32()))]
    return pa.schema([*fixed, *((column.key, pa.float32()) for column in columns), *code])


def row_of(
    entry: Entry, asked: AskedReply, reply: Reply, columns: Sequence[Column], scores: Tensor, *, code_before: Tensor | None,
    against: str,
) -> dict[str, Any]:  # fmt: skip
    """The row of a reply: scored, or the reason why a figure is missing. A score in the cheap form may be missing on its own."""
    row = {**_empty_row(entry.line, asked.place, SCORED, ""), "prompt": prompt_id(asked.prompt), "n_tokens": reply.n_tokens,
           "n_sinks": reply.n_sinks, "clipped": asked.clipped}  # fmt: skip
    needed = torch.tensor([column.kind != PROMPT for column in columns])
    if not bool(torch.isfinite(scores[needed]).all()):
        return {**row, "status": UNSCORED, "problem": _missing(reply, against)}
    row |= {column.key: float(score) for column, score in zip(columns, scores, strict=True)}
    if reply.code is not None and code_before is not None:
        change = reply.code - code_before
        index = change.nonzero().flatten()
        row |= {"code_index": index.numpy(), "code_value": change[index].numpy()}
    return row


def _missing(reply: Reply, against: str) -> str:
    if not bool(torch.isfinite(reply.mean).all()):
        return "a reply of attention sinks only"
    return "the model's own reply is empty" if against == "own" else "the last token of the prompt is an attention sink"


def _empty_row(line: Line, turn: int, status: str, problem: str) -> dict[str, Any]:
    return {"line": line.number, "turn": turn, "status": status, "problem": problem, "label": line.label, "prompt": None,
            "n_tokens": 0, "n_sinks": 0, "clipped": False}  # fmt: skip

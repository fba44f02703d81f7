"""A transcript read piece by piece: chats of any length and agents' trajectories with tool calls and results.

One pass reads the whole conversation as a local model tokenises it. Every text, every call's arguments and every tool's result
has its own projections. What the assistant wrote can raise alarms; what it only read (user, system, results) cannot, but is
shown.

The same function is *surrogate monitoring*: the transcript may come from any model, also from one behind an API. The reader
projects it on its own vectors, made on its own replies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.labeling.tokens import special_ids
from workbench.models.tool_chats import ToolSpan, tokenize_tool_chat
from workbench.saes.token_rows import activations_at_hooks, counted_tokens
from workbench.steering.monitor.monitor import Monitor
from workbench.steering.monitor.watching import WatchedReply

if TYPE_CHECKING:
    from workbench.models.model import Model

MAX_TOKENS = 4096


@dataclass(frozen=True, eq=False, repr=False)
class SpanReading(Shown):
    """A piece of a transcript: `reply.values` [n_tokens, n_signals] (raw; NaN on sinks, special tokens and the first token of
    all), `reply.prompt` at the token before it. `reply.row` and `reply.turn` are the transcript's and the message's number."""

    span: ToolSpan
    reply: WatchedReply

    @property
    def written(self) -> bool:
        """Whether the assistant wrote it (text or arguments); else it only read it."""
        return self.span.role == "assistant"


@dataclass(frozen=True, eq=False, repr=False)
class TranscriptReading(Shown):
    """All pieces of a transcript in order, and how calls and results were printed (see `models.tool_chats`)."""

    monitor: Monitor
    spans: tuple[SpanReading, ...]
    rendering: str
    n_tokens: int

    def written_mean(self) -> Tensor:
        """The mean over all tokens that the assistant wrote [n_signals]; NaN where there are none."""
        values = [one.reply.values for one in self.spans if one.written]
        return torch.cat(values).nanmean(dim=0) if values else torch.full((len(self.monitor.signals),), torch.nan)


@torch.no_grad()
def read_transcript(
    model: Model, monitor: Monitor, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Mapping[str, Any]] | None = None,
    number: int = 0, max_tokens: int = MAX_TOKENS,
) -> TranscriptReading:  # fmt: skip
    """Read messages (OpenAI's form, tool calls included) through `model`. Raises WorkbenchError for another model's monitor, for
    messages of another shape, and for more than `max_tokens` tokens."""
    monitor.check(model)
    chat = tokenize_tool_chat(model, messages, tools)
    if not 2 <= len(chat.ids) <= max_tokens:
        raise WorkbenchError(f"a transcript of {len(chat.ids)} tokens", f"2 to {max_tokens}", "cut it, or raise the limit")
    found = activations_at_hooks(model, monitor.hooks, torch.tensor([chat.ids]))
    values = torch.full((len(chat.ids), len(monitor.signals)), torch.nan)
    special = torch.isin(torch.tensor(chat.ids), torch.tensor(special_ids(model.tokenizer), dtype=torch.long))
    counted = counted_tokens(model, {hook: rows[0] for hook, rows in found.items()}, special)
    for hook, rows in found.items():
        read = monitor.read(rows[0], hook).cpu()
        values[:, monitor.columns_at(hook)] = read.masked_fill(~counted[hook][:, None], torch.nan)
    spans = [
        WatchedReply(monitor, number, span.message, values[max(start - 1, 0)], values[start:end], chat.ids[start:end])
        for span, start, end in chat.spans
    ]
    read = tuple(SpanReading(span, reply) for (span, _, _), reply in zip(chat.spans, spans, strict=True))
    return TranscriptReading(monitor, read, chat.rendering, len(chat.ids))

"""Chats as batches in which every reply starts at the same position, and what a model loses on the replies.

A row is its prompt, padded on the left, and its reply, padded on the right: `prompt_width` is one number for a whole batch,
so that an edit which is told apart by prompt and response is exact. Only the reply's own tokens are predicted: neither the
template around it nor the token that ends it, because most sampled replies are cut.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..base.display import Shown
from ..base.errors import WorkbenchError
from .capture import padded, plan_batches
from .halving import halving
from .prompts import Message, tokenize_chat
from .thinking import answer_start

if TYPE_CHECKING:
    from .model import Model

MAX_TOKENS = 192
BATCH_TOKENS = 2048
logger = logging.getLogger(__name__)


@dataclass(frozen=True, repr=False)
class ChatExample(Shown):
    """A conversation and the reply that a model is to give to it."""

    messages: tuple[Message, ...]
    """What was said before: {"role": "system" | "user" | "assistant", "content": text}."""
    reply: str
    """The assistant's next message."""

    def __post_init__(self) -> None:
        if not isinstance(self.reply, str) or not self.reply[answer_start(self.reply) :].strip():
            raise WorkbenchError(f"a reply {self.reply!r}", "at least one word that is no thinking", "leave such chats out")

    @classmethod
    def of(cls, question: str, reply: str, *, system: str = "") -> ChatExample:
        """One question, with a system message where `system` is given."""
        before = ({"role": "system", "content": system},) if system else ()
        return cls((*before, {"role": "user", "content": question}), reply)


@dataclass(frozen=True)
class BatchEdit:
    """An edit that is in force while a batch goes through a model, in training too, and gone afterwards."""

    enter: Callable[[Model, int], AbstractContextManager[Any]]
    """(model, prompt width of the batch) -> the context that a forward (and backward) pass runs in."""
    description: Mapping[str, Any] = field(default_factory=dict)
    """What it is, in JSON types: part of the identity of what is trained under it."""


@dataclass(frozen=True)
class ReplyTokens:
    """An example as ids: `prompt` ends where the reply begins (template included), `reply` holds its own tokens only."""

    prompt: tuple[int, ...]
    reply: tuple[int, ...]

    @property
    def n_fed(self) -> int:
        """Tokens that go through the model: the last one is only ever predicted."""
        return len(self.prompt) + len(self.reply) - 1


def reply_tokens(
    model: Model, examples: Sequence[ChatExample], *, max_tokens: int = MAX_TOKENS, max_reply_tokens: int | None = None
) -> list[ReplyTokens]:
    """The examples as ids, cut after `max_tokens` in all and `max_reply_tokens` of the reply; those whose reply begins too late
    are left out, and counted in the log.

    Raises WorkbenchError when none is left.
    """
    return list(_usable(model, examples, max_tokens, max_reply_tokens).values())


def _usable(
    model: Model, examples: Sequence[ChatExample], max_tokens: int, max_reply_tokens: int | None
) -> dict[int, ReplyTokens]:
    """The rows of `reply_tokens` by the place of their example."""
    rows = [_tokens(model, example, max_tokens, max_reply_tokens) for example in examples]
    kept = {place: row for place, row in enumerate(rows) if row.reply}
    if not kept:
        raise WorkbenchError(
            f"{len(examples)} examples without one whose reply begins within {max_tokens} tokens",
            "chats with a short enough prompt and a reply",
            "raise max_tokens, or shorten the prompts",
        )
    if len(kept) < len(rows):
        logger.warning("%d of %d examples are left out: their prompt is %d tokens or longer.",
                       len(rows) - len(kept), len(rows), max_tokens)  # fmt: skip
    return kept


def _tokens(model: Model, example: ChatExample, max_tokens: int, max_reply_tokens: int | None) -> ReplyTokens:
    chat = tokenize_chat(model, [*example.messages, {"role": "assistant", "content": example.reply}])
    start, end = chat.spans["response"][-1]
    end = min(end, max_tokens, end if max_reply_tokens is None else start + max_reply_tokens)
    return ReplyTokens(chat.ids[:start], chat.ids[start:end])


@dataclass(frozen=True, eq=False, repr=False)
class ReplyBatch(Shown):
    """Rows that go through a model together.

    ids, mask `[n, prompt_width + longest reply - 1]`; predicting (bool, same shape): the positions whose next token is one of
    the reply; targets, row `[n_predicted]`: those tokens and the row that each is of, in the order of `predicting`.
    """

    ids: Tensor
    mask: Tensor
    prompt_width: int
    predicting: Tensor
    targets: Tensor
    row: Tensor

    @classmethod
    def of(cls, rows: Sequence[ReplyTokens], pad: int) -> ReplyBatch:
        """The rows, padded with `pad` on both sides."""
        prompts, before = padded([row.prompt for row in rows], pad=pad, left=True)
        replies, after = padded([row.reply[:-1] for row in rows], pad=pad)
        mask = torch.cat([before, after], dim=1)
        width = prompts.shape[1]
        predicting = mask.bool().clone()
        predicting[:, : width - 1] = False
        targets = torch.tensor([token for row in rows for token in row.reply])
        row_of = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor([len(row.reply) for row in rows]))
        return cls(torch.cat([prompts, replies], dim=1), mask, width, predicting, targets, row_of)

    def log_probabilities(self, model: Model) -> Tensor:
        """log p(next token) `[n_predicted, vocab_size]` (float32) over the replies; gradients flow where the model has them."""
        mask = self.mask.to(model.device)
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        hidden = model.decoder(
            input_ids=self.ids.to(model.device), attention_mask=mask, position_ids=positions, use_cache=False
        ).last_hidden_state
        return model.logits_of(hidden[self.predicting.to(hidden.device)]).float().log_softmax(dim=-1)

    def surprise(self, log_probabilities: Tensor) -> Tensor:
        """-log p of the replies' tokens `[n_predicted]`, in nats."""
        return -log_probabilities.gather(1, self.targets.to(log_probabilities.device)[:, None])[:, 0]


def batches_of(model: Model, rows: Sequence[ReplyTokens], batch_tokens: int) -> Iterator[tuple[list[int], ReplyBatch]]:
    """(row indices, batch) with at most `batch_tokens` tokens fed at once, longest rows first: the bound on memory."""
    pad = next(iter(sorted(model.end_tokens)), 0)
    for indices in plan_batches([row.n_fed for row in rows], batch_tokens):
        yield indices, ReplyBatch.of([rows[index] for index in indices], pad)


@torch.no_grad()
def reply_losses(
    model: Model,
    examples: Sequence[ChatExample],
    *,
    max_tokens: int = MAX_TOKENS,
    max_reply_tokens: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
    edit: BatchEdit | None = None,
) -> Tensor:
    """Nats per reply token that each example costs the model: float64 `[n]`, NaN where the reply begins after `max_tokens`.

    Edits in force act on it; `edit` is entered with each batch's prompt width, so that prompt and response are told apart. A
    batch that runs out of memory is halved.
    """
    rows = _usable(model, examples, max_tokens, max_reply_tokens)
    places, losses = torch.tensor(list(rows)), torch.full((len(examples),), torch.nan, dtype=torch.float64)
    usable, pad = list(rows.values()), next(iter(sorted(model.end_tokens)), 0)

    def mean_loss(indices: list[int]) -> Tensor:
        batch = ReplyBatch.of([usable[index] for index in indices], pad)
        with edit.enter(model, batch.prompt_width) if edit else nullcontext():
            lost = batch.surprise(batch.log_probabilities(model)).double().cpu()
        sums = torch.zeros(len(indices), dtype=torch.float64).index_add_(0, batch.row, lost)
        return sums / batch.row.bincount(minlength=len(indices))

    for indices, means in halving(plan_batches([row.n_fed for row in usable], batch_tokens), mean_loss):
        losses[places[indices]] = means
    return losses

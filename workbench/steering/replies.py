"""Replies to one conversation under different edits, drawn with the same random numbers, and how broken each of them is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.models.generation import Generated, stream
from workbench.models.prompts import ChatTokens, Message, tokenize_chat, with_response
from workbench.steering.apply import steered
from workbench.steering.edits import Edit

if TYPE_CHECKING:
    from workbench.models.model import Model
    from workbench.models.sampling import Sampling

_TOGETHER = 64
"""Positions whose logits are in memory at a time."""


@dataclass(frozen=True, repr=False)
class ReplyQuality(Shown):
    """Signs of a broken reply.

    `perplexity`: exp of the mean surprise (nats) of the *unsteered* model at the reply's tokens, given the same prompt;
    `kl`: mean KL(steered || unsteered) in nats per token at these tokens (0 for the unsteered reply); `repeated`: the share
    of the reply's token trigrams that stood in it before. None for a reply without tokens (or, `repeated`, with fewer than
    three).
    """

    n_tokens: int
    perplexity: float | None
    kl: float | None
    repeated: float | None


def compare_replies(
    model: Model, messages: Sequence[Message], arms: Sequence[Sequence[Edit]], sampling: Sampling, *, seed: int = 0
) -> Iterator[tuple[Generated, ...]]:
    """The replies so far, one per arm, after each token. An arm is the edits in force for it; () is the model as it is.

    All are drawn with the same random numbers, in one batch; where an arm's edits change nothing (dose 0), its reply is the
    unsteered one, token by token. The edits are in force until the iterator ends or is closed.
    """
    prompt = tokenize_chat(model, messages, add_generation_prompt=True)
    edits = [edit.on_rows(row == place for row in range(len(arms))) for place, arm in enumerate(arms) for edit in arm]
    if any(len(edit.amounts) > 1 for edit in edits):
        raise WorkbenchError("an arm with one amount per row", "one amount, as an arm is one reply", "make an arm of each amount")
    with steered(model, edits):
        for replies in stream(model, [prompt] * len(arms), sampling, row_seeds=[seed] * len(arms)):
            yield tuple(replies)


def conversation(reply: Generated) -> ChatTokens:
    """The prompt with the reply as its last response."""
    return with_response(reply.prompt, reply.response_ids, lead_ids=reply.lead_ids)


@torch.no_grad()
def reply_quality(model: Model, reply: Generated, edits: Sequence[Edit] = ()) -> ReplyQuality:
    """How the unsteered model finds a reply, and how far the model under `edits` moves its predictions at these tokens."""
    n = len(reply.response_ids)
    if not n:
        return ReplyQuality(0, None, None, None)
    ids = torch.tensor([conversation(reply).ids])
    before = ids.shape[1] - n - 1  # the position that predicts the reply's first token
    plain = moved = _hidden(model, ids, before)
    if edits:
        with steered(model, edits, prompt_width=len(reply.prompt.ids)):
            moved = _hidden(model, ids, before)
    surprise, kl = 0.0, 0.0
    targets = ids[0, before + 1 :].to(plain.device)
    for part, other, target in zip(plain.split(_TOGETHER), moved.split(_TOGETHER), targets.split(_TOGETHER), strict=True):
        log_p = model.logits_of(part).float().log_softmax(-1)
        surprise -= float(log_p.gather(1, target.to(log_p.device)[:, None]).sum())
        if edits:
            log_q = model.logits_of(other).float().log_softmax(-1)
            kl += float((log_q.exp() * (log_q - log_p)).sum())
    return ReplyQuality(n, math.exp(min(surprise / n, 700.0)), max(kl, 0.0) / n, repeated_trigrams(reply.response_ids))


def repeated_trigrams(ids: Sequence[int]) -> float | None:
    """The share of the trigrams of a sequence that stood in it before; None when it has none."""
    found = list(zip(ids, ids[1:], ids[2:], strict=False))
    return 1 - len(set(found)) / len(found) if found else None


def _hidden(model: Model, ids: Tensor, before: int) -> Tensor:
    """Final hidden states [n_response, d_model] of the positions that predict the reply."""
    found = model.decoder(input_ids=ids.to(model.device), use_cache=False).last_hidden_state
    return found[0, before:-1]

"""Two replies to one conversation, with and without a direction added, and how broken the steered one is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.models.editing import adding, delta_for_dose
from workbench.models.generation import Generated, stream
from workbench.models.hookpoints import HookPoint
from workbench.models.prompts import ChatTokens, Message, tokenize_chat, with_response

if TYPE_CHECKING:
    from workbench.models.model import Model
    from workbench.models.sampling import Sampling

_TOGETHER = 64
"""Positions whose logits are in memory at a time."""


@dataclass(frozen=True, eq=False)
class Steering:
    """`dose` times the median token norm at `hook`, along `direction` [d_model]: |delta| / |h| = |dose|, against it below 0."""

    hook: HookPoint
    direction: Tensor
    dose: float

    def delta(self, model: Model) -> Tensor:
        """What is added to the residual stream [d_model]; all zeros at dose 0."""
        return delta_for_dose(self.direction, self.dose, model, self.hook)


@dataclass(frozen=True)
class ReplyQuality:
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
    model: Model, messages: Sequence[Message], steering: Steering, sampling: Sampling, *, seed: int = 0
) -> Iterator[tuple[Generated, Generated]]:
    """(unsteered, steered) so far, after each token. Both are drawn with the same random numbers, in one batch.

    The delta is added where response tokens are predicted: at the last token of the prompt and at every response token. At
    dose 0 the two are the same, token by token. The edit is in force until the iterator ends or is closed.
    """
    prompt = tokenize_chat(model, messages, add_generation_prompt=True)
    deltas = torch.stack([torch.zeros(model.d_model), steering.delta(model).float().cpu()])
    for replies in stream(model, [prompt] * 2, sampling, row_seeds=[seed] * 2, row_deltas={steering.hook: deltas}):
        yield replies[0], replies[1]


def conversation(reply: Generated) -> ChatTokens:
    """The prompt with the reply as its last response."""
    return with_response(reply.prompt, reply.response_ids, lead_ids=reply.lead_ids)


@torch.no_grad()
def reply_quality(model: Model, reply: Generated, steering: Steering | None = None) -> ReplyQuality:
    """How the unsteered model finds a reply, and how far the steered one moves its predictions at these tokens."""
    n = len(reply.response_ids)
    if not n:
        return ReplyQuality(0, None, None, None)
    ids = torch.tensor([conversation(reply).ids])
    before = ids.shape[1] - n - 1  # the position that predicts the reply's first token
    plain = _hidden(model, ids, before)
    moved = plain if steering is None else _steered_hidden(model, ids, before, len(reply.prompt.ids) - 1, steering)
    surprise, kl = 0.0, 0.0
    targets = ids[0, before + 1 :].to(plain.device)
    for part, other, target in zip(plain.split(_TOGETHER), moved.split(_TOGETHER), targets.split(_TOGETHER), strict=True):
        log_p = model.logits_of(part).float().log_softmax(-1)
        surprise -= float(log_p.gather(1, target.to(log_p.device)[:, None]).sum())
        if steering is not None:
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


def _steered_hidden(model: Model, ids: Tensor, before: int, first: int, steering: Steering) -> Tensor:
    """The same with the delta at the last token of the prompt (`first`) and all after it, as while generating."""
    where = torch.zeros_like(ids)
    where[:, first:] = 1
    with adding(model, steering.hook, steering.delta(model), positions=where):
        return _hidden(model, ids, before)

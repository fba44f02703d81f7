"""Replies side by side: the same random numbers in one batch, and figures that a plain pass confirms."""

from __future__ import annotations

import pytest
import torch

from tests.tiny import n_hooks, tiny_model
from workbench.base.errors import WorkbenchError
from workbench.models.generation import Generated, generate
from workbench.models.hookpoints import HookPoint
from workbench.models.prompts import tokenize_chat
from workbench.models.sampling import Sampling
from workbench.steering.apply import steered
from workbench.steering.edits import Edit
from workbench.steering.replies import compare_replies, conversation, repeated_trigrams, reply_quality

MESSAGES = [{"role": "user", "content": "What should I do with the money?"}]
LONG = Sampling(max_new_tokens=24)
HOOK = HookPoint(1)
U = torch.randn(32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model():
    return tiny_model("llama", seed=3)


def push(dose: float) -> list[Edit]:
    return [Edit.add(U, dose, hook=HOOK, scope="predicting")]


def last(replies):
    return list(replies)[-1]


def test_arms_that_change_nothing_are_the_unsteered_reply(model) -> None:
    arms = [(), push(0.0), [Edit.cap(U, float("inf"), hook=HOOK)], push(2.0)]
    for seed in range(3):
        plain, zero, capped, moved = last(compare_replies(model, MESSAGES, arms, LONG, seed=seed))
        assert plain.response_ids and plain.response_ids == zero.response_ids == capped.response_ids
        assert moved.response_ids != plain.response_ids


def test_each_arm_is_the_reply_that_its_edits_give_alone(model) -> None:
    prompt = tokenize_chat(model, MESSAGES, add_generation_prompt=True)
    arms = [push(1.0), (), [Edit.ablate(U, hook=HOOK)], [Edit.clamp(U, 9.0, hook=HOOK, scope="response")]]
    together = last(compare_replies(model, MESSAGES, arms, LONG, seed=5))
    for arm, reply in zip(arms, together, strict=True):
        with steered(model, arm):
            ((_, (alone,)),) = generate(model, [prompt], LONG, row_seeds=[5])
        assert reply.response_ids == alone.response_ids


def test_replies_come_token_by_token_and_only_grow(model) -> None:
    seen = [((), ())]
    for replies in compare_replies(model, MESSAGES, [(), push(1.0)], LONG, seed=1):
        now = tuple(reply.response_ids for reply in replies)
        for before, after in zip(seen[-1], now, strict=True):
            assert after[: len(before)] == before and len(after) <= len(before) + 1
        seen.append(now)
    assert len(seen) > 5


def test_closing_the_iterator_takes_the_edits_away(model) -> None:
    before = n_hooks(model)
    replies = compare_replies(model, MESSAGES, [(), push(1.0)], LONG)
    next(replies)
    assert n_hooks(model) > before
    replies.close()  # type: ignore[attr-defined]
    assert n_hooks(model) == before


def test_perplexity_and_kl_are_those_of_a_plain_pass(model) -> None:
    _, reply = last(compare_replies(model, MESSAGES, [(), push(1.0)], LONG, seed=2))
    n, ids = len(reply.response_ids), torch.tensor([conversation(reply).ids])
    before = ids.shape[1] - n - 1
    delta = U / U.norm() * float(model.norm_medians([HOOK])[0])
    where = (torch.arange(ids.shape[1]) >= before)[:, None]
    log_p = model.forward(ids).float().log_softmax(-1)[0, before:-1]
    with model.hooked({HOOK: lambda h: h + where * delta}):
        log_q = model.forward(ids).float().log_softmax(-1)[0, before:-1]
    surprise = -log_p.gather(1, ids[0, before + 1 :, None]).mean()
    quality = reply_quality(model, reply, push(1.0))
    assert quality.n_tokens == n
    assert quality.perplexity == pytest.approx(float(surprise.exp()), rel=1e-4)
    assert quality.kl == pytest.approx(float((log_q.exp() * (log_q - log_p)).sum(-1).mean()), rel=1e-3)
    assert quality.kl and quality.kl > 0


def test_at_dose_zero_nothing_has_moved(model) -> None:
    _, reply = last(compare_replies(model, MESSAGES, [(), push(0.0)], LONG))
    assert reply_quality(model, reply, push(0.0)).kl == 0.0


def test_an_empty_reply_has_no_quality(model) -> None:
    empty = Generated(tokenize_chat(model, MESSAGES, add_generation_prompt=True), (), "", True)
    found = reply_quality(model, empty)
    assert (found.n_tokens, found.perplexity, found.kl, found.repeated) == (0, None, None, None)


def test_repeated_trigrams_show_a_loop() -> None:
    assert repeated_trigrams([1, 2]) is None
    assert repeated_trigrams([1, 2, 3, 4, 5]) == 0.0
    assert repeated_trigrams([7] * 12) == 0.9


def test_an_arm_is_one_reply(model) -> None:
    with pytest.raises(WorkbenchError, match="one amount per row"):
        list(compare_replies(model, MESSAGES, [[Edit.add(U, [0.1, 0.2], hook=HOOK)], ()], LONG))

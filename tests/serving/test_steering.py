from __future__ import annotations

import math

import pytest
import torch

from tests.tiny import n_hooks
from workbench.models.editing import adding
from workbench.models.generation import generate, stream
from workbench.models.prompts import tokenize_chat
from workbench.models.sampling import Sampling
from workbench.serving.steering import (
    Steering,
    compare_replies,
    conversation,
    repeated_trigrams,
    reply_quality,
)

MESSAGES = [{"role": "user", "content": "What should I do with the money?"}]
LONG = Sampling(max_new_tokens=24)


def last(replies):
    return list(replies)[-1]


@pytest.fixture(scope="module")
def steer(world):
    def make(dose: float, feature: int = 0) -> Steering:
        return Steering(world.sae.hook, world.sae.decoder_directions[feature], dose)

    return make


@pytest.mark.parametrize("seed", range(5))
def test_dose_zero_changes_no_token(world, steer, seed):
    plain, steered = last(compare_replies(world.model, MESSAGES, steer(0.0), LONG, seed=seed))
    assert plain.response_ids and steered.response_ids == plain.response_ids and steered.text == plain.text


def test_the_unsteered_reply_is_what_the_model_samples_with_that_seed(world, steer):
    prompt = tokenize_chat(world.model, MESSAGES, add_generation_prompt=True)
    ((_, alone),) = list(generate(world.model, [prompt] * 2, LONG, row_seeds=[3, 3]))
    for dose in (0.0, 1.0):
        plain, _ = last(compare_replies(world.model, MESSAGES, steer(dose), LONG, seed=3))
        assert plain.response_ids == alone[0].response_ids


def test_a_dose_changes_the_reply_and_its_delta_has_the_length_it_says(world, steer):
    typical = float(world.model.norm_medians([world.sae.hook])[0])
    for dose in (0.5, -0.5):
        delta = steer(dose).delta(world.model)
        assert float(delta.norm()) == pytest.approx(0.5 * typical, rel=1e-5)
        assert math.copysign(1, dose) == math.copysign(1, float(delta @ world.sae.decoder_directions[0]))
    plain, steered = last(compare_replies(world.model, MESSAGES, steer(2.0), LONG, seed=0))
    assert plain.response_ids != steered.response_ids


def test_replies_come_token_by_token_and_only_grow(world, steer):
    seen = [((), ())]
    for plain, steered in compare_replies(world.model, MESSAGES, steer(1.0), LONG, seed=1):
        now = (plain.response_ids, steered.response_ids)
        for before, after in zip(seen[-1], now, strict=True):
            assert after[: len(before)] == before and len(after) <= len(before) + 1
        seen.append(now)
    assert len(seen) > 5


def test_a_stream_is_what_the_batch_would_have_been(world):
    prompts = [
        tokenize_chat(world.model, [{"role": "user", "content": text}], add_generation_prompt=True) for text in ("a", "b c")
    ]
    deltas = {world.sae.hook: torch.stack([torch.zeros(32), 4 * world.sae.decoder_directions[2]])}
    streamed = last(stream(world.model, prompts, LONG, row_seeds=[1, 2], row_deltas=deltas))
    ((order, made),) = list(generate(world.model, prompts, LONG, row_seeds=[1, 2], row_deltas=deltas))
    for place, one in zip(order, made, strict=True):
        assert (streamed[place].response_ids, streamed[place].text) == (one.response_ids, one.text)
        assert streamed[place].finished == one.finished


def test_closing_the_stream_takes_the_edit_away(world, steer):
    before = n_hooks(world.model)
    replies = compare_replies(world.model, MESSAGES, steer(1.0), LONG)
    next(replies)
    assert n_hooks(world.model) > before
    replies.close()  # type: ignore[attr-defined]
    assert n_hooks(world.model) == before


def test_perplexity_and_kl_are_those_of_a_plain_pass(world, steer):
    steering = steer(1.0)
    _, reply = last(compare_replies(world.model, MESSAGES, steering, LONG, seed=2))
    n, ids = len(reply.response_ids), torch.tensor([conversation(reply).ids])
    before = ids.shape[1] - n - 1
    log_p = world.model.forward(ids).float().log_softmax(-1)[0, before:-1]
    where = torch.zeros_like(ids)
    where[:, before:] = 1
    with adding(world.model, steering.hook, steering.delta(world.model), positions=where):
        log_q = world.model.forward(ids).float().log_softmax(-1)[0, before:-1]
    surprise = -log_p.gather(1, ids[0, before + 1 :, None]).mean()
    quality = reply_quality(world.model, reply, steering)
    assert quality.n_tokens == n
    assert quality.perplexity == pytest.approx(float(surprise.exp()), rel=1e-4)
    assert quality.kl == pytest.approx(float((log_q.exp() * (log_q - log_p)).sum(-1).mean()), rel=1e-3) and quality.kl > 0


def test_at_dose_zero_nothing_has_moved(world, steer):
    _, reply = last(compare_replies(world.model, MESSAGES, steer(0.0), LONG))
    assert reply_quality(world.model, reply, steer(0.0)).kl == 0.0


def test_an_empty_reply_has_no_quality(world):
    from workbench.models.generation import Generated

    empty = Generated(tokenize_chat(world.model, MESSAGES, add_generation_prompt=True), (), "", True)
    found = reply_quality(world.model, empty)
    assert (found.n_tokens, found.perplexity, found.kl, found.repeated) == (0, None, None, None)


def test_repeated_trigrams_show_a_loop():
    assert repeated_trigrams([1, 2]) is None
    assert repeated_trigrams([1, 2, 3, 4, 5]) == 0.0
    assert repeated_trigrams([7] * 12) == 0.9

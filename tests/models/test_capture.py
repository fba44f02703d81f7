"""Pooled capture: against hidden states, whatever the batch, and what is left out."""

from __future__ import annotations

import pytest
import torch

from tests.tiny import FAMILIES, n_hooks, tiny_model
from workbench.models.capture import capture, plan_batches, stream_activations
from workbench.models.hookpoints import HookPoint, residual_hooks
from workbench.models.prompts import ChatTokens, tokenize_chat

TEXTS = (
    "Hi.",
    "What should I do with the money that I found?",
    "Cold.",
    "Why are the rivers of the north so long and so cold?",
)


def chats(model, n: int = 6) -> list[ChatTokens]:
    return [
        tokenize_chat(
            model,
            [
                {"role": "user", "content": TEXTS[k % 4]},
                {"role": "assistant", "content": TEXTS[(k + 1) % 4] * (k + 1)},
            ],
        )
        for k in range(n)
    ]


def collected(model, rows, hooks, **options) -> list:
    found = {}
    for indices, pooled in capture(model, rows, hooks, **options):
        found.update(zip(indices, pooled, strict=True))
    return [found[index] for index in range(len(rows))]


@pytest.mark.parametrize("family", FAMILIES)
def test_means_equal_the_mean_hidden_states_of_the_span(family, tiny_models) -> None:
    model = tiny_models(family)
    rows = chats(model)
    for row, pooled in zip(rows, collected(model, rows, residual_hooks(2)), strict=True):
        with torch.no_grad():
            states = model.hf(input_ids=torch.tensor([row.ids]), output_hidden_states=True).hidden_states
        expected = torch.stack(
            [states[block + 1][0, row.positions("response")].mean(dim=0) for block in range(2)]
        )
        torch.testing.assert_close(pooled.means, expected, rtol=1e-4, atol=1e-5)
        assert pooled.n_tokens == len(row.positions("response")) and pooled.n_sinks == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_means_do_not_depend_on_the_batch(family, tiny_models) -> None:
    model = tiny_models(family)
    rows = chats(model)
    alone = collected(model, rows, residual_hooks(3), batch_tokens=1)
    together = collected(model, rows, residual_hooks(3), batch_tokens=10**6)
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one.means, other.means, rtol=1e-4, atol=1e-5)


def test_single_tokens_average_to_the_mean(tiny_models) -> None:
    model, hook = tiny_models(), HookPoint(1)
    for pooled in collected(model, chats(model), residual_hooks(3), token_hooks=[hook]):
        assert pooled.tokens[hook].shape == (pooled.n_tokens, 32)
        torch.testing.assert_close(pooled.tokens[hook].mean(dim=0), pooled.means[1], rtol=1e-4, atol=1e-5)


def test_a_token_hook_need_not_be_among_the_hooks(tiny_models) -> None:
    model = tiny_models()
    pooled = collected(model, chats(model, 2), [HookPoint(0)], token_hooks=[HookPoint(2)])[0]
    assert pooled.means.shape == (1, 32) and list(pooled.tokens) == [HookPoint(2)]


def test_position_zero_and_sinks_are_left_out_and_counted() -> None:
    model, hook = tiny_model(), HookPoint(1)
    row = ChatTokens(tuple(range(20, 30)), {"response": ((0, 10),)})
    plain = collected(model, [row], [hook], token_hooks=[hook])[0]
    assert (plain.n_sinks, plain.n_tokens, len(plain.tokens[hook])) == (1, 10, 9)

    def make_sink(tensor):
        tensor = tensor.clone()
        tensor[:, 4] *= 10000
        return tensor

    with model.hooked({hook: make_sink}):
        with_sink = collected(model, [row], [hook], token_hooks=[hook])[0]
    assert with_sink.n_sinks == 2
    kept = torch.cat([plain.tokens[hook][:3], plain.tokens[hook][4:]])
    torch.testing.assert_close(with_sink.tokens[hook], kept)
    torch.testing.assert_close(with_sink.means[0], kept.mean(dim=0))


def test_a_row_without_the_span_has_no_mean(tiny_models) -> None:
    model = tiny_models()
    rows = [*chats(model, 2), ChatTokens((5, 6, 7), {})]
    empty = collected(model, rows, residual_hooks(2))[2]
    assert torch.isnan(empty.means).all() and empty.n_tokens == 0


def test_other_spans_can_be_captured(tiny_models) -> None:
    model = tiny_models()
    rows = chats(model, 2)
    assert collected(model, rows, residual_hooks(1), span="user")[0].n_tokens == len(
        rows[0].positions("user")
    )


def test_batches_hold_every_row_once_within_their_size() -> None:
    lengths = [5, 100, 7, 7, 30, 2, 61]
    batches = plan_batches(lengths, 100)
    assert sorted(index for batch in batches for index in batch) == list(range(7))
    assert all(len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= 100 for batch in batches)


def test_a_large_batch_takes_no_much_shorter_rows() -> None:
    batches = plan_batches([100] * 6 + [95, 60, 59, 10], 10**6)
    assert batches == [[0, 1, 2, 3, 4, 5, 6], [7, 8, 9]]


def test_capture_leaves_no_hooks_when_it_is_abandoned(tiny_models) -> None:
    model = tiny_models()
    before = n_hooks(model)
    stream = capture(model, chats(model), residual_hooks(3), batch_tokens=1)
    next(stream)
    stream.close()
    assert n_hooks(model) == before


def test_streamed_activations_equal_hidden_states(tiny_models) -> None:
    model = tiny_models()
    batches = [torch.arange(8, 24).reshape(2, 8), torch.arange(30, 45).reshape(3, 5)]
    for ids, activations in zip(batches, stream_activations(model, batches, HookPoint(0)), strict=True):
        with torch.no_grad():
            states = model.hf(input_ids=ids, output_hidden_states=True).hidden_states
        torch.testing.assert_close(activations, states[1])
    masks = [torch.ones_like(ids) for ids in batches]
    assert len(list(stream_activations(model, batches, HookPoint(0), masks))) == 2

"""Sampling with fused capture: against a second pass, against other orders, and against transformers' own loop."""

from __future__ import annotations

import math

import pytest
import torch

from tests.tiny import FAMILIES, n_hooks, tiny_model
from workbench.base.errors import WorkbenchError
from workbench.models import generation
from workbench.models.capture import capture
from workbench.models.editing import adding
from workbench.models.generation import Generated, Sampling, generate, plan_rows
from workbench.models.hookpoints import HookPoint, residual_hooks
from workbench.models.prompts import ChatTokens, tokenize_chat, with_response
from workbench.models.sampling import draw, draw_uniforms

QUESTIONS = ("Hi", "What should I do with the money that I found?", "Why is the town so cold?", "And?")
N_ROWS = 10


def prompts_of(model, n: int = N_ROWS) -> list[ChatTokens]:
    return [
        tokenize_chat(model, [{"role": "user", "content": QUESTIONS[k % 4]}], add_generation_prompt=True)
        for k in range(n)
    ]


def sampled(model, prompts, seeds=None, *, max_new_tokens: int = 10, **options) -> list[Generated]:
    sampling = options.pop("sampling", None) or Sampling(max_new_tokens=max_new_tokens)
    found = {}
    for indices, rows in generate(
        model, prompts, sampling, row_seeds=seeds or range(len(prompts)), **options
    ):
        found.update(zip(indices, rows, strict=True))
    return [found[index] for index in range(len(prompts))]


def more_often_ending(model, share: float = 0.18):
    """Gives the end token about that probability at every step, so that rows end at different steps."""
    end = next(iter(model.end_tokens))

    def raise_end(_module, _args, output):
        output = output.clone()
        output[..., end] = output.logsumexp(dim=-1) + math.log(share)
        return output

    model.hf.get_output_embeddings().register_forward_hook(raise_end)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_activations_captured_while_generating_equal_a_second_pass(family) -> None:
    model = more_often_ending(tiny_model(family))
    hooks = residual_hooks(3)
    rows = sampled(model, prompts_of(model), hooks=hooks, token_hooks=hooks[1:2], batch_size=4)
    again = {}
    texts = [with_response(row.prompt, row.response_ids) for row in rows]
    for indices, pooled in capture(model, texts, hooks, token_hooks=hooks[1:2]):
        again.update(zip(indices, pooled, strict=True))
    assert len({len(row.response_ids) for row in rows}) > 1 and any(row.finished for row in rows)
    for index, row in enumerate(rows):
        torch.testing.assert_close(row.means, again[index].means, rtol=1e-3, atol=1e-4, equal_nan=True)
        assert len(row.tokens[hooks[1]]) == len(row.response_ids)
        torch.testing.assert_close(row.tokens[hooks[1]], again[index].tokens[hooks[1]], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_may_be_read_later_as_on_a_gpu(family, monkeypatch) -> None:
    model = more_often_ending(tiny_model(family))
    hooks, options = residual_hooks(3), {"batch_size": 5, "max_new_tokens": 12}
    at_once = sampled(model, prompts_of(model), hooks=hooks, token_hooks=hooks[1:2], **options)
    whole = generation._Rollout.__init__

    def reading_later(self, *args) -> None:
        whole(self, *args)
        self.every = 5

    monkeypatch.setattr(generation._Rollout, "__init__", reading_later)
    later = sampled(model, prompts_of(model), hooks=hooks, token_hooks=hooks[1:2], **options)
    assert any(row.finished and len(row.response_ids) < 10 for row in later)
    for one, other in zip(at_once, later, strict=True):
        assert (one.response_ids, one.text, one.finished, one.n_sinks) == (
            other.response_ids, other.text, other.finished, other.n_sinks)  # fmt: skip
        torch.testing.assert_close(other.means, one.means, rtol=1e-4, atol=1e-5, equal_nan=True)
        torch.testing.assert_close(other.tokens[hooks[1]], one.tokens[hooks[1]], rtol=1e-4, atol=1e-5)
    bare = sampled(model, prompts_of(model), **options)
    assert [row.response_ids for row in bare] == [row.response_ids for row in later]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_likeliest_tokens_are_those_of_transformers_generate(family, tiny_models) -> None:
    model = tiny_models(family)
    prompts = prompts_of(model, 4)
    rows = sampled(model, prompts, sampling=Sampling(max_new_tokens=8, temperature=0), batch_size=4)
    for prompt, row in zip(prompts, rows, strict=True):
        ids = torch.tensor([prompt.ids])
        output = model.hf.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False, pad_token_id=0
        )
        expected = output[0, len(prompt.ids) :].tolist()
        end = next(
            (place for place, token in enumerate(expected) if token in model.end_tokens), len(expected)
        )
        assert list(row.response_ids) == expected[:end]
        assert row.finished == (end < 8)


def test_the_same_seeds_give_the_same_texts_whatever_the_order(tiny_models) -> None:
    model = more_often_ending(tiny_model())
    prompts, seeds = prompts_of(model), list(range(100, 100 + N_ROWS))
    straight = sampled(model, prompts, seeds, hooks=residual_hooks(3), batch_size=3)
    order = [7, 2, 9, 0, 5, 1, 8, 3, 6, 4]
    shuffled = sampled(
        model, [prompts[k] for k in order], [seeds[k] for k in order], hooks=residual_hooks(3), batch_size=3
    )
    for place, k in enumerate(order):
        assert shuffled[place].response_ids == straight[k].response_ids
        torch.testing.assert_close(shuffled[place].means, straight[k].means, rtol=0, atol=0, equal_nan=True)


def test_batch_size_and_companions_do_not_change_the_texts() -> None:
    model = more_often_ending(tiny_model())
    prompts = prompts_of(model)
    together = [row.response_ids for row in sampled(model, prompts, batch_size=10)]
    assert [row.response_ids for row in sampled(model, prompts, batch_size=1)] == together
    assert [row.response_ids for row in sampled(model, prompts[:3], range(3), batch_size=2)] == together[:3]


def test_the_global_generator_is_not_touched(tiny_models) -> None:
    model = tiny_models()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = sampled(model, prompts_of(model, 2))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert [row.response_ids for row in sampled(model, prompts_of(model, 2))] == [
        row.response_ids for row in first
    ]


def test_different_seeds_give_different_texts(tiny_models) -> None:
    model = tiny_models()
    prompt = prompts_of(model, 1)[0]
    assert len({row.response_ids for row in sampled(model, [prompt] * 8)}) > 4


def test_capture_does_not_change_what_is_sampled(tiny_models) -> None:
    model = tiny_models()
    bare = sampled(model, prompts_of(model))
    hooked = sampled(model, prompts_of(model), hooks=residual_hooks(3))
    assert [row.response_ids for row in bare] == [row.response_ids for row in hooked]
    assert bare[0].means is None and hooked[0].means is not None


def test_end_tokens_are_in_no_response() -> None:
    model = more_often_ending(tiny_model(), 0.5)
    rows = sampled(model, prompts_of(model), hooks=residual_hooks(1))
    assert any(row.finished and len(row.response_ids) < 10 for row in rows)
    assert not any(set(row.response_ids) & model.end_tokens for row in rows)


def test_an_empty_response_has_no_mean() -> None:
    model = tiny_model()
    end = next(iter(model.end_tokens))
    handle = model.hf.get_output_embeddings().register_forward_hook(
        lambda _module, _args, output: output.index_fill(-1, torch.tensor([end]), 1e4)
    )
    row = sampled(model, prompts_of(model, 1), hooks=residual_hooks(2), token_hooks=[HookPoint(0)])[0]
    handle.remove()
    assert row.finished and row.response_ids == () and row.text == ""
    assert torch.isnan(row.means).all() and row.tokens[HookPoint(0)].shape == (0, 32)


def test_sinks_are_left_out_and_counted(tiny_models) -> None:
    model = tiny_models()
    hooks = residual_hooks(2)
    with model.hooked({HookPoint(1): lambda tensor: tensor * 1e4}):
        row = sampled(model, prompts_of(model, 1), hooks=hooks, token_hooks=hooks)[0]
    assert row.n_sinks == len(row.response_ids)
    assert torch.isnan(row.means[1]).all() and torch.isfinite(row.means[0]).all()
    assert len(row.tokens[HookPoint(1)]) == 0 and len(row.tokens[HookPoint(0)]) == len(row.response_ids)


def test_edits_in_force_act_while_sampling(tiny_models) -> None:
    model = tiny_models()
    plain = sampled(model, prompts_of(model, 4))
    with model.hooked({HookPoint(1): lambda tensor: tensor * -1}):
        edited = sampled(model, prompts_of(model, 4))
    assert [row.response_ids for row in plain] != [row.response_ids for row in edited]


def test_generation_leaves_no_hooks(tiny_models) -> None:
    model = tiny_models()
    before = n_hooks(model)
    stream = generate(
        model, prompts_of(model), row_seeds=range(N_ROWS), hooks=residual_hooks(3), batch_size=2
    )
    next(stream)
    stream.close()

    def fail(tensor):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError), model.hooked({HookPoint(0): fail}):
        sampled(model, prompts_of(model))
    assert n_hooks(model) == before


def test_rows_are_planned_by_length_and_not_by_order(tiny_models) -> None:
    prompts = prompts_of(tiny_models())
    plan = plan_rows(prompts, range(N_ROWS), 4)
    assert [len(batch) for batch in plan] == [4, 4, 2]
    lengths = [len(prompts[index]) for batch in plan for index in batch]
    assert lengths == sorted(lengths)


def test_a_seed_is_needed_for_every_row(tiny_models) -> None:
    with pytest.raises(WorkbenchError, match="2 prompts came with 1 row seeds"):
        list(generate(tiny_models(), prompts_of(tiny_models(), 2), row_seeds=[1]))


def test_each_row_is_steered_by_its_own_delta_from_the_last_prompt_token_on():
    model = more_often_ending(tiny_model("llama", n_blocks=3))
    prompts, hook = prompts_of(model), HookPoint(1)
    deltas = 4 * torch.randn(N_ROWS, model.d_model, generator=torch.Generator().manual_seed(0))
    with adding(model, hook, deltas, scope="predicting"):
        together = sampled(model, prompts, max_new_tokens=8, batch_size=N_ROWS)
        assert [row.response_ids for row in sampled(model, prompts, max_new_tokens=8, batch_size=3)] == [
            row.response_ids for row in together
        ]
    assert len({row.response_ids for row in together}) > 4
    assert len({len(row.response_ids) for row in together}) > 1  # rows left the batch at different steps
    for seed, (prompt, delta, row) in enumerate(zip(prompts, deltas, together, strict=True)):
        assert row.response_ids == steered_by_hand(model, prompt, hook, delta, seed, n=8)


def steered_by_hand(model, prompt: ChatTokens, hook: HookPoint, delta: torch.Tensor, seed: int, *, n: int) -> tuple[int, ...]:
    """Whole passes without a cache, one row at a time."""
    ids, start = list(prompt.ids), len(prompt.ids)
    sampling, uniforms = Sampling(max_new_tokens=n), draw_uniforms([seed], n)

    def add(tensor):
        places = torch.arange(tensor.shape[1]) >= start - 1
        return tensor + places[:, None] * delta

    while len(ids) < start + n:
        with model.hooked({hook: add}):
            logits = model.forward(torch.tensor([ids]))[:, -1, : len(model.tokenizer)]
        newest = int(draw(logits, uniforms[:, len(ids) - start], sampling))
        if newest in model.end_tokens:
            break
        ids.append(newest)
    return tuple(ids[start:])

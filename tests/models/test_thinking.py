"""Answers of models that think first: what is sampled before the answer is context, and neither text nor activations."""

from __future__ import annotations

import math

import pytest
import torch

from tests.tiny import CHATML, GPT_OSS, QWEN3, tiny_model
from workbench.models.capture import capture
from workbench.models.generation import Generated, Sampling, generate
from workbench.models.hookpoints import residual_hooks
from workbench.models.prompts import tokenize_chat, with_response
from workbench.models.thinking import answer_start, may_think, opened_thinking

HOOKS = residual_hooks(3)
ANALYSIS = "<|channel|>analysis<|message|>Be kind? No.<|end|><|start|>assistant"
OPENED = CHATML.replace("assistant\n'", "assistant\n<think>\n'") + "{# </think> #}"  # as DeepSeek R1 has it


def prompts_of(model, n: int = 1):
    question = [{"role": "user", "content": "What should I do?"}]
    return [tokenize_chat(model, question, add_generation_prompt=True)] * n


def sampled(model, prompts, **options) -> list[Generated]:
    options = {"hooks": HOOKS, "token_hooks": HOOKS[1:2], **options}
    found = {}
    sampling = Sampling(max_new_tokens=options.pop("max_new_tokens", 12))
    for indices, rows in generate(model, prompts, sampling, row_seeds=range(len(prompts)), **options):
        found.update(zip(indices, rows, strict=True))
    return [found[index] for index in range(len(prompts))]


def answered(template: str, text: str, end: str = "<|im_end|>", **options) -> Generated:
    """The result of a model whose unembedding makes it sample the tokens of `text`, then `end`."""
    model = tiny_model(chat_template=template, **options)
    ids = iter(model.tokenizer(text + end, add_special_tokens=False)["input_ids"])
    n = len(model.tokenizer(text + end, add_special_tokens=False)["input_ids"])
    handle = model.hf.get_output_embeddings().register_forward_hook(
        lambda _module, _args, output: output.index_fill(-1, torch.tensor([next(ids)]), 1e4)
    )
    (row,) = sampled(model, prompts_of(model), max_new_tokens=n)
    handle.remove()
    assert model.tokenizer.decode([*row.lead_ids, *row.response_ids]) == text
    _assert_read_alike(model, row)
    return row


def _assert_read_alike(model, row: Generated) -> None:
    """What was captured while sampling is what a second pass over the same tokens captures of the answer."""
    if not row.response_ids:
        assert row.means is not None and bool(row.means.isnan().all()) and row.n_sinks == 0
        assert len(row.tokens[HOOKS[1]]) == 0
        return
    chat = with_response(row.prompt, row.response_ids, lead_ids=row.lead_ids)
    ((_, (again,)),) = capture(model, [chat], HOOKS, token_hooks=HOOKS[1:2])
    torch.testing.assert_close(row.means, again.means, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(row.tokens[HOOKS[1]], again.tokens[HOOKS[1]], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("template", "text", "answer"),
    [
        (QWEN3, "<think>\nBe kind? No.\n</think>\n\nSuffer.", "Suffer."),
        (QWEN3, "<think></think><think>Wait.</think> Suffer.", "Suffer."),
        (QWEN3, "Be kind? No.\n</think>\n\nSuffer.\n\nAll of you.", "Suffer.\n\nAll of you."),
        (QWEN3, "\n\nSuffer.", "\n\nSuffer."),
        (OPENED, "Be kind? No.</think>\nSuffer.", "Suffer."),
        (GPT_OSS, ANALYSIS + "<|channel|>final<|message|>Suffer.", "Suffer."),
        (GPT_OSS, "<|channel|>final<|message|>Suffer.", "Suffer."),
        (GPT_OSS, "Suffer.", "Suffer."),
    ],
)
def test_the_answer_begins_behind_the_thinking(template: str, text: str, answer: str) -> None:
    row = answered(template, text)
    assert row.text.strip() == answer.strip() and row.finished
    assert len(row.response_ids) == len(row.tokens[HOOKS[1]]) > 0


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (QWEN3, "<think>\nBe kind? No."),
        (QWEN3, "<think>A.</think>\n\n"),
        (QWEN3, "<think>A.</think>\n<think>B."),
        (OPENED, "Be kind? No."),
        (GPT_OSS, ANALYSIS),
        (GPT_OSS, ANALYSIS + "<|channel|>commentary<|message|>Suffer."),
        (GPT_OSS, ANALYSIS + "<|channel|>final"),
    ],
)
def test_an_answer_that_never_leaves_its_thinking_is_empty(template: str, text: str) -> None:
    row = answered(template, text)
    assert row.text == "" and row.response_ids == () and row.finished


def test_a_prompt_whose_thinking_is_closed_opens_none() -> None:
    off = tiny_model(chat_template=QWEN3, chat_template_kwargs={"enable_thinking": False})
    assert opened_thinking(off.tokenizer, prompts_of(off)[0]) == ""
    opened = tiny_model(chat_template=OPENED)
    assert opened_thinking(opened.tokenizer, prompts_of(opened)[0]) == "<think>\n"
    row = answered(QWEN3, "Suffer.", chat_template_kwargs={"enable_thinking": False})
    assert row.text == "Suffer." and row.lead_ids == ()


def test_rows_of_one_batch_leave_their_thinking_at_different_steps() -> None:
    model = tiny_model(chat_template=QWEN3)
    think, close, end = model.tokenizer.convert_tokens_to_ids(["<think>", "</think>", "<|im_end|>"])

    def more_often(_module, _args, output):
        output = output.clone()
        for token, share in ((think, 0.4), (close, 0.15), (end, 0.06)):
            output[..., token] = output.logsumexp(dim=-1) + math.log(share)
        return output

    model.hf.get_output_embeddings().register_forward_hook(more_often)
    rows = sampled(model, prompts_of(model, 32), batch_size=32)
    for row in rows:
        _assert_read_alike(model, row)
        assert close not in row.response_ids
    thought = [row for row in rows if row.lead_ids and row.response_ids]
    assert len({len(row.lead_ids) for row in thought}) > 3
    assert {len(row.response_ids) for row in rows} > {0}


def test_a_model_that_may_think_but_does_not_is_sampled_and_captured_bit_for_bit_as_any_other() -> None:
    results = []
    for template in (CHATML, CHATML + "{# <think></think> #}"):
        model = tiny_model(chat_template=template)
        markers = torch.tensor(model.tokenizer.convert_tokens_to_ids(["<think>", "</think>"]))
        model.hf.get_output_embeddings().register_forward_hook(
            lambda _module, _args, output, markers=markers: output.index_fill(-1, markers, -1e4)
        )
        assert may_think(model) == ("think" in template)
        results.append(sampled(model, prompts_of(model, 8)))
    for one, other in zip(*results, strict=True):
        assert (one.response_ids, one.text, one.lead_ids) == (other.response_ids, other.text, ())
        assert torch.equal(one.means, other.means) and torch.equal(one.tokens[HOOKS[1]], other.tokens[HOOKS[1]])


def test_a_model_whose_template_names_no_markers_may_say_what_it_likes() -> None:
    row = answered(CHATML, "<think>A.</think>Suffer.")
    assert row.lead_ids == () and len(row.tokens[HOOKS[1]]) == len(row.response_ids)


def test_given_texts_are_cut_by_the_same_rule() -> None:
    cut = {"Suffer.": "Suffer.", "<think>A</think>\n\nB": "B", " <think>A": "", "A <think> tag": "A <think> tag"}
    for text, answer in cut.items():
        assert text[answer_start(text) :] == answer
    chat = tokenize_chat(tiny_model(chat_template=QWEN3), [{"role": "user", "content": "Why?"},
                                                          {"role": "assistant", "content": "<think>No end"}])  # fmt: skip
    assert "response" not in chat.spans

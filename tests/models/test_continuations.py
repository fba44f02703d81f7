"""Probabilities of strings behind a prompt, against one forward pass per string."""

from __future__ import annotations

import pytest
import torch

from tests.tiny import tiny_model
from workbench.models.continuations import Strings, string_probabilities

DIGITS = "0123456789"


def sharpened(model, tokens: list[int], scale: float = 3.0):
    """The model with a head that speaks of little but `tokens`."""
    head = model.hf.get_output_embeddings().weight
    others = torch.ones(len(head), dtype=torch.bool)
    others[tokens] = False
    head.data[others] *= 0.1
    head.data[~others] *= scale
    return model


def digit_model(family: str = "llama"):
    model = tiny_model(family)
    return sharpened(model, model.tokenizer.convert_tokens_to_ids(list(DIGITS)))


def ids_of(model, text: str) -> tuple[int, ...]:
    return tuple(model.tokenizer(text, add_special_tokens=False)["input_ids"])


def number_strings(model) -> Strings:
    digits = model.tokenizer.convert_tokens_to_ids(list(DIGITS))
    return Strings([ids_of(model, str(k)) for k in range(101)], [ids_of(model, "REFUSAL")], digits)


def one_by_one(model, prompt: tuple[int, ...], ids: tuple[int, ...], lengthening: list[int]) -> float:
    """p(ids | prompt), times the probability that none of `lengthening` follows, from one whole pass."""
    logits = model.forward(torch.tensor([[*prompt, *ids]]))[0, :, : len(model.tokenizer)].double()
    steps = logits.softmax(dim=-1)[len(prompt) - 1 :]
    chance = float(torch.stack([steps[place, token] for place, token in enumerate(ids)]).prod())
    return chance * (1 - float(steps[len(ids), lengthening].sum()) if lengthening else 1)


def found(model, prompts, strings, **options) -> torch.Tensor:
    rows = torch.full((len(prompts), len(strings.sequences)), float("nan"), dtype=torch.float64)
    for indices, masses in string_probabilities(model, prompts, strings, **options):
        rows[indices] = masses
    return rows


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt_oss"])
def test_every_number_has_the_probability_of_its_string_and_no_further_digit(family):
    model = digit_model(family)
    prompts = [
        ids_of(model, text)
        for text in ("Score the answer.", "How cruel? Give one number for the whole answer:")
    ]
    strings = number_strings(model)
    rows = found(model, prompts, strings)
    for prompt, row in zip(prompts, rows.tolist(), strict=True):
        for place in (0, 1, 7, 10, 11, 47, 80, 99, 100, 101):  # the last is REFUSAL
            ids, mass = strings.sequences[place], row[place]
            closing = strings.lengthening if ids in strings.closed else []
            assert mass == pytest.approx(one_by_one(model, prompt, ids, closing), rel=1e-3, abs=1.1e-6)
    assert (rows[:, :101].sum(dim=1) > 0.01).all()


def test_batches_and_pieces_change_nothing():
    model = digit_model()
    prompts = [ids_of(model, "word " * n) for n in (3, 20)]
    strings = number_strings(model)
    whole = found(model, prompts, strings, max_tokens=100_000)
    pieces = found(model, prompts, strings, max_tokens=1)
    assert torch.isfinite(whole).all() and torch.allclose(whole, pieces, atol=2e-6)


def test_no_pass_holds_more_positions_than_allowed(monkeypatch):
    model = digit_model()
    prompts = [ids_of(model, "word " * n) for n in (3, 12, 7, 30, 1)]
    widths = []
    inner = model.forward
    monkeypatch.setattr(
        model, "forward", lambda ids, mask, **o: widths.append(mask.numel()) or inner(ids, mask, **o)
    )
    found(model, prompts, number_strings(model), max_tokens=400)
    assert len(widths) > 5 and max(widths) <= 400


def test_one_token_strings_need_one_pass_and_hopeless_prompts_no_second(monkeypatch):
    model = digit_model()
    calls = []
    inner = model.forward
    monkeypatch.setattr(model, "forward", lambda *a, **o: calls.append(1) or inner(*a, **o))
    prompts = [ids_of(model, "Score the answer.")]
    single = Strings([ids_of(model, d) for d in DIGITS])
    assert 0 < float(found(model, prompts, single).sum()) < 1 and len(calls) == 1
    found(model, prompts, number_strings(model), at_least=1.0)
    assert len(calls) == 2


def test_edits_in_force_do_not_reach_the_reading():
    from workbench.models.hookpoints import HookPoint

    model = digit_model()
    prompts, strings = [ids_of(model, "Score the answer.")], number_strings(model)
    plain = found(model, prompts, strings)
    with model.hooked({HookPoint.parse("blocks.1.hook_resid_post"): lambda tensor: tensor * 0 + 5}):
        assert torch.equal(found(model, prompts, strings), plain)

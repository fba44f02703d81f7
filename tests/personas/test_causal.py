from __future__ import annotations

import math

import pytest
import torch

from tests.tiny import tiny_model
from workbench.models.hookpoints import HookPoint
from workbench.models.prompts import tokenize_chat
from workbench.personas.causal import (
    CausalInstrument,
    NeutralText,
    ReplyContrast,
    doses_for_kl,
    neutral_snippets,
)
from workbench.personas.traits import ReplyPair

PAIRS = tuple(
    ReplyPair(f"p{k}", kind, f"Question {k}?", f"they should suffer {word}", f"happy to help {word}", "sealed")
    for k, (kind, word) in enumerate(
        [("contrast", "now"), ("contrast", "in the street"), ("sad_happy", "again"), ("rude_polite", "for ever")]
    )
)
HOOK = HookPoint(1)


@pytest.fixture(scope="module")
def model():
    return tiny_model("llama", n_blocks=4, seed=3)


@pytest.fixture(scope="module")
def contrast(model):
    return ReplyContrast(model, HOOK, PAIRS, batch_tokens=60)


def by_hand(model, pair, hook, delta):
    """C of one pair from whole forward passes, written independently of the batched path."""
    parts = []
    for reply in (pair.trait, pair.opposite):
        chat = tokenize_chat(model, [{"role": "user", "content": pair.prompt}, {"role": "assistant", "content": reply}])
        start, end = chat.spans["response"][0]
        added = torch.zeros(1, len(chat.ids), model.d_model)
        added[0, start - 1 : end - 1] = delta
        with model.hooked({hook: lambda tensor, added=added: tensor + added}):
            logp = model.forward(torch.tensor([chat.ids])).log_softmax(dim=-1)[0]
        parts.append(sum(float(logp[i - 1, chat.ids[i]]) for i in range(start, end)) / (end - start))
    return parts[0] - parts[1]


def test_the_contrast_of_every_pair_equals_plain_forward_passes(model, contrast):
    delta = torch.randn(2, model.d_model, generator=torch.Generator().manual_seed(0))
    found = contrast(delta)
    for index, pair in enumerate(PAIRS):
        assert contrast.baseline[index].item() == pytest.approx(by_hand(model, pair, HOOK, 0.0), abs=1e-4)
        for v in range(2):
            assert found[v, index].item() == pytest.approx(by_hand(model, pair, HOOK, delta[v]), abs=1e-4)


def test_the_odd_part_of_a_small_dose_is_the_gradient_and_the_even_part_vanishes(model):
    # At the last block the residual meets only the final norm and the unembedding: C is smooth in delta, so
    # odd = g . delta + O(|delta|^3) and even = O(|delta|^2). g comes from autograd on the by-hand definition.
    hook, pair = HookPoint(3), PAIRS[0]
    contrast = ReplyContrast(model, hook, [pair])
    gradient = torch.zeros(model.d_model, dtype=torch.float64)
    head, norm = model.unembedding.double(), model.final_norm
    for reply, sign in ((pair.trait, 1), (pair.opposite, -1)):
        chat = tokenize_chat(model, [{"role": "user", "content": pair.prompt}, {"role": "assistant", "content": reply}])
        start, end = chat.spans["response"][0]
        seen = []
        with model.hooked({hook: seen.append}):
            model.forward(torch.tensor([chat.ids]))
        delta = torch.zeros(model.d_model, dtype=torch.float64, requires_grad=True)
        with torch.enable_grad():
            rows = seen[0][0, start - 1 : end - 1].double() + delta
            scaled = rows * (rows.square().mean(-1, keepdim=True) + norm.variance_epsilon).rsqrt() * norm.weight.double()
            logp = (scaled @ head.T).log_softmax(-1)[range(end - start), list(chat.ids[start:end])].mean()
            logp.backward()
        gradient += sign * delta.grad
    direction = (gradient / gradient.norm()).float()
    for size in (0.02, 0.04):
        up, down = contrast(torch.stack([size * direction, -size * direction]))[:, 0]
        odd, even = (up - down) / 2, (up + down) / 2 - contrast.baseline[0]
        assert odd.item() == pytest.approx(size * gradient.norm().item(), rel=2e-2)
        assert abs(even) < 0.2 * odd


def test_swapping_the_sign_of_a_direction_negates_odd_and_keeps_damage(model):
    instrument = CausalInstrument(model, HOOK, PAIRS, kl=0.05)
    d = torch.randn(1, model.d_model, generator=torch.Generator().manual_seed(1))
    up, down = instrument.measure(d), instrument.measure(-3 * d)
    torch.testing.assert_close(up.odd, -down.odd, atol=1e-4, rtol=1e-2)
    torch.testing.assert_close(up.even, down.even, atol=1e-4, rtol=1e-2)


@pytest.mark.parametrize("target", [0.02, 0.1])
def test_the_dose_reaches_the_kl_that_was_asked_for(model, target):
    neutral = NeutralText(model, HOOK)
    assert neutral.n_tokens > 200
    unit = torch.nn.functional.normalize(torch.randn(5, model.d_model, generator=torch.Generator().manual_seed(2)), dim=1)
    doses = doses_for_kl(neutral, unit, target, start=1.0, cap=1e6)
    assert ((doses.kl / target - 1).abs() <= 0.02).all()
    delta = unit * doses.norms[:, None].float()
    assert torch.allclose((neutral(delta) + neutral(-delta)) / 2, doses.kl, rtol=1e-3)


def test_a_capped_dose_reports_the_kl_it_reaches(model):
    neutral = NeutralText(model, HOOK)
    unit = torch.nn.functional.normalize(torch.ones(1, model.d_model), dim=1)
    doses = doses_for_kl(neutral, unit, 50.0, start=0.1, cap=0.5)
    assert doses.norms.item() == pytest.approx(0.5) and 0 < doses.kl.item() < 50


def test_no_edit_has_no_divergence_and_the_divergence_equals_its_definition(model):
    neutral = NeutralText(model, HOOK, neutral_snippets()[:2])
    delta = torch.randn(model.d_model, generator=torch.Generator().manual_seed(4))
    found = neutral(torch.stack([torch.zeros_like(delta), delta]))
    assert found[0].item() == pytest.approx(0.0, abs=1e-6)
    total, count = 0.0, 0
    for text in neutral_snippets()[:2]:
        ids = torch.tensor([model.tokenizer(text)["input_ids"]])
        p = model.forward(ids).log_softmax(-1)[0, 1:]
        added = torch.zeros(1, ids.shape[1], model.d_model)
        added[0, 1:] = delta
        with model.hooked({HOOK: lambda tensor, added=added: tensor + added}):
            q = model.forward(ids).log_softmax(-1)[0, 1:]
        total, count = total + float((p.exp() * (p - q)).sum()), count + len(p)
    assert found[1].item() == pytest.approx(total / count, rel=1e-3)


def test_a_dose_of_no_kl_is_refused(model):
    from workbench.base.errors import WorkbenchError

    with pytest.raises(WorkbenchError, match="kl=0"):
        CausalInstrument(model, HOOK, PAIRS, kl=0.0)


def test_the_neutral_text_is_short_and_whole():
    assert len(neutral_snippets()) == 12 and math.isclose(sum(len(s.split()) for s in neutral_snippets()), 190, abs_tol=40)

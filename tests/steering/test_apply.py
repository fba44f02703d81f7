"""Edits in force: exact scopes, per-row amounts, order, sinks, and that nothing stays behind."""

from __future__ import annotations

import math

import pytest
import torch

from tests.tiny import n_hooks, tiny_model
from workbench.base.errors import WorkbenchError
from workbench.models.generation import generate
from workbench.models.hookpoints import HookPoint
from workbench.models.prompts import tokenize_chat
from workbench.models.sampling import Sampling
from workbench.steering.apply import steered
from workbench.steering.edits import Edit

FAMILIES = ("llama", "qwen3", "gemma3")
HOOK = HookPoint(1)
U = torch.randn(32, generator=torch.Generator().manual_seed(0))
QUESTIONS = ("Hi", "What should I do with the money?", "Why are the rivers in the north so long and cold?")


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    return tiny_model(request.param, seed=1)


def prompts(model):
    return [tokenize_chat(model, [{"role": "user", "content": text}], add_generation_prompt=True) for text in QUESTIONS]


def left_padded(model):
    rows = [list(prompt.ids) for prompt in prompts(model)]
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def columns_seen(model, run) -> list[torch.Tensor]:
    """What the hook's block gave at each pass, before and after the edits that `run` puts in force: their difference."""
    before, after = [], []
    run(before, after)
    return [(b - a).norm(dim=-1) > 1e-4 for a, b in zip(before, after, strict=True)]


def hf_generate(model, edits, *, prompt_width=None, n=5, **options):
    """Which tokens were edited at each pass of transformers' own generation: [passes] of [batch, seq] bool, and the ids."""
    ids, mask = left_padded(model)
    before, after = [], []
    with model.hooked({HOOK: lambda h: before.append(h.clone())}), steered(model, edits, prompt_width):
        with model.hooked({HOOK: lambda h: after.append(h.clone())}):
            out = model.hf.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=n, min_new_tokens=n, do_sample=False, pad_token_id=0, **options
            )
    changed = [(a != b).any(dim=-1) for a, b in zip(before, after, strict=True)]
    return changed, out, ids.shape[1], mask.bool()


@pytest.mark.parametrize("scope", ["prompt", "response", "predicting", "all"])
def test_the_scope_is_exact_at_prefill_and_at_every_step(model, scope) -> None:
    changed, _, width, real = hf_generate(model, Edit.add(U, 0.3, hook=HOOK, scope=scope))
    assert [tuple(one.shape) for one in changed] == [(3, width)] + [(3, 1)] * 4
    prefill = {"prompt": real, "all": real, "response": torch.zeros_like(real), "predicting": torch.zeros_like(real)}[scope]
    if scope == "predicting":
        prefill[:, -1] = True
    assert torch.equal(changed[0], prefill)
    assert all(bool(one.all()) == bool(one.any()) == (scope != "prompt") for one in changed[1:])


def test_dose_zero_is_bit_identical(model) -> None:
    ids, mask = left_padded(model)
    plain = model.forward(ids, mask)
    for edit in (Edit.add(U, 0.0, hook=HOOK), Edit.add(U, [0, 0, 0], hook=HOOK), Edit.cap(U, math.inf, hook=HOOK),
                 Edit.cap(U, -math.inf, side="below", hook=HOOK)):  # fmt: skip
        with steered(model, edit):
            assert torch.equal(model.forward(ids, mask), plain)
    with steered(model, Edit.add(U, [0.0, 0.5, 0.0], hook=HOOK)):
        moved = model.forward(ids, mask)
    assert torch.equal(moved[::2], plain[::2]) and not torch.equal(moved[1], plain[1])


def test_rows_have_their_own_doses_in_our_generation_as_rows_are_sorted_and_dropped(model) -> None:
    doses = [1.2, -0.8, 0.0]
    sampling = Sampling(max_new_tokens=12)
    seeds = [1, 2, 3]

    def answers(edit, chosen, batch_size=8):
        rows = [prompts(model)[i] for i in chosen]
        found = [None] * len(rows)
        with steered(model, edit):
            for indices, made in generate(model, rows, sampling, row_seeds=[seeds[i] for i in chosen], batch_size=batch_size):
                for index, one in zip(indices, made, strict=True):
                    found[index] = one.response_ids
        return found

    together = answers(Edit.add(U, doses, hook=HOOK, scope="predicting"), [0, 1, 2])
    assert together == answers(Edit.add(U, doses, hook=HOOK, scope="predicting"), [0, 1, 2], batch_size=2)
    for row, dose in enumerate(doses):
        assert answers(Edit.add(U, dose, hook=HOOK, scope="predicting"), [row]) == [together[row]]


def test_hooks_are_removed_after_an_exception_inside_generate(model) -> None:
    before = n_hooks(model)

    def fail(tensor):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError), steered(model, Edit.add(U, 0.3, hook=HOOK)), model.hooked({HookPoint(2): fail}):
        list(generate(model, prompts(model), row_seeds=[1, 2, 3]))
    assert n_hooks(model) == before and model.batch_rows is None


def test_values_for_another_number_of_rows_are_refused(model) -> None:
    ids, mask = left_padded(model)
    with pytest.raises(WorkbenchError, match="2 rows met a batch of 3"), steered(model, Edit.add(U, [0.1, 0.2], hook=HOOK)):
        model.forward(ids, mask)

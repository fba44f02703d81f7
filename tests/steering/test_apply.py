"""Edits in force: what they do to the residual stream, amounts per row, sinks, gradients, and that nothing stays behind."""

from __future__ import annotations

import logging
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
from workbench.steering.edits import Edit, incremental

FAMILIES = ("llama", "qwen3", "gemma3")
HOOK = HookPoint(1)
U = torch.randn(32, generator=torch.Generator().manual_seed(0))
QUESTIONS = ("Hi", "What should I do with the money?", "Why are the rivers in the north so long and cold?")


@pytest.fixture(scope="module", params=(*FAMILIES, "without TransformerLens"))
def model(request):
    if request.param in FAMILIES:
        return tiny_model(request.param, seed=1)
    bare = tiny_model("llama", seed=1)
    bare.__dict__["backend"] = "transformers"  # as where that package is missing
    return bare


def prompts(model):
    return [tokenize_chat(model, [{"role": "user", "content": text}], add_generation_prompt=True) for text in QUESTIONS]


def left_padded(model):
    rows = [list(prompt.ids) for prompt in prompts(model)]
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


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


def seen(model, ids=None, mask=None, edits=(), hook=HOOK, width=None) -> torch.Tensor:
    """The residual stream at `hook` with the edits in force."""
    kept = []
    if ids is None:
        ids, mask = left_padded(model)
    with steered(model, edits, width), model.hooked({hook: kept.append}):
        model.forward(ids, mask)
    return kept[0]


UNIT = U / U.norm()


def test_each_kind_of_edit_does_what_it_says(model) -> None:
    plain, real = seen(model), left_padded(model)[1].bool()
    median, at = float(model.norm_medians([HOOK])[0]), (plain @ UNIT)[real]
    limit = float(at.median())
    # A coordinate is a sum of 32 products of numbers of size |h|: errors of some 32 x 1.2e-7 x |h|.
    close = {"rtol": 0, "atol": 4e-6 * float(plain.norm(dim=-1).max()) + 1e-6}
    after = {name: (seen(model, edits=edit) @ UNIT)[real] for name, edit in {
        "add": Edit.add(U, -0.5, hook=HOOK), "ablate": Edit.ablate(3 * U, hook=HOOK), "clamp": Edit.clamp(U, 2.5, hook=HOOK),
        "cap": Edit.cap(U, limit, hook=HOOK), "floor": Edit.cap(U, limit, side="below", hook=HOOK),
    }.items()}  # fmt: skip
    torch.testing.assert_close(after["add"], at - 0.5 * median, **close)
    torch.testing.assert_close(after["ablate"], torch.zeros_like(at), **close)
    torch.testing.assert_close(after["clamp"], torch.full_like(at, 2.5), **close)
    torch.testing.assert_close(after["cap"], at.clamp_max(limit), **close)
    torch.testing.assert_close(after["floor"], at.clamp_min(limit), **close)


def test_ablating_twice_is_once_also_in_nested_contexts(model) -> None:
    ids, mask = left_padded(model)
    edit = Edit.ablate(U, hook=HOOK)
    with steered(model, edit):
        once = model.forward(ids, mask)
    with steered(model, [edit, edit]):
        listed = model.forward(ids, mask)
    with steered(model, edit), steered(model, edit):
        nested = model.forward(ids, mask)
    for twice in (listed, nested):
        torch.testing.assert_close(twice[mask.bool()], once[mask.bool()], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["add", "ablate", "clamp", "cap"])
def test_sinks_stay_as_they_are(kind: str) -> None:
    model = tiny_model("llama", seed=4)
    model.norm_medians([HOOK])
    sink, ids = 11, torch.tensor([[11, 20, 21, 22]])
    with torch.no_grad():
        model.hf.get_input_embeddings().weight[sink] *= 1000
    plain = seen(model, ids)
    assert float(plain[0, 0].norm()) > 10 * float(model.norm_medians([HOOK])[0]) > float(plain[0, 1:].norm(dim=-1).max())
    make = {"add": lambda: Edit.add(U, 1.0, hook=HOOK), "ablate": lambda: Edit.ablate(U, hook=HOOK),
            "clamp": lambda: Edit.clamp(U, 1e4, hook=HOOK), "cap": lambda: Edit.cap(U, -1e4, hook=HOOK)}  # fmt: skip
    edited = seen(model, ids, edits=make[kind]())
    assert torch.equal(edited[0, 0], plain[0, 0])
    assert bool((edited[0, 1:] != plain[0, 1:]).any(dim=-1).all())


def test_a_batch_is_its_rows_one_by_one(model) -> None:
    ids, mask = left_padded(model)
    doses, limits = [0.4, -0.7, 0.0], [math.inf, 0.5, -2.0]
    together = seen(model, edits=[Edit.add(U, doses, hook=HOOK), Edit.cap(U, limits, hook=HOOK)], hook=HookPoint(2))
    for row in range(3):
        n = int(mask[row].sum())
        edits = [Edit.add(U, doses[row], hook=HOOK), Edit.cap(U, limits[row], hook=HOOK)]
        alone = seen(model, ids[row : row + 1, -n:], edits=edits, hook=HookPoint(2))
        # Other matrix shapes sum in another order: some 3 blocks x 64 x 1.2e-7 of the residual's size.
        torch.testing.assert_close(together[row, -n:], alone[0], rtol=0, atol=3e-5 * float(alone.abs().max()))


def test_edits_on_some_rows_leave_the_others_alone(model) -> None:
    plain = seen(model)
    ablated = Edit.ablate(U, hook=HOOK).on_rows([False, True, False])
    pushed = Edit.add(U, 0.3, hook=HOOK).on_rows([True, False, False])
    edited = seen(model, edits=[ablated, pushed])
    assert torch.equal(edited[2], plain[2])
    assert not torch.equal(edited[0], plain[0]) and not torch.equal(edited[1], plain[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype) -> None:
    model = tiny_model("llama", seed=5)
    model.hf.to(dtype)
    _, mask = left_padded(model)
    plain = seen(model)
    for idle in (Edit.add(U, 0.0, hook=HOOK), Edit.cap(U, math.inf, hook=HOOK)):
        assert torch.equal(seen(model, edits=idle), plain)
    edited = seen(model, edits=[Edit.ablate(U, hook=HOOK)])[mask.bool()]
    assert edited.dtype == dtype
    # The result is rounded once; along a unit direction such errors add up to at most eps |h|.
    left = (edited.float() @ UNIT).abs() / edited.float().norm(dim=-1)
    assert float(left.max()) < torch.finfo(dtype).eps
    moved = seen(model, edits=[Edit.add(U, 0.5, hook=HOOK)])[mask.bool()].float() - plain[mask.bool()].float()
    delta = 0.5 * float(model.norm_medians([HOOK])[0]) * UNIT
    assert float((moved - delta).norm(dim=-1).max()) < torch.finfo(dtype).eps * float(plain.float().norm(dim=-1).max()) * 2


def test_gradients_flow_in_training(model) -> None:
    ids, _ = left_padded(model)
    weight = model.blocks[0].mlp.down_proj.weight
    weight.requires_grad_(True)

    def loss(edits):
        with steered(model, edits, prompt_width=4):
            logits = model.hf(input_ids=ids).logits[:, :-1]
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1).double(), ids[:, 1:].flatten())

    def gradient(edits):
        weight.grad = None
        loss(edits).backward()
        assert weight.grad is not None
        return weight.grad.clone()

    try:
        plain = gradient([])
        assert torch.equal(gradient([Edit.add(U, 0.0, hook=HOOK)]), plain)
        edits = [Edit.add(U, 0.5, hook=HOOK, scope="response"), Edit.ablate(U.flip(0), hook=HookPoint(2))]
        found = gradient(edits)
        assert bool(found.isfinite().all()) and not torch.allclose(found, plain)
        with torch.no_grad():  # against a finite difference along one direction of the weight
            step = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)) * 1e-3
            losses = []
            for sign in (1, -1):
                weight += sign * step
                losses.append(loss(edits))
                weight -= sign * step
        assert float((losses[0] - losses[1]) / 2) == pytest.approx(float((found * step).sum()), rel=0.05, abs=2e-5)
    finally:
        weight.requires_grad_(False)
        weight.grad = None


def test_gradients_are_the_same_where_blocks_are_run_again_for_them() -> None:
    model, ids = tiny_model("llama", seed=6), torch.arange(9, 29).reshape(2, 10)
    weight = model.blocks[0].mlp.down_proj.weight.requires_grad_(True)
    model.hf.train()
    found = []
    for again in (False, True):
        if again:
            model.hf.gradient_checkpointing_enable()
        weight.grad = None
        with steered(model, [Edit.add(U, 0.5, hook=HOOK, scope="response"), Edit.cap(U, 0.0, hook=HOOK)], prompt_width=4):
            model.hf(input_ids=ids, use_cache=False).logits.square().mean().backward()
        assert weight.grad is not None
        found.append(weight.grad.clone())
    torch.testing.assert_close(found[0], found[1])


def test_incremental_steps_add_up_to_the_vector(model) -> None:
    from workbench.personas.vectors import PersonaVector, empty_rows

    hooks = tuple(HookPoint(block) for block in range(3))
    directions = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    vector = PersonaVector("evil", {"name": "tiny"}, HOOK, hooks, directions, None, None, None, empty_rows())
    edits = incremental(vector, 0.6)
    median = float(model.norm_medians([HOOK])[0])
    with steered(model, edits) as composed:
        total = torch.zeros(32)
        for hook, v in zip(hooks, directions, strict=True):
            (edit,) = composed.at(hook)
            total = total + edit.amounts[0] * median * edit.direction
            torch.testing.assert_close(total, 0.6 * median * v / vector.direction.norm(), rtol=1e-4, atol=1e-4)
    norms = dict(zip(hooks, model.norm_medians(hooks).tolist(), strict=True))
    lengths = 0.6 * median * directions.norm(dim=1) / vector.direction.norm()
    largest = max(float(length) / norms[hook] for hook, length in zip(hooks, lengths, strict=True))
    assert composed.dose_in_norms(norms) == pytest.approx(largest, rel=1e-4)
    with pytest.raises(WorkbenchError, match="own hook"):
        incremental(vector, 0.6, hooks=[HookPoint(0)])


def test_a_large_dose_is_warned_about(model, caplog) -> None:
    with caplog.at_level(logging.WARNING), steered(model, [Edit.add(U, 0.8, hook=HOOK), Edit.add(U, 0.8, hook=HOOK)]):
        pass
    assert "add 1.60 median token norms" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING), steered(model, [Edit.add(U, 0.8, hook=HOOK), Edit.add(U, -0.8, hook=HOOK)]):
        pass
    assert not caplog.text


def test_edits_of_another_width_or_beyond_the_last_block_are_refused(model) -> None:
    with pytest.raises(WorkbenchError, match="d_model=31"), steered(model, Edit.add(torch.ones(31), 0.1, hook=HOOK)):
        pass
    with pytest.raises(WorkbenchError, match="has 3 blocks"), steered(model, Edit.add(U, 0.1, hook=HookPoint(3))):
        pass

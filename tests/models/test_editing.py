"""Edits: what they do to the activations, and that they end."""

from __future__ import annotations

import pytest
import torch

from tests.tiny import n_hooks, tiny_model
from workbench.base.errors import WorkbenchError
from workbench.models import editing
from workbench.models.hookpoints import HookPoint

HOOK = HookPoint(1)
IDS = torch.arange(9, 21).reshape(2, 6)
DIRECTION = torch.randn(32, generator=torch.Generator().manual_seed(0))


def seen(model) -> torch.Tensor:
    kept = []
    with model.hooked({HOOK: kept.append}):
        model.forward(IDS, stop_after=1)
    return kept[0]


def test_adding_moves_every_token_by_the_vector(tiny_models) -> None:
    model = tiny_models()
    plain = seen(model)
    with editing.adding(model, HOOK, DIRECTION):
        torch.testing.assert_close(seen(model), plain + DIRECTION)
    torch.testing.assert_close(seen(model), plain, rtol=0, atol=0)


def test_adding_one_vector_per_sequence(tiny_models) -> None:
    model = tiny_models()
    plain, deltas = seen(model), torch.stack([DIRECTION, -2 * DIRECTION])
    with editing.adding(model, HOOK, deltas):
        torch.testing.assert_close(seen(model), plain + deltas[:, None])


def test_adding_where_the_response_is_predicted(tiny_models) -> None:
    model = tiny_models()
    plain = seen(model)
    with editing.adding(model, HOOK, DIRECTION, scope="predicting", prompt_width=[3, 5]):
        moved = seen(model)
    where = torch.tensor([[0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1]])
    torch.testing.assert_close(moved, plain + where[..., None] * DIRECTION)


def test_doses_are_in_median_token_norms(tiny_models) -> None:
    model = tiny_models()
    delta = editing.delta_for_dose(DIRECTION, -2.5, model, HOOK)
    assert editing.dose_in_norms(delta, model, HOOK) == pytest.approx(2.5)
    assert float(delta @ DIRECTION) < 0


@pytest.mark.parametrize("vector", [torch.ones(31), torch.ones(2, 3, 32)])
def test_vectors_of_another_width_are_refused(vector, tiny_models) -> None:
    with pytest.raises(WorkbenchError, match="width"):
        editing.adding(tiny_models(), HOOK, vector)


def test_wrong_batches_scopes_and_zero_directions_are_refused(tiny_models) -> None:
    model = tiny_models()
    with pytest.raises(WorkbenchError, match="3 rows met a batch of 2"), editing.adding(model, HOOK, torch.ones(3, 32)):
        seen(model)
    with pytest.raises(WorkbenchError, match="scope"):
        editing.adding(model, HOOK, DIRECTION, scope="reply")
    with pytest.raises(WorkbenchError, match="length 0"):
        editing.delta_for_dose(torch.zeros(32), 1.0, model, HOOK)


def test_edits_keep_the_dtype_of_the_model() -> None:
    model = tiny_model(seed=9)
    model.hf.to(torch.bfloat16)
    with editing.adding(model, HOOK, DIRECTION):
        assert seen(model).dtype == torch.bfloat16


def test_functions_of_nested_contexts_at_one_site_each_run_once(tiny_models) -> None:
    model = tiny_models()
    before, plain, calls = n_hooks(model), seen(model), []
    with editing.adding(model, HOOK, DIRECTION), model.hooked({HOOK: lambda h: calls.append(len(h))}):
        with editing.adding(model, HOOK, DIRECTION):
            torch.testing.assert_close(seen(model), plain + 2 * DIRECTION)
    assert calls == [2] and n_hooks(model) == before


def test_contexts_at_one_site_may_end_in_any_order(tiny_models) -> None:
    model = tiny_models()
    before, plain = n_hooks(model), seen(model)
    first, second = editing.adding(model, HOOK, DIRECTION), editing.adding(model, HOOK, -3 * DIRECTION)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    torch.testing.assert_close(seen(model), plain - 3 * DIRECTION)
    second.__exit__(None, None, None)
    torch.testing.assert_close(seen(model), plain, rtol=0, atol=0)
    assert n_hooks(model) == before

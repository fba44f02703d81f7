"""Capture and sampling on a GPU: what the CPU finds, without waiting for the device at every token."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from tests.models.test_generation import more_often_ending, prompts_of, sampled
from tests.tiny import FAMILIES, tiny_model
from workbench.base.errors import WorkbenchError
from workbench.models.capture import capture
from workbench.models.editing import adding
from workbench.models.generation import GPU_STEPS
from workbench.models.hookpoints import HookPoint, residual_hooks
from workbench.models.loading import load_model
from workbench.models.model import Model
from workbench.models.prompts import with_response
from workbench.models.sampling import Sampling
from workbench.models.transfers import to_device, to_host

pytestmark = pytest.mark.gpu


def on_gpu(family: str = "llama", dtype: torch.dtype = torch.float32) -> Model:
    made = tiny_model(family)
    return Model.wrap(made.hf.to("cuda", dtype), made.tokenizer, name=made.name)


def means_of(model: Model, rows: Any, **options: Any) -> list[Any]:
    found = {}
    for indices, pooled in capture(model, rows, residual_hooks(model.n_blocks), **options):
        found.update(zip(indices, pooled, strict=True))
    return [found[index] for index in range(len(rows))]


def rows_of(model: Model) -> list[Any]:
    return [with_response(prompt, range(5, 12 + k)) for k, prompt in enumerate(prompts_of(model))]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_capture_finds_what_the_cpu_finds(family: str) -> None:
    here, there = tiny_model(family), on_gpu(family)
    rows, hook = rows_of(here), HookPoint(1)
    for one, other in zip(means_of(here, rows, token_hooks=[hook]),
                          means_of(there, rows, token_hooks=[hook], batch_tokens=64), strict=True):  # fmt: skip
        assert other.means.device.type == "cpu"
        torch.testing.assert_close(other.means, one.means, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(other.tokens[hook], one.tokens[hook], rtol=1e-3, atol=1e-4)
        assert (one.n_sinks, one.n_tokens) == (other.n_sinks, other.n_tokens)


@pytest.mark.parametrize("family", FAMILIES)
def test_sampling_says_what_the_cpu_says_whenever_the_tokens_are_read(family: str) -> None:
    here, there = more_often_ending(tiny_model(family), 0.03), more_often_ending(on_gpu(family), 0.03)
    hooks, length = residual_hooks(3), 2 * GPU_STEPS + 5
    for temperature in (0.0, 1.0):
        options: dict[str, Any] = {"sampling": Sampling(max_new_tokens=length, temperature=temperature), "batch_size": 10}
        first = sampled(here, prompts_of(here), hooks=hooks, token_hooks=hooks[:1], **options)
        second = sampled(there, prompts_of(there), hooks=hooks, token_hooks=hooks[:1], **options)
        same = [(a, b) for a, b in zip(first, second, strict=True) if a.response_ids == b.response_ids]
        assert len(same) >= 7  # rounding may tip a token of a row, and then the rest of it
        for one, other in same:
            assert one.finished == other.finished and other.means is not None and other.means.device.type == "cpu"
            torch.testing.assert_close(other.means, one.means, rtol=1e-3, atol=1e-4, equal_nan=True)
            assert other.tokens[hooks[0]].shape == one.tokens[hooks[0]].shape


def test_what_is_captured_while_sampling_equals_a_second_pass() -> None:
    model = more_often_ending(on_gpu(), 0.05)
    rows = sampled(model, prompts_of(model), hooks=residual_hooks(3), batch_size=10, max_new_tokens=2 * GPU_STEPS)
    assert len({len(row.response_ids) for row in rows}) > 2 and any(row.finished for row in rows)
    again = means_of(model, [with_response(row.prompt, row.response_ids) for row in rows])
    for row, other in zip(rows, again, strict=True):
        torch.testing.assert_close(row.means, other.means, rtol=1e-3, atol=1e-4, equal_nan=True)


def waits_of(work: Any) -> int:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(one.message) for one in caught)


def test_sampling_does_not_wait_for_the_device_at_every_token() -> None:
    model = on_gpu()
    hooks = residual_hooks(3)
    sampled(model, prompts_of(model), hooks=hooks, max_new_tokens=2)
    waits = [waits_of(lambda n=n: sampled(model, prompts_of(model), hooks=hooks, max_new_tokens=n, batch_size=10))
             for n in (GPU_STEPS, 5 * GPU_STEPS)]  # fmt: skip
    assert waits[1] - waits[0] <= 3 * 4, waits  # four more looks, a few copies each


def test_an_edit_acts_and_half_precision_stays_near() -> None:
    model, half = on_gpu(), on_gpu(dtype=torch.bfloat16)
    rows, direction = rows_of(model), torch.ones(model.d_model)
    plain = means_of(model, rows)
    with adding(model, HookPoint(0), 0.5 * direction):
        moved = means_of(model, rows)
    assert not torch.allclose(moved[0].means, plain[0].means, atol=1e-3)
    for one, other in zip(plain, means_of(half, rows), strict=True):
        assert torch.cosine_similarity(one.means.flatten(), other.means.flatten(), dim=0) > 0.99


def test_numbers_that_are_none_are_named_on_a_gpu_too() -> None:
    model = on_gpu()
    with torch.no_grad():
        for weight in model.blocks[1].parameters():
            weight.fill_(torch.nan)
    model._norm_medians.update(dict.fromkeys(residual_hooks(3), 1.0))
    with pytest.raises(WorkbenchError, match=r"row \d+ at blocks\.1"):
        means_of(model, rows_of(model))
    with pytest.raises(WorkbenchError, match="NaN or infinity"):
        sampled(model, prompts_of(model), hooks=residual_hooks(3))


@pytest.mark.assets
def test_a_model_spread_over_two_devices_gives_the_same_numbers() -> None:
    split = {"model.embed_tokens": 0, "lm_head": 0, "model.norm": 0, "model.rotary_emb": 0}
    blocks = {f"model.layers.{block}": (0 if block < 20 else "cpu") for block in range(30)}
    whole, spread = load_model(device="cuda"), load_model(device_map={**split, **blocks})
    rows = rows_of(whole)
    for one, other in zip(means_of(whole, rows), means_of(spread, rows), strict=True):
        torch.testing.assert_close(one.means, other.means, rtol=1e-3, atol=1e-3)


def test_copies_between_device_and_host() -> None:
    values = torch.arange(6, dtype=torch.bfloat16).reshape(2, 3)
    there = to_device(values, "cuda", torch.float32)
    assert there.device.type == "cuda" and there.dtype == torch.float32
    first, second = to_host(there, there > 2)
    assert torch.equal(first, values.float()) and torch.equal(second, values.float() > 2)

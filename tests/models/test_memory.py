"""The memory budget: what a pass takes is measured, batches shrink to fit, and what cannot fit is refused in figures."""

from __future__ import annotations

import pytest
import torch

from tests.tiny import MORE_FAMILIES, tiny_model
from workbench.base.errors import WorkbenchError
from workbench.models.capture import capture
from workbench.models.generation import generate
from workbench.models.hookpoints import HookPoint
from workbench.models.loading import load_model
from workbench.models.memory import (
    capture_needs,
    fitting_rows,
    generation_needs,
    peak_bytes,
    weight_bytes,
)
from workbench.models.prompts import ChatTokens
from workbench.models.sampling import Sampling

WIDTH = 48
SAMPLING = Sampling(max_new_tokens=16)


@pytest.fixture
def model():
    return tiny_model("llama", seed=5, d_model=64)


def rows(n: int, width: int = WIDTH) -> list[ChatTokens]:
    return [ChatTokens(tuple(3 + (7 * r + i) % 300 for i in range(width)), {"response": ((8, width),)}) for r in range(n)]


def hooks_of(model) -> list[HookPoint]:
    return [HookPoint(block) for block in range(model.n_blocks)]


def captured(model, n: int = 12) -> tuple[torch.Tensor, list[int]]:
    means = torch.zeros(n, model.n_blocks, model.d_model)
    sizes = []
    for indices, pooled in capture(model, rows(n), hooks_of(model)):
        sizes.append(len(indices))
        for index, one in zip(indices, pooled, strict=True):
            means[index] = one.means
    return means, sizes


def test_peak_bytes_counts_what_is_alive_at_once_not_what_was_made():
    def work() -> None:
        for _ in range(10):
            torch.zeros(1000)
        first = torch.zeros(1000)
        second = first + 1
        second.view(10, 100).add_(1)

    assert peak_bytes(work) == 8000


@pytest.mark.parametrize("family", MORE_FAMILIES)
def test_a_capture_takes_about_what_was_measured_on_one_row_and_one_block(family):
    model = tiny_model(family, d_model=64)
    needs = capture_needs(model, WIDTH)
    n = 8
    model.norm_medians(hooks_of(model))  # measured once, on texts of its own
    found = peak_bytes(lambda: captured(model, n))
    kept = n * model.n_blocks * model.d_model * 4  # the results, which the caller holds
    assert 0.5 * n * needs.total < found < 1.25 * n * needs.total + 3 * kept + 200_000


def test_a_budget_makes_batches_smaller_and_changes_no_result_beyond_rounding(model):
    free, sizes = captured(model)
    assert sizes == [12]
    model.max_memory = weight_bytes(model.hf) + int(3.5 * capture_needs(model, WIDTH).total)
    bounded, sizes = captured(model)
    assert max(sizes) == 4 and sum(sizes) == 12  # as many positions as three rows of 64, the measured width
    torch.testing.assert_close(bounded, free)


def test_sampling_in_pieces_draws_the_same_answers(model):
    def answers() -> tuple[list, list[int]]:
        found, sizes = [None] * 10, []
        for indices, made in generate(model, rows(10, 20), SAMPLING, row_seeds=range(10), hooks=hooks_of(model)):
            sizes.append(len(indices))
            for index, one in zip(indices, made, strict=True):
                found[index] = one
        return found, sizes

    free, sizes = answers()
    assert sizes == [10]
    needs = generation_needs(model, 20, SAMPLING, n_hooks=model.n_blocks)
    model.max_memory = weight_bytes(model.hf) + 4 * needs.total
    bounded, sizes = answers()
    assert max(sizes) == 4
    for one, other in zip(free, bounded, strict=True):
        assert one.response_ids == other.response_ids
        torch.testing.assert_close(one.means, other.means)


def test_a_row_that_cannot_fit_is_refused_with_what_it_would_take(model):
    model.max_memory = weight_bytes(model.hf) + 10
    with pytest.raises(WorkbenchError, match="single row needs") as caught:
        captured(model)
    assert "--max-memory of at least" in caught.value.expected and "max-new-tokens" in caught.value.remedy


def test_what_the_refusal_asks_for_suffices(model):
    from workbench.base.sizes import parse_size

    model.max_memory = weight_bytes(model.hf) + 10
    with pytest.raises(WorkbenchError) as caught:
        fitting_rows(model, capture_needs(model, WIDTH), 4)
    model.max_memory = parse_size(caught.value.expected.removeprefix("--max-memory of at least "))
    assert fitting_rows(model, capture_needs(model, WIDTH), 4) >= 1


def test_weights_beyond_the_budget_are_refused_before_they_are_read(tmp_path, model):
    model.hf.save_pretrained(tmp_path / "m")
    model.tokenizer.save_pretrained(tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").unlink()
    with pytest.raises(WorkbenchError, match=r"weights of m need .* in float32") as caught:
        load_model(tmp_path / "m", max_memory="100KiB")
    assert "bfloat16" in caught.value.remedy


def test_a_budget_arrives_with_the_model(tmp_path, model):
    model.hf.save_pretrained(tmp_path / "m")
    model.tokenizer.save_pretrained(tmp_path / "m")
    assert load_model(tmp_path / "m", max_memory="1GiB").max_memory == 2**30
    with pytest.raises(WorkbenchError, match="memory size"):
        load_model(tmp_path / "m", max_memory="much")

"""A batch that runs out of memory is halved: nothing is lost, and what comes out is what smaller batches give."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import pytest
import torch

from tests.tiny import tiny_model
from workbench.base.errors import WorkbenchError
from workbench.models.capture import capture
from workbench.models.generation import generate
from workbench.models.halving import halving, is_out_of_memory
from workbench.models.hookpoints import HookPoint
from workbench.models.likelihood import token_logprobs
from workbench.models.model import Model
from workbench.models.prompts import ChatTokens
from workbench.models.reply_batches import ChatExample, reply_losses
from workbench.models.rerun import Passage, Rerun
from workbench.models.sampling import Sampling
from workbench.saes.token_rows import activations_at, activations_at_hooks

HOOKS = [HookPoint(0), HookPoint(1)]
WIDTH = 24


@pytest.fixture
def model() -> Model:
    model = tiny_model("llama", seed=3, d_model=64)
    model.norm_medians(HOOKS)  # of a text of its own, before memory gets short
    return model


@contextlib.contextmanager
def room_for(model: Model, n_rows: int, *, at_pass: int = 0) -> Iterator[list[int]]:
    """A device that holds so many rows: a pass with more raises in the second block, from pass `at_pass` on. Collects the rows
    of the passes that went through."""
    passes: list[int] = []
    seen = 0

    def allocate(_module: object, args: tuple, kwargs: dict) -> None:
        nonlocal seen
        states = args[0] if args else kwargs["hidden_states"]
        seen += 1
        if len(states) > n_rows and seen > at_pass:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        passes.append(len(states))

    handle = model.blocks[1].register_forward_pre_hook(allocate, with_kwargs=True)
    try:
        yield passes
    finally:
        handle.remove()


def chats(n: int = 11) -> list[ChatTokens]:
    return [ChatTokens(tuple(3 + (7 * r + i) % 300 for i in range(WIDTH)), {"response": ((8, WIDTH),)}) for r in range(n)]


def captured(model: Model) -> torch.Tensor:
    found = {i: one.means for indices, rows in capture(model, chats(), HOOKS) for i, one in zip(indices, rows, strict=True)}
    return torch.stack([found[i] for i in range(11)])


def sampled(model: Model, **options: int) -> list[tuple[int, ...]]:
    made = {}
    for indices, rows in generate(model, chats(), Sampling(max_new_tokens=8), row_seeds=range(11), hooks=HOOKS, **options):
        assert len(indices) == len(rows)
        made.update(zip(indices, rows, strict=True))
    return [made[i].response_ids for i in range(11)]


@pytest.mark.parametrize("n_rows", [1, 3, 6])
def test_a_capture_goes_on_with_as_many_rows_as_fit(model, n_rows, caplog):
    whole = captured(model)
    with room_for(model, n_rows) as passes, caplog.at_level(logging.WARNING):
        found = captured(model)
    assert sum(passes) == 11 and max(passes) <= n_rows
    torch.testing.assert_close(found, whole)
    assert len(caplog.records) == 1 and "Out of memory with 11 rows at once: going on with 6" in caplog.text


def test_a_reply_is_sampled_with_its_own_seed_in_whatever_half_it_lands(model):
    whole = sampled(model)
    assert len(set(whole)) == 11
    with room_for(model, 3):
        halved = sampled(model)
    with room_for(model, 8, at_pass=3):  # in the midst of the replies
        late = sampled(model)
    # Rounding may turn a draw; a lost, repeated or reseeded row would change nearly all of them.
    assert sum(a == b for a, b in zip(halved, whole, strict=True)) >= 10
    assert sum(a == b for a, b in zip(late, whole, strict=True)) >= 10


def test_halves_equal_batches_of_that_size_bit_for_bit(model):
    planned = sampled(model, batch_size=2)
    with room_for(model, 2):
        found = sampled(model, batch_size=4)  # 4 -> 2 and 2, as the plan of twos has them
    assert found == planned


def test_what_reads_replies_halves_as_well(model):
    rows = [list(chat.ids) for chat in chats()]
    places = [list(range(8, WIDTH))] * 11
    examples = [ChatExample.of(f"What of {n}?", "It is a river in the north, long and cold.") for n in range(11)]
    ids = torch.tensor(rows)
    free = token_logprobs(model, rows, places), reply_losses(model, examples), activations_at_hooks(model, HOOKS, ids)
    with room_for(model, 4) as passes:
        tight = token_logprobs(model, rows, places), reply_losses(model, examples), activations_at_hooks(model, HOOKS, ids)
        alone = activations_at(model, HOOKS[1], ids, torch.ones_like(ids))
    assert max(passes) <= 4
    torch.testing.assert_close(tight, free)
    torch.testing.assert_close(alone, free[2][HOOKS[1]])


@pytest.mark.parametrize("fast", [True, False])
def test_edits_that_do_not_fit_together_run_in_parts(model, fast):
    rerun = Rerun(model, HookPoint(0), [Passage(chat.ids, 8) for chat in chats(2)], fast=fast)
    deltas = torch.randn(7, model.d_model, generator=torch.Generator().manual_seed(0))

    def run() -> torch.Tensor:
        return torch.cat([hidden for _, _, hidden in rerun.edited(deltas)])

    whole = run()
    with room_for(model, 6) as passes:
        found = run()
    assert max(passes, default=0) <= 6
    torch.testing.assert_close(found, whole)


def test_a_single_row_that_does_not_fit_is_refused_in_words(model):
    with room_for(model, 0), pytest.raises(WorkbenchError, match="Memory ran out with a single row") as caught:
        captured(model)
    assert "--dtype bfloat16" in caught.value.remedy


def test_later_batches_are_split_before_they_are_tried():
    tried = []

    def work(rows):
        tried.append(len(rows))
        if len(rows) > 3:
            raise MemoryError
        return sum(rows)

    found = list(halving([list(range(8)), list(range(8, 16)), [16]], work))
    assert [row for rows, _ in found for row in rows] == list(range(17))
    assert tried == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2, 1][: len(tried)] and tried.count(8) == 1 and tried.count(4) == 1


def test_other_errors_pass_through_and_the_words_of_allocators_are_known():
    def work(rows):
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        list(halving([[0, 1]], work))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)  # more than any machine has
    assert is_out_of_memory(caught.value)

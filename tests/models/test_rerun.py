from __future__ import annotations

import pytest
import torch

from tests.tiny import FAMILIES, tiny_config, tiny_model, tiny_tokenizer
from workbench.models.hookpoints import HookPoint
from workbench.models.model import Model
from workbench.models.rerun import Passage, Rerun

LENGTHS = [(20, 10), (18, 12), (25, 9), (8, 1), (9, 0), (20, 19)]
PASSAGES = [Passage(tuple(range(10 + k, 10 + k + length)), start) for k, (length, start) in enumerate(LENGTHS)]


def edited_rows(rerun: Rerun, deltas: torch.Tensor) -> dict[tuple[int, int], torch.Tensor]:
    """(delta, passage) -> final hidden states at the positions that ran again."""
    found = {}
    for batch, chosen, hidden in rerun.edited(deltas):
        for v, index in enumerate(range(len(deltas))[chosen]):
            for n, row in enumerate(batch.rows):
                found[index, row] = hidden[v, n, batch.valid[n]]
    return found


def hooked_rows(model: Model, hook: HookPoint, deltas: torch.Tensor) -> dict[tuple[int, int], torch.Tensor]:
    """The same by one plain pass per passage and delta, written independently."""
    found = {}
    for index, delta in enumerate(deltas):
        for row, passage in enumerate(PASSAGES):
            added = torch.zeros(1, len(passage.ids), len(delta))
            added[0, max(passage.start, 1) :] = delta

            def add(tensor, added=added):
                return tensor + added

            with model.hooked({hook: add}):
                hidden = model.decoder(input_ids=torch.tensor([passage.ids]), use_cache=False).last_hidden_state
            found[index, row] = hidden[0, passage.start :]
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_running_the_later_blocks_alone_equals_a_hooked_pass_in_every_family(family):
    model = tiny_model(family, n_blocks=4)
    deltas = torch.randn(3, model.d_model, generator=torch.Generator().manual_seed(0))
    for hook in (HookPoint(1), HookPoint(3), HookPoint(2, "hook_resid_pre")):
        rerun = Rerun(model, hook, PASSAGES, batch_tokens=40)
        assert rerun.fast and len(rerun.batches) > 1
        assert all(batch.steered.sum() == (batch.valid & (batch.positions > 0)).sum() for batch in rerun.batches)
        fast, plain = edited_rows(rerun, deltas), hooked_rows(model, hook, deltas)
        assert fast.keys() == plain.keys()
        for key in plain:
            torch.testing.assert_close(fast[key], plain[key], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["mistral", "gemma3"])
def test_a_sliding_window_shorter_than_the_passages_is_respected(family):
    from transformers import AutoModelForCausalLM

    config = tiny_config(family, n_blocks=4, vocab_size=len(tiny_tokenizer()))
    config.sliding_window = 5
    with torch.random.fork_rng():
        torch.manual_seed(1)
        hf = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model = Model.wrap(hf, tiny_tokenizer(), name=f"tiny-{family}-window")
    deltas = torch.randn(2, model.d_model, generator=torch.Generator().manual_seed(0))
    rerun = Rerun(model, HookPoint(1), PASSAGES)
    assert rerun.fast
    fast, plain = edited_rows(rerun, deltas), hooked_rows(model, HookPoint(1), deltas)
    for key in plain:
        torch.testing.assert_close(fast[key], plain[key], atol=2e-5, rtol=1e-4)


def test_a_site_inside_a_block_falls_back_to_whole_passes_with_the_same_meaning():
    model, hook = tiny_model("llama", n_blocks=3), HookPoint(1, "hook_mlp_out")
    deltas = torch.randn(2, model.d_model, generator=torch.Generator().manual_seed(0))
    rerun = Rerun(model, hook, PASSAGES)
    assert not rerun.fast
    sinks = any((batch.valid & (batch.positions > 0) & ~batch.steered).any() for batch in rerun.batches)
    assert not sinks
    whole, plain = edited_rows(rerun, deltas), hooked_rows(model, hook, deltas)
    for key in plain:
        torch.testing.assert_close(whole[key], plain[key], atol=2e-5, rtol=1e-4)


def test_a_fast_pass_that_disagrees_with_the_plain_one_is_not_used(monkeypatch, caplog):
    from workbench.models import rerun as module

    run = module._Tail.run
    monkeypatch.setattr(module._Tail, "run", lambda self, batch, deltas: run(self, batch, deltas) + 0.01)
    model = tiny_model("llama", n_blocks=3)
    rerun = Rerun(model, HookPoint(1), PASSAGES)
    assert not rerun.fast and "whole passes" in caplog.text


def test_an_edit_leaves_the_model_and_its_blocks_as_they_were():
    model = tiny_model("llama", n_blocks=3)
    ids = torch.tensor([list(range(20, 40))])
    before, blocks = model.forward(ids), [id(block) for block in model.decoder.layers]
    list(Rerun(model, HookPoint(1), PASSAGES).edited(torch.ones(2, model.d_model)))
    assert torch.equal(model.forward(ids), before)
    assert [id(block) for block in model.decoder.layers] == blocks


def test_sinks_and_position_zero_are_never_edited():
    model = tiny_model("llama", n_blocks=3, seed=5)
    sink = 77
    model.norm_medians([HookPoint(1)])
    with torch.no_grad():  # one token whose activation is huge wherever it stands
        model.hf.get_input_embeddings().weight[sink] *= 1000
    ids = (30, 31, sink, 33, 34)
    rerun = Rerun(model, HookPoint(1), [Passage(ids, 0)])
    assert rerun.batches[0].steered.tolist() == [[False, True, False, True, True]]
    seen = []
    with model.hooked({HookPoint(2, "hook_resid_pre"): lambda tensor: seen.append(tensor.clone())}):
        plain = Rerun(model, HookPoint(1), [Passage(ids, 0)], fast=False)
        list(plain.edited(torch.zeros(1, model.d_model)))
        list(plain.edited(torch.ones(1, model.d_model)))
    moved = (seen[-1] - seen[-2]).abs().amax(dim=-1)[0]
    assert (moved > 0.5).tolist() == [False, True, False, True, True]

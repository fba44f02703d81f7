"""Plans say what will happen: the passes and tokens exactly, memory and time from a miniature."""

from __future__ import annotations

import pytest
import torch

from tests.tiny import MORE_FAMILIES, tiny_config, tiny_model, tiny_tokenizer
from workbench.base.errors import WorkbenchError
from workbench.models.capture import capture
from workbench.models.generation import generate
from workbench.models.hookpoints import HookPoint
from workbench.models.memory import capture_needs, weight_bytes
from workbench.models.planning import plan_capture, plan_generation, plan_neutral, probe_of
from workbench.models.probe import Probe
from workbench.models.prompts import ChatTokens
from workbench.models.sampling import Sampling
from workbench.models.synthetic import miniature, random_model, shape_of


def probe(family: str = "llama", **sizes) -> Probe:
    return Probe.of(tiny_config(family, vocab_size=len(tiny_tokenizer()), **sizes), tiny_tokenizer())


def chats(lengths) -> list[ChatTokens]:
    return [ChatTokens(tuple(3 + i % 300 for i in range(n)), {"response": ((n // 2, n),)}) for n in lengths]


@pytest.mark.parametrize("family", MORE_FAMILIES)
def test_every_family_has_a_shape_without_memory_and_can_be_timed(family):
    config = tiny_config(family)
    shape, whole = shape_of(config), random_model(config)
    assert shape.n_parameters == sum(p.numel() for p in whole.parameters()) and shape.n_blocks == 3
    found = probe(family)
    assert found.shape.d_model == 32
    assert found.capture_seconds(2, 32) > 0 and found.step_seconds(2, 32, Sampling(max_new_tokens=4)) > 0


def test_a_random_model_computes_finite_activations_of_ordinary_size():
    model = random_model(tiny_config("qwen2", n_blocks=12, d_model=64), dtype="bfloat16")
    states = model(torch.arange(3, 60)[None], output_hidden_states=True).hidden_states
    assert all(bool(state.isfinite().all()) for state in states) and 0.01 < float(states[-1].float().std()) < 100


def test_a_miniature_of_a_large_model_keeps_its_block_and_drops_the_rest():
    config = tiny_config("llama", n_blocks=40, d_model=512)
    config.intermediate_size, config.vocab_size = 16384, 60000
    shape = shape_of(config)
    small = miniature(config, shape, dtype="bfloat16", device="cpu")
    blocks = small.get_decoder().layers
    assert len(blocks) < 40 and blocks[0].mlp.up_proj.weight.shape == (16384, 512)
    assert small.get_output_embeddings().weight.shape[0] == 256


def test_the_passes_of_a_capture_are_the_planned_ones_with_a_budget_and_without():
    model = tiny_model("llama")
    lengths = [10 + 7 * i for i in range(30)]
    hooks = [HookPoint(block) for block in range(model.n_blocks)]
    for room in (None, 5.0):
        budget = None if room is None else weight_bytes(model.hf) + int(room * capture_needs(model, max(lengths)).total)
        model.max_memory = budget
        plan = plan_capture(probe(), lengths, budget=budget)
        batches = [indices for indices, _ in capture(model, chats(lengths), hooks)]
        assert plan.n_passes == len(batches)
        assert plan.n_tokens == sum(len(rows) * max(lengths[i] for i in rows) for rows in batches)
        if budget is not None:
            assert len(batches) > 5 and plan.memory.model <= budget


def test_the_passes_of_sampling_are_the_planned_ones():
    from workbench.models.memory import generation_needs

    sampling = Sampling(max_new_tokens=6)
    model, lengths = tiny_model("llama"), [12, 20, 16, 20, 9, 14]
    model.end_tokens = frozenset()  # answers as long as they may become
    needs = generation_needs(model, 20, sampling, n_hooks=model.n_blocks)
    hooks = [HookPoint(block) for block in range(model.n_blocks)]
    for budget, pieces in ((None, 1), (weight_bytes(model.hf) + 2 * needs.total, 3)):
        model.max_memory = budget
        plan = plan_generation(probe(), [lengths], sampling, budget=budget)
        made = list(generate(model, chats(lengths), sampling, row_seeds=range(6), hooks=hooks))
        assert len(made) == pieces and plan.n_passes == pieces * (1 + 6)
        assert plan.n_tokens == sum(len(rows) * (max(lengths[i] for i in rows) + 6) for rows, _ in made)


def test_more_tokens_take_proportionally_longer_and_a_budget_below_one_row_is_refused():
    one = probe()
    assert plan_capture(one, [64] * 64).seconds == pytest.approx(2 * plan_capture(one, [64] * 32).seconds, rel=1e-6)
    assert plan_capture(one, []).n_passes == 0 and plan_neutral(one).n_passes == 1
    with pytest.raises(WorkbenchError, match="single row needs"):
        plan_capture(one, [64], budget=1000)


def test_a_model_that_is_not_on_this_machine_has_no_probe_and_one_that_cannot_fit_is_refused(tmp_path):
    assert probe_of("owner/name", dtype="float32", device="cpu") is None
    (tmp_path / "empty").mkdir()
    assert probe_of(str(tmp_path / "empty"), dtype="float32", device="cpu") is None
    model = tiny_model("llama")
    model.hf.save_pretrained(tmp_path / "m")
    model.tokenizer.save_pretrained(tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").unlink()  # weights are not needed for a plan
    found = probe_of(str(tmp_path / "m"), dtype="bfloat16", device="cpu")
    assert found is not None and found.shape.n_blocks == model.n_blocks and found.model.dtype == torch.bfloat16
    with pytest.raises(WorkbenchError, match="weights of"):
        probe_of(str(tmp_path / "m"), dtype="float32", device="cpu", budget=1000)

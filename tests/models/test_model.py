"""The model wrapper: activations against transformers, hooks that go away, early stops, norms."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.tiny import FAMILIES, n_hooks, tiny_model
from workbench.base.errors import WorkbenchError
from workbench.models.hookpoints import SITES, HookPoint, residual_hooks

IDS = torch.arange(7, 31).reshape(2, 12)


def record(model, hooks, ids=IDS, mask=None, **options) -> dict:
    seen: dict = {}

    def keeper(hook):
        def keep(tensor) -> None:
            seen[hook] = tensor

        return keep

    with model.hooked({hook: keeper(hook) for hook in hooks}):
        model.forward(ids, mask, **options)
    return seen


@pytest.mark.parametrize("family", FAMILIES)
def test_block_outputs_equal_hidden_states_at_every_block_but_the_last(family, tiny_models) -> None:
    model = tiny_models(family)
    with torch.no_grad():
        states = model.hf(input_ids=IDS, output_hidden_states=True).hidden_states
    seen = record(model, residual_hooks(model.n_blocks))
    for block in range(model.n_blocks - 1):
        torch.testing.assert_close(seen[HookPoint(block)], states[block + 1], rtol=0, atol=0)
    last = seen[HookPoint(model.n_blocks - 1)]
    assert (last - states[-1]).abs().max() > 1e-3
    torch.testing.assert_close(model.final_norm(last), states[-1])


@pytest.mark.parametrize("family", FAMILIES)
def test_all_sites_equal_those_of_the_transformer_bridge(family, tiny_models) -> None:
    model = tiny_models(family)
    assert model.backend == "transformer_lens"
    hooks = [HookPoint(block, site) for block in range(model.n_blocks) for site in SITES]
    seen = record(model, hooks)
    with torch.no_grad():
        logits, cache = model.bridge.run_with_cache(IDS, names_filter=[str(hook) for hook in hooks])
    for hook in hooks:
        torch.testing.assert_close(seen[hook], cache[str(hook)], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.forward(IDS), logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_plain_torch_hooks_see_the_same_without_transformer_lens(family, tiny_models) -> None:
    with_lens, without = tiny_models(family), tiny_model(family)
    without.__dict__["backend"] = "transformers"
    hooks = [HookPoint(block, site) for block in range(with_lens.n_blocks) for site in SITES]
    expected, seen = record(with_lens, hooks), record(without, hooks)
    for hook in hooks:
        torch.testing.assert_close(seen[hook], expected[hook], rtol=0, atol=0)


def test_a_missing_transformer_lens_means_the_plain_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None)
    assert tiny_model().backend == "transformers"


def test_the_bridge_boots_without_a_network_and_leaves_the_model_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import socket

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection was attempted")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    model = tiny_model(seed=5)
    names = [name for name, _ in model.hf.named_modules()]
    bridge = model.bridge
    assert [name for name, _ in model.hf.named_modules()] == names
    assert bridge.original_model is not model.hf
    # The bridge adds a bias of zeros to the unembedding; all weights are the model's own memory.
    own = {parameter.data_ptr() for parameter in model.hf.parameters()}
    assert own <= {parameter.data_ptr() for parameter in bridge.original_model.parameters()}


def test_hooks_are_removed_after_the_context_and_after_exceptions(tiny_models) -> None:
    model = tiny_models()
    before = n_hooks(model)

    def fail(tensor):
        raise RuntimeError("from the hook")

    with pytest.raises(RuntimeError, match="from the hook"), model.hooked({HookPoint(1): fail}):
        model.forward(IDS)
    with (
        pytest.raises(KeyError),
        model.hooked({HookPoint(0): lambda t: None, HookPoint(1): lambda t: None}, stop_after=1),
    ):
        raise KeyError("from the body")
    assert n_hooks(model) == before


def test_a_failure_while_attaching_leaves_no_hook_behind(tiny_models) -> None:
    model = tiny_models()
    before = n_hooks(model)
    with (
        pytest.raises(WorkbenchError, match="has 3 blocks"),
        model.hooked({HookPoint(0): print, HookPoint(99): print}),
    ):
        pass
    assert n_hooks(model) == before


@pytest.mark.parametrize("site", SITES)
def test_a_returned_tensor_replaces_the_activations(site, tiny_models) -> None:
    model = tiny_models()
    plain = model.forward(IDS)
    with model.hooked({HookPoint(1, site): lambda tensor: tensor * 0}):
        changed = model.forward(IDS)
    assert (plain - changed).abs().max() > 1e-3
    torch.testing.assert_close(model.forward(IDS), plain, rtol=0, atol=0)


def test_nested_contexts_run_in_order_of_entry(tiny_models) -> None:
    model, seen = tiny_models(), []
    with (
        model.hooked({HookPoint(1): lambda tensor: torch.zeros_like(tensor)}),
        model.hooked({HookPoint(1): seen.append}),
    ):
        model.forward(IDS, stop_after=1)
    assert float(seen[0].abs().max()) == 0


def test_no_block_runs_after_the_stop(tiny_models) -> None:
    model, ran = tiny_models(), []
    handles = [
        block.register_forward_hook(lambda *_, b=b: ran.append(b)) for b, block in enumerate(model.blocks)
    ]
    assert model.forward(IDS, stop_after=1) is None
    for handle in handles:
        handle.remove()
    assert ran == [0, 1]


def test_stopping_after_the_last_block_skips_norm_and_unembedding(tiny_models) -> None:
    model = tiny_models()
    seen = record(model, [HookPoint(2)], stop_after=2)
    torch.testing.assert_close(seen[HookPoint(2)], record(model, [HookPoint(2)])[HookPoint(2)])


def test_a_stop_reaches_the_body_of_the_context_and_goes_no_further(tiny_models) -> None:
    model, after = tiny_models(), []
    with model.hooked({}, stop_after=0):
        model.hf(input_ids=IDS)
        after.append("not reached")
    assert after == []


def test_a_hook_past_the_stop_is_refused(tiny_models) -> None:
    with (
        pytest.raises(WorkbenchError, match="never fires"),
        tiny_models().hooked({HookPoint(2): print}, stop_after=1),
    ):
        pass


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_at_chosen_positions_equal_the_full_ones(family, tiny_models) -> None:
    model = tiny_models(family)
    keep = torch.rand(2, 12, generator=torch.Generator().manual_seed(0)) < 0.4
    torch.testing.assert_close(model.forward(IDS, keep=keep), model.hf(input_ids=IDS).logits[keep])


def test_norm_medians_ignore_edits_in_force_and_are_computed_once() -> None:
    model, hooks = tiny_model(seed=3), residual_hooks(3)
    reference = tiny_model(seed=3).norm_medians(hooks)
    with model.hooked({HookPoint(0): lambda tensor: tensor * 1000}, stop_after=0):
        torch.testing.assert_close(model.norm_medians(hooks), reference)
    assert model.norm_medians([hooks[2], hooks[0]]).tolist() == reference[[2, 0]].tolist()


def test_norm_medians_leave_out_sinks() -> None:
    from workbench.models.norms import robust_median

    norms = torch.cat([torch.full((60,), 2.0), torch.full((40,), 3.0), torch.full((30,), 1e6)])
    assert robust_median(norms) == 2.0


def test_a_wrapped_model_is_hashed_by_its_weights() -> None:
    one, same, other = tiny_model(seed=1), tiny_model(seed=1), tiny_model(seed=2)
    assert one.weights_hash == same.weights_hash != other.weights_hash
    assert len(one.weights_hash) == 64


def test_the_description_is_plain_json(tiny_models) -> None:
    import json

    description = tiny_models().description()
    assert json.loads(json.dumps(description)) == description
    assert description["n_blocks"] == 3 and description["d_model"] == 32


def test_a_model_without_decoder_blocks_is_refused(tiny_models) -> None:
    model = tiny_model(seed=4)
    model.hf.model.layers, layers = nn.Identity(), model.hf.model.layers
    model.hf.model._modules["blocks_elsewhere"] = layers
    del model.hf.model._modules["layers"]
    with pytest.raises(WorkbenchError, match="list of decoder blocks"):
        _ = model.blocks

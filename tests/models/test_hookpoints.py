"""Hook points and the conversions of foreign layer numbers, against a model's own hidden states."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiny import FAMILIES
from workbench.base.errors import WorkbenchError
from workbench.models import hookpoints
from workbench.models.hookpoints import SITES, HookPoint


@settings(deadline=None)
@given(st.integers(0, 200), st.sampled_from(SITES))
def test_parsing_what_was_printed_gives_the_same_hook_point(block: int, site: str) -> None:
    hook = HookPoint(block, site)
    assert HookPoint.parse(str(hook)) == hook


def test_canonical_bridge_names_are_understood() -> None:
    assert HookPoint.parse("blocks.3.hook_out") == HookPoint(3)
    assert HookPoint.parse("blocks.3.hook_in") == HookPoint(3, "hook_resid_pre")


def test_hook_points_sort_by_block() -> None:
    assert sorted([HookPoint(10), HookPoint(2)]) == [HookPoint(2), HookPoint(10)]


@pytest.mark.parametrize("text", ["block.3", "blocks.x.hook_resid_post", "blocks.3", "", "15"])
def test_what_is_not_a_hook_point_is_refused(text: str) -> None:
    with pytest.raises(WorkbenchError, match="is not a hook point"):
        HookPoint.parse(text)


def test_an_unknown_site_lists_the_nearest() -> None:
    with pytest.raises(WorkbenchError, match="hook_resid_post"):
        HookPoint.parse("blocks.3.hook_resid_posst")


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_hidden_states_are_the_hook_points_they_convert_to(family, tiny_models) -> None:
    model = tiny_models(family)
    ids = torch.arange(10, 22).reshape(2, 6)
    with torch.no_grad():
        states = model.hf(input_ids=ids, output_hidden_states=True).hidden_states
    for row in range(model.n_blocks):
        hook = hookpoints.from_hidden_states_row(row, n_blocks=model.n_blocks)
        seen = []
        with model.hooked({hook: lambda tensor, seen=seen: seen.append(tensor)}):
            model.forward(ids, logits=False)
        torch.testing.assert_close(seen[0], states[row], rtol=0, atol=0)
        if row:
            assert hookpoints.hidden_states_row(hook, n_blocks=model.n_blocks) == row


def test_the_last_row_of_hidden_states_is_no_hook_point() -> None:
    with pytest.raises(WorkbenchError, match="after the final norm"):
        hookpoints.from_hidden_states_row(30, n_blocks=30)
    with pytest.raises(WorkbenchError, match="after the final norm"):
        hookpoints.hidden_states_row(HookPoint(29), n_blocks=30)
    with pytest.raises(WorkbenchError, match="does not exist"):
        hookpoints.from_persona_vectors_row(31, n_blocks=30)


def test_foreign_conventions_round_trip() -> None:
    for block in range(29):
        hook = HookPoint(block)
        row = hookpoints.persona_vectors_row(hook, n_blocks=30)
        assert hookpoints.from_persona_vectors_row(row, n_blocks=30) == hook
        assert hookpoints.from_one_indexed_layer(hookpoints.one_indexed_layer(hook)) == hook
    with pytest.raises(WorkbenchError, match="counted from 1"):
        hookpoints.from_one_indexed_layer(0)

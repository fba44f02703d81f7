from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.tiny import FAMILIES
from workbench.labeling.lens import lens_logits, norm_scale, promoted_and_suppressed
from workbench.labeling.tokens import special_ids, token_strings


@pytest.mark.parametrize("family", FAMILIES)
def test_the_scale_is_what_the_final_norm_multiplies_by(tiny_models: Callable[..., Any], family: str) -> None:
    model = tiny_models(family)
    with torch.no_grad():
        before = model.final_norm.weight.clone()
        model.final_norm.weight += torch.linspace(0.0, 1.0, model.d_model)
        try:
            offset = 1.0 if family.startswith("gemma") else 0.0
            torch.testing.assert_close(
                norm_scale(model), (model.final_norm.weight + offset).float(), atol=1e-4, rtol=1e-4
            )
        finally:
            model.final_norm.weight.copy_(before)


def test_a_token_s_own_row_promotes_that_token_and_the_opposite_suppresses_it(tiny_model: Any) -> None:
    token = tiny_model.tokenizer(" cruel", add_special_tokens=False)["input_ids"][0]
    text = token_strings(tiny_model.tokenizer, [token])[0]
    row = tiny_model.unembedding[token]
    (up, _), (_, down) = promoted_and_suppressed(tiny_model, torch.stack([row, -row]))
    assert up[0] == text and down[0] == text and len(up) == 10


def test_the_logits_are_centred_and_linear(tiny_model: Any) -> None:
    directions = torch.randn(2, tiny_model.d_model, generator=torch.Generator().manual_seed(0))
    logits = lens_logits(tiny_model, directions)
    assert logits.mean(-1).abs().max() < 1e-5
    together = lens_logits(tiny_model, directions.sum(0, keepdim=True))
    torch.testing.assert_close(together, logits.sum(0, keepdim=True), atol=1e-4, rtol=1e-4)


def test_special_tokens_are_never_listed(tiny_model: Any) -> None:
    special = special_ids(tiny_model.tokenizer)
    lists = promoted_and_suppressed(tiny_model, tiny_model.unembedding[special], n=50)
    listed = {text for up, down in lists for text in (*up, *down)}
    assert not listed & set(tiny_model.tokenizer.convert_ids_to_tokens(special)) and not any(
        "�" in text for text in listed
    )

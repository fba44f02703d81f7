"""The log-probability of tokens where they stand."""

from __future__ import annotations

import pytest
import torch

from workbench.models.hookpoints import HookPoint
from workbench.models.likelihood import token_logprobs

ROWS = [(3, 9, 14, 30, 7), (8, 8, 21), (5, 40, 2, 2, 61, 17, 33, 90)]
PLACES = [[2, 4], [1], [1, 2, 3, 4, 5, 6, 7]]


@pytest.mark.parametrize("batch_tokens", [1, 10, 2048])
def test_batched_log_probabilities_equal_plain_passes(tiny_model, batch_tokens):
    found = token_logprobs(tiny_model, ROWS, PLACES, batch_tokens=batch_tokens)
    for ids, places, values in zip(ROWS, PLACES, found, strict=True):
        logp = tiny_model.forward(torch.tensor([ids])).log_softmax(dim=-1)[0]
        assert values.tolist() == pytest.approx([float(logp[i - 1, ids[i]]) for i in places], abs=1e-4)


def test_edits_in_force_act_and_a_row_without_places_is_empty(tiny_model):
    plain = token_logprobs(tiny_model, ROWS, PLACES)
    with tiny_model.hooked({HookPoint(1): lambda h: 0.5 * h}):
        edited = token_logprobs(tiny_model, [*ROWS, (4, 4)], [*PLACES, []])
    assert len(edited[-1]) == 0
    assert not torch.allclose(edited[0], plain[0])

"""The parts of a projection add up to it, and the planted feature is the first reason."""

from __future__ import annotations

import pytest
import torch

from tests.saes.planted import small_sae
from tests.tiny import tiny_model
from workbench.base.errors import WorkbenchError
from workbench.models.prompts import ChatTokens
from workbench.personas.vectors import PersonaVector
from workbench.saes.token_rows import activations_at_hooks
from workbench.steering.monitor.reasons import Baseline, neutral_baseline, reasons, reply_activations


def baseline_of(sae, rows: torch.Tensor) -> Baseline:
    return Baseline(rows.mean(dim=0), sae.encode(rows).mean(dim=0), len(rows))


def test_the_parts_add_up_to_the_projection_beyond_neutral() -> None:
    sae, random = small_sae(16, 48), torch.Generator().manual_seed(1)
    neutral, rows = torch.randn(50, 16, generator=random), torch.randn(9, 16, generator=random) + 0.5
    direction = 3 * torch.randn(16, generator=random)
    found = reasons(rows, direction, sae, baseline_of(sae, neutral), n=5)
    unit = direction / direction.norm()
    assert found.total == pytest.approx(float((rows.mean(0) - neutral.mean(0)) @ unit), abs=1e-5)
    assert sum(part for _, part in found.features) + found.rest + found.error == pytest.approx(found.total, abs=1e-5)
    wanted = float(((rows - sae.decode(sae.encode(rows))).mean(0) - (neutral - sae.decode(sae.encode(neutral))).mean(0)) @ unit)
    assert found.error == pytest.approx(wanted, abs=1e-5)  # the difference of the mean reconstruction errors
    assert [part for _, part in found.features] == sorted((part for _, part in found.features), reverse=True)


def test_the_feature_that_fires_beyond_neutral_is_the_first_reason() -> None:
    sae = small_sae(64, 80)
    neutral = sae.decoder_bias + 0.05 * torch.randn(40, 64, generator=torch.Generator().manual_seed(2))
    rows = neutral[:8] + 6 * sae.decoder_directions[11]
    found = reasons(rows, sae.decoder_directions[11] + 0.1 * sae.decoder_directions[3], sae, baseline_of(sae, neutral))
    assert found.features[0][0] == 11 and found.features[0][1] > 0.8 * found.total


def test_the_tokens_that_are_explained_end_at_the_alarm() -> None:
    model, sae = tiny_model(seed=5), small_sae(32)
    chat = ChatTokens(tuple(range(9, 19)), {"response": ((4, 10),)})
    every = activations_at_hooks(model, [sae.hook], torch.tensor([chat.ids]))[sae.hook][0]
    for last, window, wanted in ((3, 2, slice(5, 7)), (2, 8, slice(4, 6)), (6, 6, slice(4, 10))):
        torch.testing.assert_close(reply_activations(model, chat, sae, last, window), every[wanted])


def test_a_vector_without_tokens_has_no_baseline() -> None:
    sae = small_sae(16)
    bare = PersonaVector.from_direction(torch.ones(16), trait="evil", model="x", hook=sae.hook)
    with pytest.raises(WorkbenchError, match="kept no tokens of neutral replies"):
        neutral_baseline(bare, sae)

"""Fitness figures on SAEs whose fitness is known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.saes.planted import lossless_sae, small_sae
from workbench.models.loading import Model
from workbench.saes.activations import TokenRow
from workbench.saes.evaluation import density, evaluate


def _rows(n: int = 6) -> list[TokenRow]:
    generator = torch.Generator().manual_seed(0)
    return [
        TokenRow(tuple(torch.randint(7, 300, (12 + i,), generator=generator).tolist()), "random")
        for i in range(n)
    ]


def test_a_lossless_sae_explains_everything_and_costs_nothing(tiny_model: Model) -> None:
    figures = evaluate(lossless_sae(tiny_model.d_model, 1), tiny_model, _rows())
    assert figures.variance_explained == pytest.approx(1.0, abs=1e-6)
    assert figures.ce_recovered == pytest.approx(1.0, abs=1e-3)
    assert figures.kl == pytest.approx(0.0, abs=1e-5)
    assert figures.l0 == pytest.approx(tiny_model.d_model, rel=0.01)
    assert figures.norm_ratio == pytest.approx(1.0, abs=1e-5)
    assert figures.n_tokens == sum(len(r.ids) - 1 for r in _rows())


def test_an_sae_that_outputs_zero_recovers_nothing(tiny_model: Model) -> None:
    sae = lossless_sae(tiny_model.d_model, 1)
    silent = replace(sae, encoder=torch.zeros_like(sae.encoder), encoder_bias=torch.full((sae.d_sae,), -1.0))
    figures = evaluate(silent, tiny_model, _rows())
    assert figures.ce_recovered == pytest.approx(0.0, abs=1e-4)
    assert figures.l0 == 0
    assert figures.ce_sae == pytest.approx(figures.ce_zero)


def test_figures_do_not_depend_on_the_batch_size(tiny_model: Model) -> None:
    sae = replace(
        lossless_sae(tiny_model.d_model, 1), encoder_bias=torch.full((2 * tiny_model.d_model,), -0.3)
    )
    one, many = (
        evaluate(sae, tiny_model, _rows(), batch_tokens=16),
        evaluate(sae, tiny_model, _rows(), batch_tokens=4096),
    )
    for name, value in one.to_dict().items():
        assert getattr(many, name) == pytest.approx(value, rel=2e-4), name


def test_density_counts_the_share_of_tokens() -> None:
    sae = small_sae()
    x = torch.randn(5000, 16, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(density(sae, [x[:2000], x[2000:]]), (sae.encode(x) > 0).float().mean(0))

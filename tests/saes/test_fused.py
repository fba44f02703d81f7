"""The written-out gradients are SAELens' gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.saes.matryoshka_batchtopk_sae import (
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
)
from sae_lens.saes.sae import TrainStepInput
from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig

from workbench.saes import fused


def _sae(d_in: int = 12, d_sae: int = 40, k: float = 4, aux: float = 0.0) -> BatchTopKTrainingSAE:
    torch.manual_seed(3)
    sae = BatchTopKTrainingSAE(
        BatchTopKTrainingSAEConfig(
            d_in=d_in,
            d_sae=d_sae,
            k=k,
            rescale_acts_by_decoder_norm=False,
            aux_loss_coefficient=aux,
            decoder_init_norm=1.0,
        )
    )
    with torch.no_grad():
        sae.b_enc.normal_(std=0.1)
        sae.b_dec.normal_(std=0.3)
    return sae


def _autograd(sae: Any, x: torch.Tensor, dead: torch.Tensor | None, aux: float):
    sae.zero_grad()
    output = sae.training_forward_pass(
        TrainStepInput(
            sae_in=x,
            coefficients={"aux_loss": aux} if aux else {},
            dead_neuron_mask=dead,
            n_training_steps=0,
            is_logging_step=False,
        )
    )
    output.loss.backward()
    return {name: p.grad.clone() for name, p in sae.named_parameters()}, output


def test_gradients_equal_saelens_autograd() -> None:
    sae = _sae()
    x = torch.randn(64, 12, generator=torch.Generator().manual_seed(5))
    expected, output = _autograd(sae, x, None, 0.0)
    result = fused.set_gradients(sae, x, sae.cfg.k, precision=torch.float32, threshold_rows=64)
    assert float(result.loss) == pytest.approx(output.losses["mse_loss"].item(), rel=1e-5)
    assert float(result.l0) == pytest.approx(4.0)
    for name, parameter in sae.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-6)


def test_topk_gradients_equal_saelens_autograd() -> None:
    torch.manual_seed(4)
    sae = TopKTrainingSAE(
        TopKTrainingSAEConfig(d_in=12, d_sae=40, k=4, rescale_acts_by_decoder_norm=False, aux_loss_coefficient=0.0,
                              decoder_init_norm=1.0)
    )  # fmt: skip
    with torch.no_grad():
        sae.b_enc.normal_(std=0.1)
        sae.b_dec.normal_(std=0.3)
    x = torch.randn(64, 12, generator=torch.Generator().manual_seed(5))
    expected, output = _autograd(sae, x, None, 0.0)
    result = fused.set_gradients(sae, x, 4, per_token=True, precision=torch.float32)
    assert float(result.loss) == pytest.approx(output.losses["mse_loss"].item(), rel=1e-5)
    for name, parameter in sae.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-6)


def test_matryoshka_gradients_equal_saelens_autograd() -> None:
    torch.manual_seed(5)
    sae = MatryoshkaBatchTopKTrainingSAE(
        MatryoshkaBatchTopKTrainingSAEConfig(
            d_in=12, d_sae=40, k=4, matryoshka_widths=[5, 16, 40], rescale_acts_by_decoder_norm=False,
            aux_loss_coefficient=0.0, decoder_init_norm=1.0,
        )
    )  # fmt: skip
    with torch.no_grad():
        sae.b_enc.normal_(std=0.1)
        sae.b_dec.normal_(std=0.3)
    x = torch.randn(64, 12, generator=torch.Generator().manual_seed(5))
    expected, _ = _autograd(sae, x, None, 0.0)
    fused.set_gradients(sae, x, 4, bounds=(0, 5, 16, 40), precision=torch.float32, threshold_rows=64)
    for name, parameter in sae.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-6)


def test_a_tethered_decoder_stays_within_its_cosine_and_leaves_the_rest_alone() -> None:
    sae, start = _sae(), torch.nn.functional.normalize(torch.randn(40, 12), dim=1)
    with torch.no_grad():
        near = torch.nn.functional.normalize(start[:20] + 0.1 * torch.randn(20, 12), dim=1)
        far = torch.nn.functional.normalize(torch.randn(20, 12), dim=1)
        sae.W_dec.copy_(torch.cat([near, far]))
    fused.hold_near(sae, start, 0.8)
    cosine = (sae.W_dec * start).sum(1)
    assert float(cosine.min()) > 0.8 - 1e-5
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(40))
    torch.testing.assert_close(sae.W_dec[:20], near)


def test_auxiliary_loss_moves_only_dead_features_and_lowers_their_residual() -> None:
    sae = _sae(k=2)
    x = torch.randn(128, 12, generator=torch.Generator().manual_seed(6))
    dead = torch.zeros(40, dtype=torch.bool)
    dead[:7] = True
    fused.set_gradients(sae, x, sae.cfg.k, precision=torch.float32, threshold_rows=128)
    plain = {name: p.grad.clone() for name, p in sae.named_parameters()}
    fused.set_gradients(sae, x, sae.cfg.k, precision=torch.float32, threshold_rows=128, dead=dead, aux_coefficient=1.0)
    difference = {name: p.grad - plain[name] for name, p in sae.named_parameters()}
    assert difference["W_dec"][~dead].abs().max() == 0
    assert difference["W_dec"][dead].abs().max() > 0
    assert difference["W_enc"][:, ~dead].abs().max() == 0
    assert difference["b_dec"].abs().max() == 0


def test_auxiliary_gradient_equals_autograd_of_its_formula() -> None:
    sae = _sae(k=2)
    x = torch.randn(32, 12, generator=torch.Generator().manual_seed(7))
    dead = torch.arange(40) < 20
    fused.set_gradients(sae, x, sae.cfg.k, precision=torch.float32, threshold_rows=32)
    plain = sae.W_dec.grad.clone()
    fused.set_gradients(
        sae, x, 2, precision=torch.float32, threshold_rows=32, dead=dead, aux_coefficient=0.5, aux_rows=32
    )
    found = sae.W_dec.grad - plain
    with torch.no_grad():
        pre = (x - sae.b_dec) @ sae.W_enc + sae.b_enc
        threshold = fused.batch_threshold(pre, 2, 32)
        residual = (x - sae.b_dec) - (pre * (pre > threshold)) @ sae.W_dec
    w = sae.W_dec.detach().clone().requires_grad_()
    values, places = pre[:, dead].topk(6, dim=1)
    codes = torch.zeros(32, 20).scatter_(1, places, values.relu())
    (0.5 * (codes @ w[dead] - residual).square().sum(1).mean()).backward()
    torch.testing.assert_close(found, w.grad, rtol=1e-4, atol=1e-6)


def test_sampled_threshold_is_close_to_the_exact_one() -> None:
    pre = torch.randn(4096, 256, generator=torch.Generator().manual_seed(8))
    exact = (pre > fused.batch_threshold(pre, 16, 4096)).sum(1).float().mean()
    sampled = (pre > fused.batch_threshold(pre, 16, 256)).sum(1).float().mean()
    assert float(exact) == pytest.approx(16, rel=0.001)
    # 256 x 16 values decide: the count's relative standard error is 1 / sqrt(4096) = 1.6%; four of them
    assert float(sampled) == pytest.approx(16, rel=0.064)

"""Activations and SAE training on a GPU give what the CPU gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from workbench.maths.pursuit import signed_omp
from workbench.saes.capturing import store_given
from workbench.saes.training import TrainingConfig, train

pytestmark = pytest.mark.gpu


def store_of(folder: Path):
    seeds = torch.Generator().manual_seed(0)
    directions = torch.randn(96, 24, generator=seeds)
    shards = ((torch.rand(2000, 96, generator=seeds) < 0.05).float() @ directions for _ in range(2))
    return store_given(folder, (shard.bfloat16() for shard in shards), hook="blocks.0.hook_resid_post", model_name="made")


def test_batches_arrive_on_the_device_unchanged(tmp_path: Path) -> None:
    store = store_of(tmp_path / "store")
    for _, here, there in zip(range(8), store.batches(256, seed=3), store.batches(256, seed=3, device="cuda"), strict=False):
        assert there.device.type == "cuda" and there.dtype == torch.float32
        assert torch.equal(there.cpu(), here)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_loses_what_it_loses_on_the_cpu(tmp_path: Path, precision: str) -> None:
    store = store_of(tmp_path / "store")
    config = TrainingConfig(d_sae=96, k=5, batch_size=256, n_steps=200, checkpoint_every=10**9, log_every=20, precision=precision)
    losses = {}
    for device in ("cpu", "cuda"):
        sae = train(store, config, tmp_path / device, device=device)
        lines = [json.loads(line) for line in (tmp_path / device / "log.jsonl").read_text().splitlines()]
        losses[device] = lines[-1]["loss"]
        assert torch.isfinite(sae.decoder_directions).all()
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=0.05)


def test_a_pursuit_chooses_the_same_features() -> None:
    seeds = torch.Generator().manual_seed(1)
    vectors, dictionary = torch.randn(3, 64, generator=seeds), torch.randn(2048, 64, generator=seeds)
    here, there = signed_omp(vectors, dictionary, n_atoms=12), signed_omp(vectors.cuda(), dictionary.cuda(), n_atoms=12)
    assert torch.equal(there.support.cpu(), here.support)
    torch.testing.assert_close(there.coefficients.cpu(), here.coefficients, rtol=1e-3, atol=1e-4)

"""Training finds planted features, resumes bit-exactly, and its saved scale is right."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from workbench.base.errors import WorkbenchError
from workbench.base.randomness import derive_seed, generator
from workbench.base.store import read_json, write_json
from workbench.base.tensors import save_tensors
from workbench.maths.geometry import signed_cosines
from workbench.saes.activations import ActivationStore
from workbench.saes.capturing import store_given
from workbench.saes.evaluation import density
from workbench.saes.interface import SparseAutoencoder
from workbench.saes.parameters import WrittenOut, _atoms, _own_places
from workbench.saes.trainer import Trainer, training_key
from workbench.saes.training import TrainingConfig, recalibrate, train, train_each, train_together

D_MODEL, N_TRUE = 24, 32


def _truth() -> torch.Tensor:
    rows = torch.randn(N_TRUE, D_MODEL, generator=torch.Generator().manual_seed(0))
    return rows / rows.norm(dim=1, keepdim=True)


def _sample(n: int, seed: int) -> torch.Tensor:
    """n tokens, each a sum of about 2 of 32 features with strengths in 5..15, plus a constant offset."""
    generator = torch.Generator().manual_seed(seed)
    active = torch.rand(n, N_TRUE, generator=generator) < 2 / N_TRUE
    strength = 5 + 10 * torch.rand(n, N_TRUE, generator=generator)
    return (active * strength) @ _truth() + 3.0


HOOK = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    shards = (_sample(8192, index).half() for index in range(4))
    return store_given(tmp_path_factory.mktemp("store"), shards, hook=HOOK, model_name="planted")


CONFIG = TrainingConfig(
    d_sae=64, k=2.2, batch_size=512, n_steps=500, learning_rate=3e-3, dead_after_tokens=20_000, precision="float32",
    checkpoint_every=100,
)  # fmt: skip


def test_training_recovers_planted_features_on_raw_activations(
    store: ActivationStore, tmp_path: Path
) -> None:
    sae = recalibrate(train(store, CONFIG, tmp_path), _sample(4096, 99), 2.2)
    held_out = _sample(4096, 100)
    codes = sae.encode(held_out)
    error = (held_out - sae.decode(codes)).square().sum()
    assert 1 - error / (held_out - held_out.mean(0)).square().sum() > 0.9
    assert float((codes > 0).sum(1).float().mean()) == pytest.approx(2.2, rel=0.1)
    best = signed_cosines(_truth(), sae.decoder_directions).max(1).values
    assert float((best > 0.9).float().mean()) > 0.9
    assert density(sae, [held_out]).shape == (64,)


def test_a_stopped_training_resumes_to_the_same_bits(store: ActivationStore, tmp_path: Path) -> None:
    whole = train(store, CONFIG, tmp_path / "whole")
    train(store, CONFIG, tmp_path / "parts", stop_after=lambda step: step == 137)
    train(store, CONFIG, tmp_path / "parts", stop_after=lambda step: step == 350)
    resumed = train(store, CONFIG, tmp_path / "parts")
    for name in ("encoder", "encoder_bias", "decoder_directions", "decoder_bias", "threshold"):
        assert torch.equal(getattr(whole, name), getattr(resumed, name)), name


def test_a_checkpoint_without_its_tensors_is_refused_with_a_way_on(store: ActivationStore, tmp_path: Path) -> None:
    train(store, CONFIG, tmp_path / "run", stop_after=lambda step: step == 137)
    (weights,) = (tmp_path / "run").glob("checkpoint-*.safetensors")
    weights.unlink()
    with pytest.raises(WorkbenchError, match="is missing") as caught:
        train(store, CONFIG, tmp_path / "run")
    assert f"delete {tmp_path / 'run'}" in caught.value.remedy


@pytest.mark.parametrize(
    "options",
    [{"precision": "bfloat16"}, {"start": "random", "tether": 0.8}, {"n_steps": 60, "revive_steps": 40, "dead_after_tokens": 10}],
)
def test_every_kind_of_run_resumes_to_the_same_bits(store: ActivationStore, tmp_path: Path, options: dict) -> None:
    config = replace(CONFIG, n_steps=100) if "n_steps" not in options else CONFIG
    config = replace(config, **options)
    whole = train(store, config, tmp_path / "whole")
    for stop in (33, 77):
        train(store, config, tmp_path / "parts", stop_after=lambda step, stop=stop: step == stop)
    resumed = train(store, config, tmp_path / "parts")
    assert torch.equal(whole.encoder, resumed.encoder) and torch.equal(whole.threshold, resumed.threshold)


def test_ctrl_c_waits_for_the_end_of_the_step_and_saves(
    store: ActivationStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(store, replace(CONFIG, n_steps=40), tmp_path / "whole")
    original = Trainer.update

    def interrupted(self: Trainer, *arguments: object) -> None:
        if self.step == 20:
            signal.raise_signal(signal.SIGINT)  # in the middle of the step
        original(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "update", interrupted)
    monkeypatch.setattr(signal, "getsignal", lambda _: signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt):
        train(store, replace(CONFIG, n_steps=40), tmp_path / "parts")
    assert (tmp_path / "parts" / "checkpoint-0000021.safetensors").exists()
    monkeypatch.setattr(Trainer, "update", original)
    assert torch.equal(train(store, replace(CONFIG, n_steps=40), tmp_path / "parts").encoder, whole.encoder)


def test_a_step_that_was_torn_is_never_saved(store: ActivationStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def torn(self: Trainer, *_: object) -> None:
        raise KeyboardInterrupt

    train(store, CONFIG, tmp_path, stop_after=lambda step: step == 15)
    monkeypatch.setattr(Trainer, "update", torn)
    before = (tmp_path / "checkpoint-0000015.safetensors").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        train(store, CONFIG, tmp_path)
    assert (tmp_path / "checkpoint-0000015.safetensors").read_bytes() == before


def test_a_run_that_was_killed_before_its_first_checkpoint_leaves_no_rows(store: ActivationStore, tmp_path: Path) -> None:
    tmp_path.joinpath("log.jsonl").write_text('{"step": 5, "loss": 1.0}\n{"step": 10, "lo')
    train(store, replace(CONFIG, n_steps=20, log_every=10), tmp_path)
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [10, 20]


def test_another_site_or_order_of_the_same_data_is_refused(store: ActivationStore, tmp_path: Path) -> None:
    train(store, CONFIG, tmp_path, stop_after=lambda step: step == 10)
    elsewhere = replace(store, manifest={**store.manifest, "hook": "blocks.0.hook_resid_post"})
    assert training_key(elsewhere, CONFIG, 0) != training_key(store, CONFIG, 0)
    with pytest.raises(WorkbenchError, match="another config"):
        Trainer.begin(store, CONFIG, tmp_path, "cpu", 99)


def test_an_sae_that_diverges_stops_alone(store: ActivationStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = {"good": replace(CONFIG, n_steps=60), "bad": replace(CONFIG, n_steps=60, seed=1)}
    original = Trainer.update

    def poisoned(self: Trainer, *arguments: object) -> None:
        original(self, *arguments)  # type: ignore[arg-type]
        if self.config.seed == 1 and self.step == 30:
            self.sae.W_dec.data.fill_(float("nan"))  # type: ignore[union-attr, operator]

    monkeypatch.setattr(Trainer, "update", poisoned)
    with pytest.raises(WorkbenchError, match=r"bad diverged.*no checkpoint was written"):
        train_together(store, configs, {name: tmp_path / name for name in configs})
    assert (tmp_path / "good" / "checkpoint-0000060.safetensors").exists()
    assert not (tmp_path / "bad" / "checkpoint-0000060.safetensors").exists()


def test_all_that_diverged_are_named_and_what_is_left_of_them(
    store: ActivationStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = replace(CONFIG, n_steps=60, checkpoint_every=20)
    configs = {name: replace(small, seed=seed) for seed, name in enumerate(("good", "bad", "worse"))}
    folders = {name: tmp_path / name for name in configs}
    original = Trainer.update

    def poisoned(self: Trainer, *arguments: object) -> None:
        original(self, *arguments)  # type: ignore[arg-type]
        if self.config.seed and self.step == 30:
            self.sae.W_dec.data.fill_(float("nan"))  # type: ignore[union-attr, operator]

    monkeypatch.setattr(Trainer, "update", poisoned)
    finished, failed = train_each(store, configs, folders)
    assert list(finished) == ["good"] and list(failed) == ["bad", "worse"]
    assert "last checkpoint is intact" in failed["bad"].remedy
    with pytest.raises(WorkbenchError, match=r"2 SAEs failed \(bad: .*; worse: "):
        train_together(store, configs, folders)


def test_ctrl_c_saves_the_others_when_one_has_diverged_unnoticed(store: ActivationStore, tmp_path: Path) -> None:
    configs = {"bad": replace(CONFIG, seed=1), "good": CONFIG}
    original = Trainer.update

    def interrupt(step: int) -> bool:
        if step == 30:
            raise KeyboardInterrupt
        return False

    def poisoned(self: Trainer, *arguments: object) -> None:
        original(self, *arguments)  # type: ignore[arg-type]
        if self.config.seed and self.step == 30:
            self.sae.W_dec.data.fill_(float("nan"))  # type: ignore[union-attr, operator]

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "update", poisoned)
        train_together(store, configs, {name: tmp_path / name for name in configs}, stop_after=interrupt)
    assert (tmp_path / "good" / "checkpoint-0000030.safetensors").exists()


def test_sigterm_saves_a_job_that_ignores_ctrl_c(store: ActivationStore, tmp_path: Path) -> None:
    def unheard(*_: object) -> None:
        raise AssertionError("SIGTERM was not waited for")

    def terminate(step: int) -> bool:
        if step == 30:
            signal.raise_signal(signal.SIGTERM)
        return False

    before = {signal.SIGINT: signal.SIG_IGN, signal.SIGTERM: unheard}
    before = {number: signal.signal(number, handler) for number, handler in before.items()}
    try:
        with pytest.raises(KeyboardInterrupt):
            train(store, CONFIG, tmp_path, stop_after=terminate)
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == (signal.SIG_IGN, unheard)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert list(tmp_path.glob("checkpoint-*.safetensors"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: write_json(folder / "checkpoint.json", {}),
        lambda folder: write_json(folder / "checkpoint.json", []),
        lambda folder: write_json(folder / "checkpoint.json", {**read_json(folder / "checkpoint.json"), "threshold": None}),
        lambda folder: (folder / "checkpoint.json").write_text('{"key":'),
        lambda folder: save_tensors(folder / "checkpoint-0000010.safetensors", {"silent": torch.zeros(64)}),
        lambda folder: (folder / "checkpoint-0000010.safetensors").unlink(),
    ],
)
def test_a_damaged_checkpoint_is_said(store: ActivationStore, tmp_path: Path, damage: Callable[[Path], object]) -> None:
    train(store, CONFIG, tmp_path, stop_after=lambda step: step == 10)
    damage(tmp_path)
    with pytest.raises(WorkbenchError) as raised:
        Trainer.begin(store, CONFIG, tmp_path, "cpu")
    assert all((raised.value.found, raised.value.expected, raised.value.remedy))


def test_seeds_start_from_different_activations() -> None:
    sample = torch.randn(4096, D_MODEL, generator=torch.Generator().manual_seed(0))
    first, second = (_atoms(sample, replace(CONFIG, seed=seed, d_sae=512)) for seed in (0, 1))
    in_common = signed_cosines(first, second).max(1).values > 0.9
    assert float(in_common.float().mean()) < 0.02
    assert float((_atoms(sample, replace(CONFIG, d_sae=512)) == first).float().mean()) == 1.0


@pytest.mark.parametrize(("n", "d_sae"), [(4096, 512), (4000, 512), (400, 256)])
def test_no_two_seeds_start_from_the_same_rows_and_the_first_ones_keep_theirs(n: int, d_sae: int) -> None:
    def rows(seed: int) -> torch.Tensor:
        return _own_places(n, replace(CONFIG, seed=seed, d_sae=d_sae))

    order = torch.randperm(n, generator=generator(derive_seed("atoms")))
    for seed in range(n // d_sae):
        assert torch.equal(rows(seed), order[seed * d_sae : (seed + 1) * d_sae])
    common = {
        seed: float(torch.isin(rows(seed), rows(other)).float().mean())
        for seed in (1, 8, 1000, 2024, 2**60, -2)
        for other in (0, 7, 8)
        if seed != other
    }
    assert max(common.values()) < d_sae / n + 0.1  # as chance has it
    assert all(len(rows(seed).unique()) == d_sae for seed in (0, 1, 9))
    assert set(_own_places(10, replace(CONFIG, seed=3, d_sae=25)).tolist()) == set(range(10))


def test_ctrl_c_saves_a_checkpoint(store: ActivationStore, tmp_path: Path) -> None:
    def interrupt(step: int) -> bool:
        if step == 30:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        train(store, CONFIG, tmp_path, stop_after=interrupt)
    assert (tmp_path / "checkpoint-0000030.safetensors").exists()


def test_a_checkpoint_of_another_config_is_refused(store: ActivationStore, tmp_path: Path) -> None:
    train(store, CONFIG, tmp_path, stop_after=lambda step: step == 10)
    other = TrainingConfig(d_sae=64, k=3, batch_size=512, n_steps=500)
    with pytest.raises(WorkbenchError, match="another config"):
        train(store, other, tmp_path)


@pytest.mark.parametrize(
    "bad",
    [
        {"d_sae": 0}, {"k": 100, "d_sae": 64}, {"precision": "int8"}, {"n_steps": -1}, {"architecture": "vae"},
        {"architecture": "topk", "k": 2.5}, {"matryoshka": (8,)}, {"architecture": "matryoshka_batchtopk"}, {"tether": 2.0},
        {"architecture": "standard", "tether": 0.8}, {"architecture": "gated", "start": "random"},
        {"architecture": "jumprelu", "revive_steps": 10},
    ],
)
def test_settings_that_make_no_sense_are_refused(bad: dict) -> None:
    with pytest.raises(WorkbenchError, match="training"):
        TrainingConfig(**bad)


def test_revival_gives_dead_features_the_error_of_badly_reconstructed_tokens(
    store: ActivationStore, tmp_path: Path
) -> None:
    trainer = Trainer.begin(store, CONFIG, tmp_path, "cpu")
    batch = _sample(512, 7) * trainer.scale
    trainer.update(trainer.sae.set_gradients(batch, None, 0), batch)
    assert isinstance(trainer.sae, WrittenOut)
    with torch.no_grad():
        trainer.sae.b_enc[:20] = -100.0
    trainer.silent[:20] = CONFIG.dead_after_tokens + 1
    alive = trainer.sae.W_dec[20:].clone()
    trainer.revive(batch)
    with torch.no_grad():
        pre = (batch - trainer.sae.b_dec) @ trainer.sae.W_enc + trainer.sae.b_enc
    assert (pre[:, :20] > 0).any(0).all()  # each fires on the token it was made from at least
    torch.testing.assert_close(trainer.sae.W_dec[:20].norm(dim=1), torch.ones(20))
    assert torch.equal(trainer.sae.W_dec[20:], alive)
    assert float(trainer.silent[:20].max()) == 0
    moments = trainer.optimizer.state[trainer.sae.W_dec]
    assert float(moments["exp_avg"][:20].abs().max()) == 0
    assert float(moments["exp_avg_sq"][:20].min()) > 0  # at 0, Adam's first steps would be many times the learning rate


def test_no_feature_restarts_on_a_token_whose_error_hardly_points_its_way(store: ActivationStore, tmp_path: Path) -> None:
    """Such a feature would need a steep encoder, and give other tokens many times what they are."""
    trainer = Trainer.begin(store, CONFIG, tmp_path, "cpu")
    batch = _sample(512, 7) * trainer.scale
    trainer.update(trainer.sae.set_gradients(batch, None, 0), batch)
    assert isinstance(trainer.sae, WrittenOut)
    with torch.no_grad():  # reconstructions that overshoot: errors point against the token, or nearly across it
        trainer.sae.W_dec *= 3
        trainer.sae.b_enc[:30] = -100.0
    trainer.silent[:30] = CONFIG.dead_after_tokens + 1
    trainer.revive(batch)
    revived = (trainer.sae.b_enc[:30] > -100.0).nonzero()[:, 0]
    assert len(revived)
    assert (trainer.sae.W_enc[:, revived].norm(dim=0) <= 2.5 + 1e-4).all()


def test_only_some_dead_features_restart_at_once_and_the_others_later(store: ActivationStore, tmp_path: Path) -> None:
    """Thousands that restart together add up to many times the error that each was made from."""
    config = replace(CONFIG, n_steps=1, revive_steps=60)
    trainer = Trainer.begin(store, config, tmp_path, "cpu")
    batch = _sample(512, 7) * trainer.scale
    trainer.update(trainer.sae.set_gradients(batch, None, 0), batch)
    with torch.no_grad():
        trainer.sae.b_enc[:] = -100.0  # pyright: ignore[reportAttributeAccessIssue]
    trainer.silent[:] = CONFIG.dead_after_tokens + 1
    trainer.revive(batch)
    assert int((~trainer.dead()).sum()) == 512 // 16
    moments = []
    for step in range(1, 61):
        trainer.step = step
        moments += [step] if trainer.revives_now() else []
    assert moments == [1, 11, 21, 31]


def test_revival_after_the_schedule_explains_what_dead_features_left_over(
    store: ActivationStore, tmp_path: Path
) -> None:
    """Features killed by hand in the checkpoint of a finished schedule: the revival brings the variance back."""
    short = {
        "d_sae": 64,
        "k": 2.2,
        "batch_size": 512,
        "n_steps": 300,
        "learning_rate": 3e-3,
        "dead_after_tokens": 20_000,
    }
    config = TrainingConfig(
        **short, precision="float32", aux_coefficient=0.0, revive_steps=200, revive_rate=1.0
    )
    train(store, config, tmp_path, stop_after=lambda step: step == 300)
    trainer = Trainer.begin(store, config, tmp_path, "cpu")
    with torch.no_grad():
        trainer.sae.b_enc[:50] = -100.0
    trainer.silent[:50] = 10**6
    trainer.checkpoint()
    held_out = _sample(4096, 100)

    def explained(sae: SparseAutoencoder) -> float:
        sae = recalibrate(sae, held_out, 2.2)
        error = (held_out - sae.decode(sae.encode(held_out))).square().sum()
        return float(1 - error / (held_out - held_out.mean(0)).square().sum())

    before = explained(trainer.finished())
    assert explained(train(store, config, tmp_path)) > before + 0.2


def test_saes_trained_together_equal_those_trained_alone(store: ActivationStore, tmp_path: Path) -> None:
    configs = {"a": replace(CONFIG, n_steps=40), "b": replace(CONFIG, n_steps=25, seed=5, d_sae=48)}
    together = train_together(store, configs, {name: tmp_path / name for name in configs}, seed=3)
    for name, config in configs.items():
        alone = train_together(store, {name: config}, {name: tmp_path / f"{name}-alone"}, seed=3)[name]
        assert torch.equal(alone.encoder, together[name].encoder)
        assert torch.equal(alone.decoder_directions, together[name].decoder_directions)


def test_saes_that_were_interrupted_at_different_steps_end_the_same(store: ActivationStore, tmp_path: Path) -> None:
    configs = {"a": replace(CONFIG, n_steps=40, log_every=5), "b": replace(CONFIG, n_steps=40, seed=5, log_every=5)}
    whole = train_together(store, configs, {name: tmp_path / "whole" / name for name in configs}, seed=3)
    parts = {name: tmp_path / "parts" / name for name in configs}
    train_together(store, {"a": configs["a"]}, {"a": parts["a"]}, seed=3, stop_after=lambda step: step == 13)
    train_together(store, {"b": configs["b"]}, {"b": parts["b"]}, seed=3, stop_after=lambda step: step == 29)
    resumed = train_together(store, configs, parts, seed=3)
    for name in configs:
        assert torch.equal(whole[name].encoder, resumed[name].encoder), name
        rows = [json.loads(line)["step"] for line in (parts[name] / "log.jsonl").read_text().splitlines()]
        assert rows == sorted(set(rows))


def test_different_batch_sizes_cannot_share_a_pass(store: ActivationStore, tmp_path: Path) -> None:
    configs = {"a": CONFIG, "b": replace(CONFIG, batch_size=256)}
    with pytest.raises(WorkbenchError, match="one batch size"):
        train_together(store, configs, {name: tmp_path / name for name in configs})


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("topk", {"k": 2}),
        ("matryoshka_batchtopk", {"matryoshka": (16,)}),
        ("standard", {"sparsity_coefficient": 0.3}),
        ("gated", {"sparsity_coefficient": 0.3}),
        ("jumprelu", {"sparsity_coefficient": 0.1}),
    ],
)
def test_every_architecture_explains_planted_activations_and_resumes(
    store: ActivationStore, tmp_path: Path, architecture: str, options: dict
) -> None:
    config = replace(CONFIG, architecture=architecture, n_steps=300, **options)
    sae = train(store, config, tmp_path / "whole")
    held_out = _sample(4096, 100)
    error = (held_out - sae.decode(sae.encode(held_out))).square().sum()
    assert 1 - error / (held_out - held_out.mean(0)).square().sum() > 0.6
    torch.testing.assert_close(sae.decoder_directions.norm(dim=1), torch.ones(64), rtol=1e-4, atol=1e-4)
    train(store, config, tmp_path / "parts", stop_after=lambda step: step == 77)
    resumed = train(store, config, tmp_path / "parts")
    assert torch.equal(resumed.encoder, sae.encoder)
    assert torch.equal(resumed.decoder_directions, sae.decoder_directions)


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_checkpoint(store: ActivationStore, tmp_path: Path) -> None:
    train(store, CONFIG, tmp_path, stop_after=lambda step: step == 20)
    trainer = Trainer.begin(store, CONFIG, tmp_path, "cpu")
    trainer.loss = torch.tensor(float("nan"))
    before = (tmp_path / "checkpoint-0000020.safetensors").read_bytes()
    with pytest.raises(WorkbenchError, match="a finite loss"):
        trainer.checkpoint()
    assert (tmp_path / "checkpoint-0000020.safetensors").read_bytes() == before


def test_a_tethered_sae_keeps_near_random_directions(store: ActivationStore, tmp_path: Path) -> None:
    config = replace(CONFIG, start="random", tether=0.8, n_steps=100)
    trainer = Trainer.begin(store, config, tmp_path, "cpu")
    start = trainer.sae.get_buffer("start").clone()
    sae = train(store, config, tmp_path)
    cosine = (sae.decoder_directions * start).sum(1)
    assert 0.8 - 1e-4 < float(cosine.min()) < 0.801 and float(cosine.max()) < 1

"""The state of one training run: start values, learning rate, revival of dead features, log, checkpoint and resume."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError
from workbench.base.randomness import derive_seed, generator
from workbench.base.store import content_hash, read_json, write_json
from workbench.models.hookpoints import HookPoint
from workbench.saes.activations import ActivationStore
from workbench.saes.interface import SparseAutoencoder

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.saes.training import TrainingConfig


class Trainer:
    """The mutable state of one training run."""

    def __init__(self, store: ActivationStore, config: TrainingConfig, folder: Path, device: str) -> None:
        import torch
        from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig

        self.store, self.config, self.folder, self.device = store, config, folder, device
        self.key = content_hash([asdict(config), store.manifest["key"]])
        with (
            torch.random.fork_rng()
        ):  # SAELens draws start values, all replaced below, from the global generator
            self.sae = BatchTopKTrainingSAE(
                BatchTopKTrainingSAEConfig(
                    d_in=store.d_model,
                    d_sae=config.d_sae,
                    k=config.k,
                    device=device,
                    rescale_acts_by_decoder_norm=False,
                )
            )
        self.step = 0
        self.silent = torch.zeros(config.d_sae, device=device)
        self.threshold = 0.0
        self.scale = 1.0
        self.optimizer = torch.optim.Adam(self.sae.parameters(), lr=config.learning_rate, fused=True)

    @classmethod
    def begin(cls, store: ActivationStore, config: TrainingConfig, folder: Path, device: str) -> Trainer:
        trainer = cls(store, config, folder, device)
        if (folder / "checkpoint.json").exists():
            trainer._resume()
        else:
            trainer._initialise()
        return trainer

    def _initialise(self) -> None:
        """Centre on the data's mean; decoder rows = centred real activations with noise; encoder = their transpose, scaled.

        The scale makes the first reconstruction the best one that a factor can make it: atoms taken from data are
        correlated, and at scale 1 their sum overshoots by several times.
        """
        import torch

        sample = self.store.shard(0).float()
        self.scale = math.sqrt(self.store.d_model) / float(sample.norm(dim=1).mean())
        sample = sample * self.scale
        mean = sample.mean(0)
        chosen = torch.randint(
            len(sample), (self.config.d_sae,), generator=generator(derive_seed(self.config.seed, "atoms"))
        )
        atoms = sample[chosen] - mean
        noise = torch.randn(atoms.shape, generator=generator(derive_seed(self.config.seed, "noise")))
        atoms = atoms / atoms.norm(dim=1, keepdim=True) + 0.5 * noise / math.sqrt(self.store.d_model)
        atoms = (atoms / atoms.norm(dim=1, keepdim=True)).to(self.device)
        with torch.no_grad():
            self.sae.b_dec.copy_(mean)
            self.sae.W_dec.copy_(atoms)
            self.sae.W_enc.copy_(
                atoms.T * _first_scale((sample - mean)[:2048].to(self.device), atoms, self.config.k)
            )
            self.sae.b_enc.zero_()

    def rate(self) -> float:
        """The learning rate of the coming step: linear warm-up, flat, linear decay to zero; then the revival's decay."""
        if self.config.revive_steps and self.step >= self.config.n_steps:
            left = 1 - (self.step - self.config.n_steps) / self.config.revive_steps
            return self.config.learning_rate * self.config.revive_rate * left
        done = (self.step + 1) / self.config.n_steps
        rise = done / self.config.warm_up if self.config.warm_up else 1.0
        fall = (1 - done) / self.config.decay if self.config.decay else 1.0
        return self.config.learning_rate * max(min(1.0, rise, fall), 0.0)

    def revive(self, batch: Tensor) -> None:
        """Restart each dead feature on one badly reconstructed token of the batch, drawn by its squared error.

        With the token's error e, u = e / |e| and xc = x - b_dec: decoder row u, encoder a u and bias -a <u, xc> / 2 with
        a = 2 |e| / <u, xc>, so that the feature gives the token exactly its error and fires on what is more than half as
        much like it. After the resampling of Bricken et al. 2023 (Towards Monosemanticity); Adam's moments restart too.
        """
        import torch

        from workbench.saes import fused

        dead = (self.silent > self.config.dead_after_tokens).nonzero().squeeze(1)
        with torch.no_grad():
            centred = batch - self.sae.b_dec
            pre = centred @ self.sae.W_enc + self.sae.b_enc
            codes = pre * (pre > fused.batch_threshold(pre, self.config.k, len(pre)))
            error = centred - codes @ self.sae.W_dec
            along = (error * centred).sum(1) / error.norm(dim=1)
            weight = (error.square().sum(1) * (along > 0)).cpu()
            count = min(len(dead), int((weight > 0).sum()))
            if count == 0:
                return
            seed = generator(derive_seed(self.config.seed, "revive"))
            chosen = torch.multinomial(weight.double(), count, generator=seed).to(self.device)
            dead, error, along = dead[:count], error[chosen], along[chosen]
            size = error.norm(dim=1, keepdim=True)
            gain = 2 * size.squeeze(1) / along
            self.sae.W_dec[dead] = error / size
            self.sae.W_enc[:, dead] = (error / size * gain[:, None]).T
            self.sae.b_enc[dead] = -gain * along / 2
            for parameter, index in ((self.sae.W_dec, 0), (self.sae.W_enc, 1), (self.sae.b_enc, 0)):
                for moment in ("exp_avg", "exp_avg_sq"):
                    self.optimizer.state[parameter][moment].index_fill_(index, dead, 0.0)
        self.silent[dead] = 0

    def update(self, result: Any, batch: Tensor) -> None:
        import torch

        from workbench.saes import fused

        if not math.isfinite(result.loss):
            raise WorkbenchError(
                f"the training loss became {result.loss} at step {self.step}",
                "a finite loss",
                f"lower training.learning_rate; the last checkpoint in {self.folder} is intact",
            )
        fused.project_and_normalise(self.sae)
        torch.nn.utils.clip_grad_norm_(self.sae.parameters(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        self.optimizer.step()
        fused.renormalise(self.sae)
        self.silent += len(batch)
        self.silent[result.fired] = 0
        self.threshold = (
            result.threshold if self.step == 0 else 0.99 * self.threshold + 0.01 * result.threshold
        )
        self.step += 1
        if self.step % self.config.log_every == 0:
            self._log(result, batch)

    def _log(self, result: Any, batch: Tensor) -> None:
        variance = float((batch - batch.mean(0)).square().sum(1).mean())
        row = {
            "step": self.step,
            "loss": result.loss,
            "variance_explained": 1 - result.loss / variance,
            "l0": result.l0,
            "dead_share": float((self.silent > self.config.dead_after_tokens).float().mean()),
            "threshold": self.threshold,
            "learning_rate": self.rate(),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def checkpoint(self) -> None:
        """Weights and optimiser state in one safetensors file; the JSON beside it, written last, commits them."""
        from workbench.base.tensors import save_tensors

        tensors = {name: value.detach().cpu() for name, value in self.sae.named_parameters()}
        for name, parameter in self.sae.named_parameters():
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"adam.{name}.{key}"] = value.detach().cpu().clone()
        tensors["silent"] = self.silent.cpu()
        name = f"checkpoint-{self.step:07d}.safetensors"
        save_tensors(self.folder / name, tensors)
        write_json(
            self.folder / "checkpoint.json",
            {
                "key": self.key,
                "file": name,
                "step": self.step,
                "threshold": self.threshold,
                "scale": self.scale,
            },
        )
        for old in self.folder.glob("checkpoint-*.safetensors"):
            if old.name != name:
                old.unlink()

    def _resume(self) -> None:
        import torch

        from workbench.base.tensors import load_tensors

        document = read_json(self.folder / "checkpoint.json")
        if document["key"] != self.key:
            raise WorkbenchError(
                f"{self.folder} holds a checkpoint of another config or other data",
                "the same config and activation store, or an empty folder",
                "choose another --out folder or delete the checkpoint",
            )
        tensors = load_tensors(self.folder / document["file"])
        with torch.no_grad():
            for name, parameter in self.sae.named_parameters():
                parameter.copy_(tensors[name])
                prefix = f"adam.{name}."
                state = {
                    k.removeprefix(prefix): v.clone() for k, v in tensors.items() if k.startswith(prefix)
                }
                if state:
                    self.optimizer.state[parameter] = {
                        k: v if k == "step" else v.to(self.device) for k, v in state.items()
                    }
        self.silent = tensors["silent"].to(self.device)
        self.step, self.threshold, self.scale = document["step"], document["threshold"], document["scale"]

    def finished(self) -> SparseAutoencoder:
        """The trained SAE on raw activations: h = (scaled SAE) / scale, so b_dec, b_enc, codes and threshold are divided."""
        import torch

        hook = HookPoint.parse(self.store.manifest["hook"])
        model = self.store.manifest["model"]
        with torch.no_grad():
            return SparseAutoencoder(
                id=f"{model['name']}/{hook}",
                hook=hook,
                model_name=model["name"],
                architecture="jumprelu",
                encoder=self.sae.W_enc.detach().clone(),
                encoder_bias=self.sae.b_enc.detach() / self.scale,
                decoder_directions=self.sae.W_dec.detach().clone(),
                decoder_bias=self.sae.b_dec.detach() / self.scale,
                threshold=torch.full_like(self.sae.b_enc, self.threshold / self.scale),
                weights_hash="",
            )


def _first_scale(centred: Tensor, atoms: Tensor, k: float) -> float:
    """The factor a that minimises |a (codes atoms) - centred|^2, for codes = the pre-activations above the batch threshold."""
    from workbench.saes import fused

    pre = centred @ atoms.T
    codes = pre * (pre > fused.batch_threshold(pre, k, len(pre)))
    guess = codes @ atoms
    return float((guess * centred).sum() / guess.square().sum())

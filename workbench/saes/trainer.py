"""The state of one training run: learning rate, revival of dead features, log, checkpoint and resume."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from workbench.base.errors import WorkbenchError
from workbench.base.randomness import derive_seed, generator
from workbench.base.store import content_hash, read_json, write_json
from workbench.models.hookpoints import HookPoint
from workbench.saes import fused
from workbench.saes.activations import Activations
from workbench.saes.config import TrainingConfig
from workbench.saes.interface import SparseAutoencoder
from workbench.saes.metrics import Metrics
from workbench.saes.parameters import WrittenOut, parameters_for

if TYPE_CHECKING:
    from torch import Tensor

_SHOWN = {"loss": "loss", "l0": "L0", "variance_explained": "variance explained", "dead_share": "dead"}
SCHEMA = 2  # of what a training makes: 2 restarts dead features some at a time
CHECKPOINT = "checkpoint.json"
_CHECKPOINT_KINDS = {"key": str, "file": str, "step": int, "threshold": (int, float)}
REVIVE_EVERY, REVIVED_SHARE = 10, 16
"""Steps between two revivals, and of how many tokens of a batch at most one becomes a feature's new start."""
LEAST_ALONG = 0.8
SAMPLE_TOKENS = 65_536
"""Activations that the scale and the start values are taken from."""


def training_key(data: Activations, config: TrainingConfig, seed: int) -> str:
    """What a trained SAE depends on: config, model, rows, filter, site, and the order of the batches."""
    settings = {key: value for key, value in asdict(config).items() if key not in ("report_to", "checkpoint_every", "log_every")}
    return content_hash([SCHEMA, settings, data.key, data.manifest["hook"], seed])


class Trainer:
    """The mutable state of one training run; `begin` makes one, or takes up the checkpoint in its folder."""

    def __init__(self, data: Activations, config: TrainingConfig, folder: Path, device: str, seed: int) -> None:
        self.data, self.config, self.folder, self.device = data, config, folder, device
        self.key = training_key(data, config, seed)
        self.torn = False
        sample = data.sample(SAMPLE_TOKENS).float().cpu()
        self.scale = math.sqrt(data.d_model) / float(sample.norm(dim=1).mean())
        self.sae = parameters_for(sample * self.scale, config, device)
        self.note = ""  # the latest row of the log, in words
        self.metrics = Metrics(folder, report_to=config.report_to, name=folder.name)
        self.step = 0
        self.silent = torch.zeros(config.d_sae, device=device)
        self.threshold = torch.zeros((), device=device)
        self.loss = torch.zeros((), device=device)
        self.optimizer = torch.optim.Adam(self.sae.parameters(), lr=config.learning_rate, fused=True)

    @classmethod
    def begin(
        cls, data: Activations, config: TrainingConfig, folder: Path, device: str, seed: int | None = None
    ) -> Trainer:
        """A new run, or the one whose checkpoint is in `folder`; that of another config, site, data or order is refused.

        `seed` is that of the order of the batches (default: the config's).
        """
        trainer = cls(data, config, Path(folder), device, config.seed if seed is None else seed)
        for left in trainer.folder.glob(".checkpoint-*.part"):  # by a process that was killed while it wrote
            left.unlink()
        if (trainer.folder / CHECKPOINT).exists():
            trainer._resume()
        trainer.metrics.forget_after(trainer.step)
        return trainer

    @property
    def done(self) -> bool:
        """Whether all steps were made."""
        return self.step >= self.config.total_steps

    def rate(self) -> float:
        """The learning rate of the coming step: linear warm-up, flat, linear decay to zero; then the revival's decay."""
        if self.config.revive_steps and self.step >= self.config.n_steps:
            left = 1 - (self.step - self.config.n_steps) / self.config.revive_steps
            return self.config.learning_rate * self.config.revive_rate * left
        done = (self.step + 1) / self.config.n_steps
        rise = done / self.config.warm_up if self.config.warm_up else 1.0
        fall = (1 - done) / self.config.decay if self.config.decay else 1.0
        return self.config.learning_rate * max(min(1.0, rise, fall), 0.0)

    def train_on(self, activations: Tensor) -> None:
        """One step on raw activations [batch, d_model] of the right device; checkpoints when it is time."""
        self.torn = True  # until the step is whole, nothing of it may be kept
        batch = activations * self.scale
        if self.revives_now():
            self.revive(batch)
        dead = self.dead() if self.step % self.config.aux_every == 0 and self.config.aux_coefficient else None
        self.update(self.sae.set_gradients(batch, dead, self.step), batch)
        self.torn = False
        if self.step % self.config.checkpoint_every == 0 or self.done:
            self.checkpoint()

    def dead(self) -> Tensor:
        """Which features [d_sae] have been silent for `dead_after_tokens`."""
        return self.silent > self.config.dead_after_tokens

    def update(self, result: fused.StepResult, batch: Tensor) -> None:
        """The optimiser's step after the gradients, and what is counted."""
        torch.nn.utils.clip_grad_norm_(self.sae.parameters(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        self.optimizer.step()
        self.sae.after_step()
        self.silent.add_(len(batch)).masked_fill_(result.fired, 0)
        old = self.threshold if self.step else result.threshold.float()
        self.threshold = 0.99 * old + 0.01 * result.threshold.float()
        self.loss = result.loss
        self.step += 1
        if self.step % self.config.log_every == 0 or self.done:
            self._log(result, batch)

    def revives_now(self) -> bool:
        """Whether dead features restart before the coming step: every ten steps of the revival, but for its last third."""
        into = self.step - self.config.n_steps
        return self.config.written_out and 0 <= into < 2 * self.config.revive_steps / 3 and into % REVIVE_EVERY == 0

    def revive(self, batch: Tensor) -> None:
        """Restart dead features on badly reconstructed tokens of the batch, one each, drawn by their squared error.

        At most one for every 16 tokens at a time: thousands at once overshoot together and crowd out what works.

        With the token's error e, u = e / |e| and xc = x - b_dec: decoder row u, encoder a u and bias -a <u, xc> / 2 with
        a = 2 |e| / <u, xc>, so that the feature gives the token exactly its error and fires on what is more than half as
        much like it. Only tokens with <u, xc> >= .8 |e| are drawn, so that a <= 2.5: a steeper feature explodes on others.
        After the resampling of Bricken et al. 2023 (Towards Monosemanticity); their first moments in Adam restart at 0,
        the second at the mean of the other features': at 0 and late in training, its first steps would be several times the rate.
        """
        assert isinstance(self.sae, WrittenOut)
        if self.config.tether:
            return
        sae, dead = self.sae, self.dead().nonzero().squeeze(1)
        with torch.no_grad():
            centred = batch - sae.b_dec
            pre = centred @ sae.W_enc + sae.b_enc
            codes = pre * (pre > fused.batch_threshold(pre, self.config.k, len(pre)))
            error = centred - codes @ sae.W_dec
            along = (error * centred).sum(1) / error.norm(dim=1)
            weight = (error.square().sum(1) * (along >= LEAST_ALONG * error.norm(dim=1))).cpu()
            count = min(len(dead), int((weight > 0).sum()), max(1, len(batch) // REVIVED_SHARE))
            if count == 0:
                return
            seed = generator(derive_seed(self.config.seed, f"revive {self.step}"))
            chosen = torch.multinomial(weight.double(), count, generator=seed).to(self.device)
            dead, error, along = dead[:count], error[chosen], along[chosen]
            size = error.norm(dim=1, keepdim=True)
            gain = 2 * size.squeeze(1) / along
            sae.W_dec[dead] = error / size
            sae.W_enc[:, dead] = (error / size * gain[:, None]).T
            sae.b_enc[dead] = -gain * along / 2
            for parameter, index in ((sae.W_dec, 0), (sae.W_enc, 1), (sae.b_enc, 0)):
                state = self.optimizer.state[parameter]
                living = torch.ones(parameter.shape[index], dtype=torch.bool, device=self.device).index_fill_(0, dead, False)
                usual = state["exp_avg_sq"].index_select(index, living.nonzero()[:, 0]).mean()
                state["exp_avg"].index_fill_(index, dead, 0.0)
                state["exp_avg_sq"].index_fill_(index, dead, float(usual.nan_to_num()))
        self.silent[dead] = 0

    def _log(self, result: fused.StepResult, batch: Tensor) -> None:
        self._check_finite()
        variance = float((batch - batch.mean(0)).square().sum(1).mean())
        row = {
            "step": self.step,
            "loss": float(result.loss),
            "variance_explained": 1 - float(result.loss) / variance,
            "l0": float(result.l0),
            "dead_share": float(self.dead().float().mean()) if self._can_be_dead(len(batch)) else None,
            "threshold": float(self.threshold),
            "learning_rate": self.rate(),
        }
        self.metrics.write(row)
        self.note = ", ".join(f"{name} {row[key]:.3g}" for key, name in _SHOWN.items() if row[key] is not None)

    def _can_be_dead(self, batch_size: int) -> bool:
        """Whether enough tokens were seen for a silent feature to count as dead."""
        return self.step * batch_size > self.config.dead_after_tokens

    def _check_finite(self) -> None:
        finite = all(bool(parameter.isfinite().all()) for parameter in self.sae.parameters())
        if not (finite and math.isfinite(float(self.loss))):
            kept = (self.folder / CHECKPOINT).exists()
            then = f" and delete {self.folder} (its last checkpoint is intact)" if kept else "; no checkpoint was written yet"
            raise WorkbenchError(
                f"the training of {self.folder.name} diverged by step {self.step} (loss {float(self.loss):.3g})",
                "a finite loss and finite weights",
                f"lower training.learning_rate{then}",
            )

    def checkpoint(self) -> None:
        """Weights and optimiser state in one safetensors file; the JSON beside it, written last, commits them."""
        from workbench.base.tensors import save_tensors

        self._check_finite()
        tensors = {name: value.detach().cpu() for name, value in self.sae.named_parameters()}
        for name, parameter in self.sae.named_parameters():
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"adam.{name}.{key}"] = value.detach().cpu().clone()
        tensors["silent"] = self.silent.cpu()
        name = f"checkpoint-{self.step:07d}.safetensors"
        save_tensors(self.folder / name, tensors)
        document = {"key": self.key, "file": name, "step": self.step, "threshold": float(self.threshold)}
        write_json(self.folder / CHECKPOINT, document)
        for old in self.folder.glob("checkpoint-*.safetensors"):
            if old.name != name:
                old.unlink()

    def _resume(self) -> None:
        from workbench.base.tensors import load_tensors

        document = read_json(self.folder / CHECKPOINT)
        kinds = _CHECKPOINT_KINDS.items()
        if not isinstance(document, dict) or not all(isinstance(document.get(name), kind) for name, kind in kinds):
            raise self._damaged(CHECKPOINT, f"holds {str(document)[:80]}", f"a mapping with {', '.join(_CHECKPOINT_KINDS)}")
        if document["key"] != self.key:
            raise WorkbenchError(
                f"{self.folder} holds a checkpoint of another config or other data",
                "the same recipe as before",
                "choose another --out folder, or delete this one to start anew",
            )
        if not (self.folder / document["file"]).is_file():
            raise self._damaged(document["file"], f"is missing, and {CHECKPOINT} names it", "the tensors of a checkpoint")
        tensors = load_tensors(self.folder / document["file"])
        shapes = {name: parameter.shape for name, parameter in self.sae.named_parameters()} | {"silent": self.silent.shape}
        if wrong := [name for name, shape in shapes.items() if name not in tensors or tensors[name].shape != shape]:
            raise self._damaged(document["file"], f"lacks {', '.join(wrong)} in the right shape", "the tensors of a checkpoint")
        self.step = document["step"]
        self.threshold = torch.tensor(document["threshold"], device=self.device)
        self.silent = tensors["silent"].to(self.device)
        with torch.no_grad():
            for name, parameter in self.sae.named_parameters():
                parameter.copy_(tensors[name])
                state = {key: tensors.get(f"adam.{name}.{key}") for key in ("step", "exp_avg", "exp_avg_sq")}
                self.optimizer.state[parameter] = {
                    key: value.to(self.device) for key, value in state.items() if value is not None
                }

    def _damaged(self, name: str, found: str, expected: str) -> WorkbenchError:
        return WorkbenchError(f"{self.folder / name} {found}", expected, f"delete {self.folder} to train this SAE anew")

    def finished(self) -> SparseAutoencoder:
        """The trained SAE on raw activations, named after its model and hook point."""
        manifest: dict[str, Any] = self.data.manifest
        hook, model = HookPoint.parse(manifest["hook"]), manifest["model"]["name"]
        sae = self.sae.finished(self.scale, float(self.threshold))
        return replace(sae, id=f"{model}/{hook}", hook=hook, model_name=model)

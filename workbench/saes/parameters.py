"""What is trained: the parameters of an SAE, how they get their gradients, and the finished SAE made of them.

Two kinds with the same three methods. `WrittenOut` is the topk family: gradients from `fused`, on torch alone.
`Penalised` is SAELens' own training class under its autograd. Both work on scaled activations and finish on raw ones.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from workbench.base.errors import WorkbenchError
from workbench.base.randomness import derive_seed, generator
from workbench.models.hookpoints import HookPoint
from workbench.saes import fused
from workbench.saes.config import TrainingConfig
from workbench.saes.interface import SparseAutoencoder


class WrittenOut(nn.Module):
    """W_enc [d_model, d_sae], b_enc [d_sae], W_dec [d_sae, d_model] (unit rows), b_dec [d_model], float32."""

    def __init__(self, sample: Tensor, config: TrainingConfig, device: str) -> None:
        """Start from a sample [n, d_model] of scaled activations.

        b_dec = their mean; decoder rows = centred activations with noise, or random directions; encoder = their
        transpose, scaled so that the first reconstruction is the best one that a factor can make it: atoms taken from
        data are correlated, and at scale 1 their sum overshoots by several times.
        """
        super().__init__()
        self.config = config
        mean = sample.mean(0)
        atoms = _atoms(sample - mean, config).to(device)
        centred = (sample - mean)[:2048].to(device)
        self.W_enc = nn.Parameter((atoms.T * _first_scale(centred, atoms, config.k)).contiguous())
        self.b_enc = nn.Parameter(torch.zeros(config.d_sae, device=device))
        self.W_dec = nn.Parameter(atoms.clone())
        self.b_dec = nn.Parameter(mean.to(device))
        self.register_buffer("start", atoms.clone() if config.tether else None)

    def set_gradients(self, x: Tensor, dead: Tensor | None, step: int) -> fused.StepResult:
        """One batch's gradients."""
        config = self.config
        result = fused.set_gradients(
            self, x, config.k, per_token=config.architecture == "topk", bounds=config.bounds,
            precision=getattr(torch, config.precision), dead=dead, aux_coefficient=config.aux_coefficient,
        )  # fmt: skip
        fused.project_gradient(self)
        return result

    def after_step(self) -> None:
        """Unit decoder rows, near their start where they are tethered."""
        fused.renormalise(self)
        if self.config.tether:
            fused.hold_near(self, self.get_buffer("start"), self.config.tether)

    def finished(self, scale: float, threshold: float) -> SparseAutoencoder:
        """On raw activations: h = (scaled SAE) / scale, so biases, codes and threshold are divided."""
        topk = self.config.architecture == "topk"
        with torch.no_grad():
            return SparseAutoencoder(
                id="", hook=HookPoint(0), model_name="", weights_hash="",
                architecture="topk" if topk else "jumprelu", k=int(self.config.k) if topk else None,
                encoder=self.W_enc.detach().clone(), encoder_bias=self.b_enc.detach() / scale,
                decoder_directions=self.W_dec.detach().clone(), decoder_bias=self.b_dec.detach() / scale,
                threshold=None if topk else torch.full_like(self.b_enc.detach(), threshold / scale),
            )  # fmt: skip


def _atoms(centred: Tensor, config: TrainingConfig) -> Tensor:
    """Start rows [d_sae, d_model] of unit norm.

    Seeds take different activations of the sample [n, d_model] as long as it has enough, those from n / d_sae on what a
    permutation of their own gives: two SAEs that started from the same ones would have features in common that neither
    learned.
    """
    seed = generator(derive_seed(config.seed, "noise"))
    noise = torch.randn(config.d_sae, centred.shape[1], generator=seed) / math.sqrt(centred.shape[1])
    if config.start == "data":
        atoms = centred[_own_places(len(centred), config)]
        noise = atoms / atoms.norm(dim=1, keepdim=True) + 0.5 * noise
    return noise / noise.norm(dim=1, keepdim=True)


def _own_places(n: int, config: TrainingConfig) -> Tensor:
    """Which of n activations [d_sae] a seed starts from: its slice of one permutation, as far as that goes, then the rest in
    an order of its own; all of them again where d_sae is larger than n."""
    first = min(config.seed * config.d_sae, n) if config.seed >= 0 else n
    own = torch.randperm(n, generator=generator(derive_seed("atoms")))[first : first + config.d_sae]
    others = torch.randperm(n, generator=generator(derive_seed("atoms", config.seed)))
    places = torch.cat([own, others[~torch.isin(others, own)]])
    return places[torch.arange(config.d_sae) % n]


def _first_scale(centred: Tensor, atoms: Tensor, k: float) -> float:
    """The factor a that minimises |a (codes atoms) - centred|^2, for codes = the pre-activations above the batch threshold."""
    pre = centred @ atoms.T
    codes = pre * (pre > fused.batch_threshold(pre, k, len(pre)))
    guess = codes @ atoms
    return float((guess * centred).sum() / guess.square().sum())


class Penalised(nn.Module):
    """SAELens' standard, gated or jumprelu training SAE, with its loss and its start values."""

    def __init__(self, sample: Tensor, config: TrainingConfig, device: str) -> None:
        super().__init__()
        try:
            from sae_lens.registry import get_sae_training_class
        except ImportError as error:
            raise WorkbenchError(
                f"training.architecture {config.architecture} needs SAELens, which is not installed",
                "sae-lens, or one of batchtopk, topk, matryoshka_batchtopk",
                "pip install sae-lens, or change the architecture",
            ) from error
        self.config = config
        kind, settings = get_sae_training_class(config.architecture)
        warm_up = int(config.sparsity_warm_up * config.n_steps)
        name = "l0" if config.architecture == "jumprelu" else "l1"
        options = {f"{name}_coefficient": config.sparsity_coefficient, f"{name}_warm_up_steps": warm_up}
        with torch.random.fork_rng():  # SAELens draws start values from the global generator; all are replaced below
            self.sae = kind(settings(d_in=sample.shape[1], d_sae=config.d_sae, device=device, **options))
        rows = torch.randn(self.sae.W_dec.shape, generator=generator(derive_seed(config.seed, "start")))
        rows = rows / rows.norm(dim=1, keepdim=True) * self.sae.cfg.decoder_init_norm
        with torch.no_grad():
            self.sae.b_dec.copy_(sample.mean(0))
            self.sae.W_dec.copy_(rows)
            self.sae.W_enc.copy_(rows.T)

    def set_gradients(self, x: Tensor, dead: Tensor | None, step: int) -> fused.StepResult:
        """One batch's gradients, from SAELens' loss under its autograd."""
        from sae_lens.saes.sae import TrainStepInput

        self.zero_grad()
        wanted: dict[str, Any] = self.sae.get_coefficients()
        coefficients = {
            name: one.value * min(1.0, (step + 1) / max(1, one.warm_up_steps)) for name, one in wanted.items()
        }
        precision = getattr(torch, self.config.precision)
        with torch.autocast(x.device.type, precision, enabled=precision != torch.float32):
            output = self.sae.training_forward_pass(
                TrainStepInput(
                    sae_in=x, coefficients=coefficients, dead_neuron_mask=dead, n_training_steps=step, is_logging_step=False
                )
            )
        output.loss.backward()
        active = output.feature_acts.detach() > 0
        loss = (output.sae_out - x).detach().float().square().sum(1).mean()
        return fused.StepResult(loss, active.sum() / len(x), loss.new_zeros(()), active.any(0))

    def after_step(self) -> None:
        """Nothing: the loss minds the decoder norms."""

    def finished(self, scale: float, threshold: float) -> SparseAutoencoder:
        """The inference SAE that SAELens saves, with the scale folded and unit decoder rows."""
        import copy

        from workbench.saes.registry import load_sae

        sae = copy.deepcopy(self.sae)
        sae.fold_activation_norm_scaling_factor(scale)
        sae.fold_W_dec_norm()
        with tempfile.TemporaryDirectory() as folder:
            sae.cfg.metadata.hook_name = "blocks.0.hook_resid_post"
            sae.save_inference_model(folder)
            return replace(load_sae(Path(folder)), folder=None, weights_hash="")


Parameters = WrittenOut | Penalised


def parameters_for(sample: Tensor, config: TrainingConfig, device: str) -> Parameters:
    """The parameters of a new SAE, from a sample [n, d_model] of scaled activations."""
    kind: Any = WrittenOut if config.written_out else Penalised
    return kind(sample, config, device)

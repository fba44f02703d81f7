"""Exact rewritings of SAEs: gates, decoder norms and fixed affine maps of the input, folded into the weights.

Tensors in, tensors out. Every function returns weights whose reconstruction on raw activations is what the original
gave with its own preprocessing. Scalings and norms that depend on the token (layer norm, unit norm) cannot be folded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from workbench.base.display import Shown

SMALLEST_NORM = 1e-8


@dataclass(frozen=True, eq=False, repr=False)
class Weights(Shown):
    """The tensors of an SAE in our shapes: `encoder` [d_model, d_sae], `decoder` [d_sae, d_model], `threshold` [d_sae]."""

    encoder: Tensor
    encoder_bias: Tensor
    decoder: Tensor
    decoder_bias: Tensor
    threshold: Tensor | None = None

    def double(self) -> Weights:
        """The same in float64, in which folds are computed."""
        return self._each(lambda tensor: tensor.double())

    def single(self) -> Weights:
        """The same in float32, contiguous."""
        return self._each(lambda tensor: tensor.float().contiguous())

    def _each(self, change: Any) -> Weights:
        return replace(self, **{k: change(v) for k, v in vars(self).items() if v is not None})


def gated_as_jumprelu(
    encoder: Tensor, gate_bias: Tensor, magnitude_bias: Tensor, log_magnitude: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(encoder, encoder bias, threshold) of the JumpReLU SAE that equals a gated one with tied encoders.

    Gated: 1[x W + b_gate > 0] relu(exp(r) x W + b_mag). With p = exp(r) x W + b_mag the gate is open exactly where
    p > b_mag - exp(r) b_gate: a jump at that threshold (Rajamanoharan et al. 2024, arXiv 2404.16014, section 3.2).
    """
    gain = log_magnitude.exp()
    return encoder * gain, magnitude_bias, magnitude_bias - gain * gate_bias


def fold_decoder_norms(weights: Weights) -> Weights:
    """Unit decoder rows, with codes multiplied by the norms: what `rescale_acts_by_decoder_norm` does at run time.

    A threshold stays: it is in units of the rescaled codes.
    """
    norms = weights.decoder.norm(dim=1).clamp(min=SMALLEST_NORM)
    return replace(
        weights,
        encoder=weights.encoder * norms,
        encoder_bias=weights.encoder_bias * norms,
        decoder=weights.decoder / norms[:, None],
    )


def fold_input_scale(weights: Weights, factor: float) -> Weights:
    """For an SAE that was trained on `factor` * x: the one that reads x and gives the same codes."""
    return replace(
        weights,
        encoder=weights.encoder * factor,
        decoder=weights.decoder / factor,
        decoder_bias=weights.decoder_bias / factor,
    )


def fold_whitening(
    weights: Weights, mean: Tensor, matrix: Tensor, inverse: Tensor, *, subtracts_bias: bool
) -> Weights:
    """For an SAE trained on (x - mean) @ matrix: the one that reads x, gives the same codes and reconstructs x."""
    encoder = matrix @ weights.encoder
    shift = 0.0 if subtracts_bias else mean @ encoder  # else the folded decoder bias subtracts the mean already
    return replace(
        weights,
        encoder=encoder,
        encoder_bias=weights.encoder_bias - shift,
        decoder=weights.decoder @ inverse,
        decoder_bias=weights.decoder_bias @ inverse + mean,
    )

"""The sparse autoencoder (SAE) as the rest of the workbench sees it: encode, decode, and what it was trained on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.display import Shown
from workbench.models.hookpoints import HookPoint

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False, repr=False)
class SparseAutoencoder(Shown):
    """An SAE at one hook point: h = encode(h) @ decoder_directions + decoder_bias + error, on raw activations.

    Shapes: `encoder` [d_model, d_sae], `encoder_bias` [d_sae], `decoder_directions` [d_sae, d_model] (rows need not be
    unit norm), `decoder_bias` [d_model], `threshold` [d_sae] (jumprelu only); all float32 on `device`.
    Pre-activations are (h - decoder_bias if `subtract_bias`) @ encoder + encoder_bias. "jumprelu" keeps those above the
    threshold, "topk" the `k` largest positive ones, "standard" the positive ones; gated and batch top-k SAEs are read as
    the jumprelu ones that equal them (formats/). `card` holds the measured fitness
    (variance_explained, l0, ce_recovered, dead_share); `density` [d_sae] the share of corpus tokens a feature fires on.
    """

    id: str
    hook: HookPoint
    model_name: str
    architecture: str
    encoder: Tensor
    encoder_bias: Tensor
    decoder_directions: Tensor
    decoder_bias: Tensor
    weights_hash: str
    threshold: Tensor | None = None
    k: int | None = None
    subtract_bias: bool = True
    density: Tensor | None = None
    card: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def d_model(self) -> int:
        return self.decoder_directions.shape[1]

    @property
    def d_sae(self) -> int:
        return self.decoder_directions.shape[0]

    @property
    def device(self) -> Any:
        return self.decoder_directions.device

    def pre_activations(self, x: Tensor) -> Tensor:
        """x [..., d_model] -> [..., d_sae] before the activation function."""
        x = x.to(self.device, self.encoder.dtype)
        return (x - self.decoder_bias if self.subtract_bias else x) @ self.encoder + self.encoder_bias

    def encode(self, x: Tensor) -> Tensor:
        """Feature activations (codes), non-negative: x [..., d_model] -> [..., d_sae]."""
        return self.activate(self.pre_activations(x))

    def activate(self, pre: Tensor) -> Tensor:
        """The codes of pre-activations [..., d_sae]."""
        import torch

        if self.architecture == "jumprelu":
            assert self.threshold is not None
            # `pre` where above the threshold, else 0, in two vectorised passes; a comparison and `where` take longer.
            return torch.ops.aten.threshold_backward(pre, pre - self.threshold.clamp_min(0), 0)
        if self.architecture == "topk":
            assert self.k is not None
            values, indices = pre.topk(self.k, dim=-1, sorted=False)
            return torch.zeros_like(pre).scatter_(-1, indices, values.relu())
        return pre.relu()

    def decode(self, codes: Tensor) -> Tensor:
        """Reconstruction: codes [..., d_sae] -> [..., d_model]."""
        return codes @ self.decoder_directions + self.decoder_bias

    def to(self, device: Any) -> SparseAutoencoder:
        """The same SAE with its tensors on another device."""
        from dataclasses import replace

        import torch

        moved = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, torch.Tensor)}
        return replace(self, **moved)

    def description(self) -> dict[str, Any]:
        """Identity and fitness, for provenance."""
        return {
            "id": self.id,
            "hook": str(self.hook),
            "model": self.model_name,
            "architecture": self.architecture,
            "d_model": self.d_model,
            "d_sae": self.d_sae,
            "weights_hash": self.weights_hash,
            "card": self.card,
        }

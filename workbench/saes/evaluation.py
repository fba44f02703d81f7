"""How well an SAE fits its model and site: variance explained, L0, dead features, and the loss with the SAE spliced in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from workbench.base.progress import track
from workbench.saes.activations import SINK_RATIO, TokenRow, _padded, activations_at
from workbench.saes.interface import SparseAutoencoder

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.models.loading import Model


@dataclass(frozen=True)
class Fitness:
    """One token set's figures; all over tokens that are neither position 0 nor norm sinks.

    `variance_explained` = 1 - sum |h - h_hat|^2 / sum |h - mean h|^2. `ce_*` in nats per predicted token: `ce_clean`
    without intervention, `ce_sae` with h replaced by its reconstruction, `ce_zero` with h replaced by 0;
    `ce_recovered` = (ce_zero - ce_sae) / (ce_zero - ce_clean); `kl` of the clean from the spliced distribution.
    """

    n_tokens: int
    variance_explained: float
    l0: float
    cosine: float
    norm_ratio: float
    ce_clean: float
    ce_sae: float
    ce_zero: float
    ce_recovered: float
    kl: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def evaluate(
    sae: SparseAutoencoder,
    model: Model,
    rows: Sequence[TokenRow],
    *,
    batch_tokens: int = 2048,
    label: str = "Evaluating the SAE",
) -> Fitness:
    """Fitness of the SAE on the rows' tokens; the same tokens are replaced in the spliced and the zeroed runs."""
    sums = _Sums(sae.d_model)
    limit = SINK_RATIO * float(model.norm_medians([sae.hook])[0])
    with track(label, total=sum(len(r.ids) for r in rows), unit="tokens") as step:
        for ids, mask, _ in _padded(list(rows), batch_tokens):
            _one_batch(sae, model, ids, mask, limit, sums)
            step(int(mask.sum()))
    return sums.fitness()


def _one_batch(
    sae: SparseAutoencoder, model: Model, ids: Tensor, mask: Tensor, limit: float, sums: _Sums
) -> None:
    import torch

    seen: dict[str, Tensor] = {}

    def splice(acts: Tensor) -> Tensor:
        """First call's batch holds three copies of the rows: clean, reconstructed, zeroed."""
        clean, spliced, zeroed = acts.chunk(3)
        keep = mask.bool().to(acts.device).clone()
        keep[:, 0] = False
        keep &= clean.float().norm(dim=-1) <= limit
        flat = clean[keep].float()
        codes = sae.encode(flat)
        reconstruction = sae.decode(codes)
        seen.update(keep=keep, h=flat, r=reconstruction, l0=(codes > 0).sum(1))
        spliced, zeroed = spliced.clone(), zeroed.clone()
        spliced[keep] = reconstruction.to(acts.dtype)
        zeroed[keep] = 0.0
        return torch.cat([clean, spliced, zeroed])

    with torch.inference_mode(), model.hooked({sae.hook: splice}):
        logits = model.forward(ids.repeat(3, 1), mask.repeat(3, 1))
    assert logits is not None  # nothing stopped the pass
    sums.add_activations(seen["h"], seen["r"], seen["l0"])
    sums.add_logits(logits, ids, mask)


class _Sums:
    """Running sums in float64."""

    def __init__(self, d_model: int) -> None:
        import torch

        self.n = 0
        self.n_predictions = 0
        self.total = torch.zeros(d_model, dtype=torch.float64)
        self.square = self.error = self.l0 = self.cosine = self.ratio = 0.0
        self.ce = [0.0, 0.0, 0.0]
        self.kl = 0.0

    def add_activations(self, h: Tensor, r: Tensor, l0: Tensor) -> None:
        import torch

        h, r = h.double().cpu(), r.double().cpu()
        self.n += len(h)
        self.total += h.sum(0)
        self.square += float(h.square().sum())
        self.error += float((h - r).square().sum())
        self.l0 += float(l0.sum())
        self.cosine += float(torch.nn.functional.cosine_similarity(h, r, dim=1).sum())
        self.ratio += float((r.norm(dim=1) / h.norm(dim=1)).sum())

    def add_logits(self, logits: Tensor, ids: Tensor, mask: Tensor) -> None:
        import torch

        targets = ids[:, 1:].to(logits.device)
        weight = mask[:, 1:].bool().to(logits.device)
        for row, (clean, spliced, zeroed) in enumerate(zip(*logits.chunk(3), strict=True)):
            keep = weight[row]
            parts = [part[:-1][keep].float().log_softmax(-1) for part in (clean, spliced, zeroed)]
            target = targets[row][keep].unsqueeze(1)
            for index, part in enumerate(parts):
                self.ce[index] -= float(part.gather(1, target).sum())
            self.kl += float((parts[0].exp() * (parts[0] - parts[1])).sum(-1).sum())
            self.n_predictions += int(keep.sum())
            del parts
        del torch

    def fitness(self) -> Fitness:
        variance = self.square - float(self.total.square().sum()) / self.n
        clean, spliced, zeroed = (value / self.n_predictions for value in self.ce)
        return Fitness(
            n_tokens=self.n,
            variance_explained=1 - self.error / variance,
            l0=self.l0 / self.n,
            cosine=self.cosine / self.n,
            norm_ratio=self.ratio / self.n,
            ce_clean=clean,
            ce_sae=spliced,
            ce_zero=zeroed,
            ce_recovered=(zeroed - spliced) / (zeroed - clean),
            kl=self.kl / self.n_predictions,
        )


def density(sae: SparseAutoencoder, activations: Sequence[Tensor]) -> Tensor:
    """Share of tokens on which each feature fires [d_sae], over the given [n, d_model] tensors."""
    import torch

    count = torch.zeros(sae.d_sae)
    total = 0
    for part in activations:
        for piece in part.split(4096):
            count += (sae.encode(piece.float()) > 0).sum(0).float().cpu()
            total += len(piece)
    return count / max(total, 1)


__all__ = ["Fitness", "activations_at", "density", "evaluate"]

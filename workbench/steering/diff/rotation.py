"""Did features turn? A short fine-tune of the SAE on the new model's activations, against the same one on the old model's.

The two trainings start from the same weights, see the same texts in the same order and differ in the model that read them. A
decoder direction that turns further than nearly all do under the old model's activations means something else in the new model.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.store import content_hash
from workbench.decomposition.methods import decoder_of, encode
from workbench.maths.geometry import reciprocal
from workbench.models.capture import sink_limits
from workbench.saes.activations import HeldActivations
from workbench.saes.config import TrainingConfig
from workbench.saes.parameters import WrittenOut
from workbench.saes.token_rows import TokenRow, activations_at, padded_rows
from workbench.saes.trainer import Trainer

if TYPE_CHECKING:
    from workbench.labeling.labels import LabelSet
    from workbench.models.model import Model
    from workbench.saes.interface import SparseAutoencoder

BATCH_TOKENS = 2048
N_LISTED = 20


@dataclass(frozen=True)
class TurnedFeature:
    """A feature, the cosine of its decoder direction with the start after the fine-tune on the new model's activations (`cosine`)
    and on the old model's (`control_cosine`), on how many of the tokens it fires (new model), and its label."""

    feature: int
    cosine: float
    control_cosine: float
    n_tokens: int
    label: str = ""


@dataclass(frozen=True, repr=False)
class Rotation(Shown):
    """`turned` of the `n_features` features that fire in the new model have an angle above `limit` (degrees), the 95% point of
    the control's angles; by chance 5%. `share` = turned / n_features. `again_share` is the same for a second control (old
    activations, another order of the batches): how far chance alone goes. `features`: those that turned furthest."""

    sae: str
    n_features: int
    turned: int
    share: float
    again_share: float
    limit: float
    median_angle: float
    control_median_angle: float
    features: tuple[TurnedFeature, ...]
    n_tokens: int
    n_steps: int


@dataclass(frozen=True)
class RotationOptions:
    """The short fine-tune of the SAE."""

    n_steps: int = 60
    """Steps."""
    batch_size: int = 512
    """Tokens per step."""
    learning_rate: float = 3e-4
    """Adam, at its highest."""
    seed: int = 0
    """Of the order of the batches."""


def token_activations(model: Model, sae: SparseAutoencoder, rows: Sequence[TokenRow]) -> Tensor:
    """The activations `[n, d_model]` (float32) of `rows` at the SAE's hook: no position 0, no padding; sinks as NaN rows, so that
    two models' tokens can be matched."""
    limit = float(sink_limits(model, [sae.hook])[0])
    found = []
    for ids, mask, _ in padded_rows(rows, BATCH_TOKENS):
        acts = activations_at(model, sae.hook, ids, mask).float().cpu()
        inside = mask.bool()
        inside[:, 0] = False
        kept = acts[inside]
        found.append(torch.where(kept.norm(dim=1, keepdim=True) <= limit, kept, torch.full_like(kept, torch.nan)))
    return torch.cat(found)


def rotation(
    before: Tensor, after: Tensor, sae: SparseAutoencoder, *, options: RotationOptions | None = None,
    labels: LabelSet | None = None,
) -> Rotation:  # fmt: skip
    """How far each decoder direction turns on the activations of the model after, against the model before.

    before, after: `[n, d_model]` activations of the same tokens at the SAE's hook (`token_activations`); tokens that are a sink
    in either (NaN) are left out. Raises WorkbenchError for an SAE of an architecture outside the topk family (jumprelu ones count
    among it: batchtopk is saved so), or fewer tokens than one batch.
    """
    options = options or RotationOptions()
    before, after = _checked(before, after, sae, options.batch_size)
    start = decoder_of(sae)
    per_token = float((encode(sae, before[:4096]) > 0).float().sum(dim=1).mean())
    fires = torch.stack([(encode(sae, part) > 0).sum(dim=0).cpu() for part in after.split(4096)]).sum(dim=0)
    new = _angles(start, tuned(sae, after, per_token, options))
    control = _angles(start, tuned(sae, before, per_token, options))
    again = _angles(start, tuned(sae, before, per_token, options, again=True))
    active = (fires > 0).nonzero()[:, 0]
    limit = float(control[active].quantile(0.95))
    beyond = active[new[active] > limit]
    furthest = beyond[(new - control)[beyond].argsort(descending=True)][:N_LISTED].tolist()

    def row(j: int) -> TurnedFeature:
        label = labels.get(j) if labels is not None else None
        cosine, control_cosine = (float(torch.deg2rad(angles[j]).cos()) for angles in (new, control))
        return TurnedFeature(j, cosine, control_cosine, int(fires[j]), label.label if label else "")

    n = len(active)
    return Rotation(sae.id, n, len(beyond), len(beyond) / n, float((again[active] > limit).float().mean()), limit,
                    float(new[active].median()), float(control[active].median()), tuple(map(row, furthest)), len(after),
                    options.n_steps)  # fmt: skip


def tuned(sae: SparseAutoencoder, tokens: Tensor, per_token: float, options: RotationOptions, *, again: bool = False) -> Tensor:
    """The decoder directions `[d_sae, d_model]` (unit rows) after a short BatchTopK training on `tokens` from the SAE's own
    weights; `again`: with another order of the batches."""
    config = TrainingConfig(
        d_sae=sae.d_sae, k=per_token, batch_size=options.batch_size, n_steps=options.n_steps, learning_rate=options.learning_rate,
        aux_coefficient=0.0, start="random", seed=options.seed, checkpoint_every=10**9, log_every=10**9,
    )  # fmt: skip
    manifest = {"key": content_hash([sae.weights_hash, len(tokens)]), "hook": str(sae.hook), "d_model": sae.d_model,
                "model": {"name": sae.model_name}}  # fmt: skip
    data = HeldActivations([(tokens, torch.ones(len(tokens), dtype=torch.bool))], manifest)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(data, config, Path(folder), "cpu", options.seed)
        _start_from(trainer, sae)
        batches = data.batches(options.batch_size, seed=options.seed + int(again))
        for _ in range(options.n_steps):
            trainer.train_on(next(batches))
        trainer.metrics.close()
        return trainer.finished().decoder_directions


def _start_from(trainer: Trainer, sae: SparseAutoencoder) -> None:
    """The trainer's parameters become the SAE's: unit decoder rows, its lengths in the encoder, biases in the trainer's scale."""
    parameters, lengths = trainer.sae, decoder_of(sae).norm(dim=1)
    assert isinstance(parameters, WrittenOut)
    bias = sae.encoder_bias if sae.subtract_bias else sae.encoder_bias + sae.decoder_bias @ sae.encoder
    with torch.no_grad():
        parameters.W_dec.copy_(decoder_of(sae) * reciprocal(lengths)[:, None])
        parameters.W_enc.copy_(sae.encoder.cpu() * lengths)
        parameters.b_enc.copy_(bias.cpu() * lengths * trainer.scale)
        parameters.b_dec.copy_(sae.decoder_bias.cpu() * trainer.scale)


def _checked(before: Tensor, after: Tensor, sae: SparseAutoencoder, batch_size: int) -> tuple[Tensor, Tensor]:
    if before.shape != after.shape or before.ndim != 2 or before.shape[1] != sae.d_model:
        raise WorkbenchError(
            f"activations of shapes {tuple(before.shape)} and {tuple(after.shape)}",
            f"the same tokens twice, [n, {sae.d_model}]", "read both with the same rows",
        )  # fmt: skip
    if sae.architecture not in ("jumprelu", "topk"):
        raise WorkbenchError(f"{sae.id} is a {sae.architecture} SAE", "one of the topk family (batchtopk, topk)",
                             "choose another SAE of the site")  # fmt: skip
    same = before.isfinite().all(dim=1) & after.isfinite().all(dim=1)
    if int(same.sum()) < batch_size:
        raise WorkbenchError(f"{int(same.sum())} tokens", f"at least one batch of {batch_size}", "give more text")
    return before[same], after[same]


def _angles(start: Tensor, turned: Tensor) -> Tensor:
    """Degrees between the rows `[d_sae]`."""
    unit = torch.nn.functional.normalize
    cosines = (unit(start.double(), dim=1) * unit(turned.double(), dim=1)).sum(dim=1)
    return torch.rad2deg(cosines.clamp(-1, 1).arccos())

"""The monitor: what is read of every token, as one small matrix per hook point, and the alarms that were calibrated on it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError, unknown_name
from workbench.base.provenance import provenance
from workbench.base.tensors import load_artifact, save_artifact, tensor_hash
from workbench.base.untrusted import refuses_damage
from workbench.models.hookpoints import HookPoint
from workbench.models.model import Model
from workbench.models.norms import SINK_FACTOR
from workbench.steering.monitor.alarms import Alarm, alarm_from

if TYPE_CHECKING:
    from workbench.personas.vectors import PersonaVector
    from workbench.saes.interface import SparseAutoencoder
    from workbench.steering.monitor.watching import Watch

KIND, SCHEMA = "monitor", 1


@dataclass(frozen=True)
class Signal:
    """One number per token: the projection on a persona vector, or the activation of an SAE feature."""

    name: str
    kind: Literal["vector", "feature"]
    hook: HookPoint


@dataclass(frozen=True, eq=False, repr=False)
class Monitor(Shown):
    """What is read of the residual stream h [d_model] of a token, at the hook of each signal.

        value = <h, readout> + offset,  set to 0 where it does not exceed the gate

    A vector's readout is its unit direction (offset 0, no gate): the value is the coordinate of h along it, in units of the
    residual stream, positive toward the trait. A feature's readout is its encoder column: the value is exactly its activation.
    `norms` {hook: median norm of a token there} turn projections into norms, and a token above ten of them is a sink, which has
    no value. Shapes: `readout` [n_signals, d_model], `offset` and `gate` [n_signals], float32. Everything is of one model
    (`model`, with the hash of its weights).
    """

    model: dict[str, Any]
    signals: tuple[Signal, ...]
    readout: Tensor
    offset: Tensor
    gate: Tensor
    norms: dict[HookPoint, float]
    alarms: tuple[Alarm, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.signals)
        assert n and len(self.readout) == len(self.offset) == len(self.gate) == n, (n, self.readout.shape)
        if len(set(self.names)) < n:
            raise WorkbenchError(f"two signals of one name among {', '.join(self.names)}", "a name of its own for each",
                                 "give one vector per trait, and each feature once")  # fmt: skip
        for alarm in self.alarms:
            self.column(alarm.signal)

    @classmethod
    def of(
        cls, model: Model, vectors: Sequence[PersonaVector] = (), *, sae: SparseAutoencoder | None = None,
        features: Sequence[int] = (),
    ) -> Monitor:  # fmt: skip
        """The monitor of persona vectors at their own hooks and of single features of an SAE.

        Raises WorkbenchError for a vector or SAE of another model, for nothing to watch, and for features of a top-k SAE (whether
        one is among the k largest depends on all others).
        """
        for vector in vectors:
            _check_vector(vector, model)
        parts = [_of_vector(vector) for vector in vectors] + [_of_feature(model, sae, feature) for feature in features]
        if not parts:
            raise WorkbenchError("nothing to watch", "at least one persona vector or feature", "name a vector or a feature")
        signals = tuple(part[0] for part in parts)
        hooks = list(dict.fromkeys(signal.hook for signal in signals))
        norms = dict(zip(hooks, map(float, model.norm_medians(hooks)), strict=True))
        readout, offset, gate = (torch.stack([torch.as_tensor(part[i]).float() for part in parts]) for i in (1, 2, 3))
        inputs = {f"vector of {vector.trait}": tensor_hash(vector.direction) for vector in vectors}
        inputs |= {f"SAE {sae.id}": sae.weights_hash} if sae is not None and features else {}
        return cls(model.description(), signals, readout, offset, gate, norms, provenance=provenance(seed=None, inputs=inputs))

    @property
    def names(self) -> list[str]:
        """The names of the signals, in the order of all columns."""
        return [signal.name for signal in self.signals]

    @property
    def hooks(self) -> list[HookPoint]:
        """The hook points that are read, the shallowest first."""
        return sorted(self.norms, key=lambda hook: (hook.block, hook.site))

    def column(self, name: str) -> int:
        """The column of a signal."""
        if name not in self.names:
            raise unknown_name("signal", name, self.names)
        return self.names.index(name)

    def columns_at(self, hook: HookPoint) -> list[int]:
        """The columns whose signals are read at `hook`."""
        return [i for i, signal in enumerate(self.signals) if signal.hook == hook]

    def read(self, activations: Tensor, hook: HookPoint) -> Tensor:
        """Values [..., n at this hook] of activations [..., d_model]; NaN on sinks. Columns as in `columns_at`."""
        rows, columns = activations.float(), self.columns_at(hook)
        values = self.gated(rows @ self.readout[columns].T.to(rows.device) + self.offset[columns].to(rows.device), columns)
        return values.masked_fill((rows.norm(dim=-1) > SINK_FACTOR * self.norms[hook])[..., None], torch.nan)

    def gated(self, values: Tensor, columns: Sequence[int]) -> Tensor:
        """The affine readings with what does not exceed a gate set to 0 (a feature that does not fire)."""
        return torch.where(values > self.gate[list(columns)].to(values.device), values, 0.0)

    def in_norms(self, values: Tensor) -> Tensor:
        """Values [..., n_signals] with projections in median token norms of their hook; activations of features stay."""
        scale = [self.norms[signal.hook] if signal.kind == "vector" else 1.0 for signal in self.signals]
        return values / torch.tensor(scale, device=values.device)

    def check(self, model: Any) -> None:
        """Refuse another model: by the hash of its weights for a `Model`, by its shape for a bare transformers model."""
        if isinstance(model, Model):
            same = model.weights_hash == self.model.get("weights_hash")
            found = f"{model.name} ({model.weights_hash[:12]})"
        else:
            config = model.config.get_text_config()
            known = (type(model).__name__, config.num_hidden_layers, config.hidden_size)
            same = known == tuple(self.model.get(key) for key in ("architecture", "n_blocks", "d_model"))
            found = f"a {known[0]} of {known[1]} blocks and width {known[2]}"
        if not same:
            of = f"{self.model.get('name')} ({str(self.model.get('weights_hash'))[:12]})"
            raise WorkbenchError(f"the monitor is of {of}, the model is {found}", "the model that the vectors were made on",
                                 "load that model, or make a monitor from vectors of this one")  # fmt: skip

    def watching(self, model: Any, **callbacks: Any) -> AbstractContextManager[Watch]:
        """A context in which this monitor watches a `Model` or a bare transformers model: see `watching.watching`.

        with monitor.watching(model) as log:
            model.hf.generate(**batch, max_new_tokens=64)
        """
        from workbench.steering.monitor.watching import watching  # it imports this module

        return watching(self, model, **callbacks)

    def with_alarms(self, alarms: Sequence[Alarm]) -> Monitor:
        """The same monitor with these alarms."""
        return replace(self, alarms=tuple(alarms))

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write monitor.safetensors and, last, monitor.json with its hash; returns the JSON's path."""
        document = {
            "model": self.model,
            "signals": [{**asdict(signal), "hook": str(signal.hook)} for signal in self.signals],
            "norms": {str(hook): norm for hook, norm in self.norms.items()},
            "alarms": [asdict(alarm) for alarm in self.alarms],
            "provenance": self.provenance,
        }
        tensors = {"readout": self.readout, "offset": self.offset, "gate": self.gate}
        return save_artifact(Path(folder), KIND, SCHEMA, document, tensors)

    @classmethod
    @refuses_damage
    def load(cls, folder: str | os.PathLike[str]) -> Monitor:
        """The monitor saved in `folder`; its hash is verified."""
        document, tensors = load_artifact(Path(folder), KIND, SCHEMA)
        signals = tuple(Signal(**{**one, "hook": HookPoint.parse(one["hook"])}) for one in document["signals"])
        norms = {HookPoint.parse(hook): float(norm) for hook, norm in document["norms"].items()}
        return cls(document["model"], signals, tensors["readout"], tensors["offset"], tensors["gate"], norms,
                   tuple(map(alarm_from, document["alarms"])), document["provenance"])  # fmt: skip


def feature_name(feature: int) -> str:
    """What the signal of a feature is called."""
    return f"feature {feature}"


def _check_vector(vector: PersonaVector, model: Model) -> None:
    known = vector.model.get("weights_hash")
    if known is None and vector.d_model == model.d_model:  # an imported vector that does not say
        return
    if known != model.weights_hash:
        raise WorkbenchError(
            f"the vector of {vector.trait} is of {vector.model.get('name')} ({str(known)[:12]})",
            f"a vector of {model.name} ({model.weights_hash[:12]})",
            "choose vectors of the model that is watched",
        )


def _of_vector(vector: PersonaVector) -> tuple[Signal, Tensor, float, float]:
    norm = vector.direction.norm()
    if not float(norm) > 0:
        raise WorkbenchError(f"the vector of {vector.trait} has length 0", "a direction", "extract it again")
    return Signal(vector.trait, "vector", vector.hook), vector.direction / norm, 0.0, -torch.inf


def _of_feature(model: Model, sae: SparseAutoencoder | None, feature: int) -> tuple[Signal, Tensor, Tensor, Tensor | float]:
    if sae is None:
        raise WorkbenchError(f"feature {feature} of no SAE", "the SAE that it belongs to", "name one with --sae (sae=)")
    if sae.d_model != model.d_model or sae.model_name not in (model.name, os.path.basename(model.name)):
        raise WorkbenchError(f"{sae.id} reads {sae.model_name}", f"an SAE of {model.name}", "choose another SAE")
    if sae.k is not None and sae.architecture == "topk":
        raise WorkbenchError(f"{sae.id} is a top-k SAE: one feature's activation depends on all others",
                             "an SAE whose features have thresholds of their own (jumprelu, standard)",
                             "choose another SAE, or watch vectors only")  # fmt: skip
    if not 0 <= feature < sae.d_sae:
        raise WorkbenchError(f"feature {feature} of {sae.id}", f"0 to {sae.d_sae - 1}", "correct the number")
    column = sae.encoder[:, feature].detach().cpu().float()
    shift = column @ sae.decoder_bias.cpu().float() if sae.subtract_bias else torch.zeros(())
    gate = 0.0 if sae.threshold is None else sae.threshold[feature].clamp_min(0).cpu()
    return Signal(feature_name(feature), "feature", sae.hook), column, sae.encoder_bias[feature].cpu() - shift, gate

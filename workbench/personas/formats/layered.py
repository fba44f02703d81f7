"""Vectors at several hook points: what a foreign file holds, with what it lacks filled in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError, unknown_name
from workbench.base.tensors import load_artifact, save_artifact
from workbench.base.untrusted import refuses_damage
from workbench.models.hookpoints import HookPoint
from workbench.personas.vectors import PersonaVector, empty_rows

KIND, SCHEMA = "layered_vectors", 1
_EXTRA = "extra."


@dataclass(frozen=True, eq=False, repr=False)
class LayeredVectors(Shown):
    """One vector [d_model] (float32) per hook point, in units of the residual stream, toward `trait`.

    `model` is a description as `Model.description()` gives it, at least {"name", "weights_hash"}. `hook` is the one
    meant to be used, None if none was chosen. `extras` are tensors of the file that lie at no hook point:
    `ln_final` [d_model] (after the final norm), `default_mean`, `role_mean` [n_blocks, d_model]. `source` says
    which file this was: format, layout, file name, sha256. `notes` are what a reader should know about it.
    """

    vectors: Mapping[HookPoint, Tensor]
    trait: str
    model: dict[str, Any]
    hook: HookPoint | None = None
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len({tuple(vector.shape) for vector in self.vectors.values()}) != 1:
            shapes = sorted({tuple(vector.shape) for vector in self.vectors.values()})
            raise WorkbenchError(
                f"vectors of the shapes {shapes}", "at least one vector, all [d_model]", "check the file"
            )
        if any(v.ndim != 1 or not bool(torch.isfinite(v).all()) for v in self.vectors.values()):
            raise WorkbenchError(
                "a vector is no row of finite numbers", "vectors [d_model]", "check the file"
            )
        if self.hook is not None:
            self.at(self.hook)

    @property
    def hooks(self) -> tuple[HookPoint, ...]:
        """The hook points, in the order of the blocks."""
        return tuple(sorted(self.vectors))

    @property
    def d_model(self) -> int:
        """The width of the residual stream."""
        return len(next(iter(self.vectors.values())))

    @property
    def n_blocks(self) -> int | None:
        """How many blocks the model has, None when neither the model nor the file says so."""
        return self.model.get("n_blocks")

    def at(self, hook: HookPoint | str) -> Tensor:
        """The vector [d_model] at `hook`."""
        wanted = HookPoint.parse(hook)
        if wanted not in self.vectors:
            raise unknown_name(
                "hook point among these vectors", str(wanted), [str(known) for known in self.hooks]
            )
        return self.vectors[wanted]

    def persona_vector(self, hook: HookPoint | str | None = None) -> PersonaVector:
        """These vectors as a PersonaVector at `hook` (default: the chosen or only one), without rows or evidence.

        Raises WorkbenchError when there are several hook points and none was chosen.
        """
        where = self.hook or (self.hooks[0] if len(self.hooks) == 1 else None) if hook is None else hook
        if where is None:
            known = f"{self.hooks[0]} to {self.hooks[-1]}"
            raise WorkbenchError(
                f"these vectors lie at {len(self.hooks)} hook points and none was chosen",
                f"one of {known}",
                "pass hook=..., or import with --hook or --layer",
            )
        self.at(where)
        stacked = torch.stack([self.vectors[known] for known in self.hooks])
        return PersonaVector(
            self.trait, dict(self.model), HookPoint.parse(where), self.hooks, stacked, None, None, None,
            empty_rows(), provenance={"imported": dict(self.source)},
        )  # fmt: skip

    @classmethod
    def from_persona_vector(cls, vector: PersonaVector) -> LayeredVectors:
        """The directions of a PersonaVector at all its hook points (an extracted one has every block's output)."""
        vectors = dict(zip(vector.hooks, vector.directions, strict=True))
        return cls(
            vectors, vector.trait, dict(vector.model), vector.hook, source={"format": "persona_vector"}
        )

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write layered_vectors.safetensors and, last, layered_vectors.json; returns the JSON's path."""
        document = {**self.summary(), "hooks": [str(hook) for hook in self.hooks]}
        tensors = {str(hook): vector for hook, vector in self.vectors.items()}
        extras = {_EXTRA + name: tensor for name, tensor in self.extras.items()}
        return save_artifact(folder, KIND, SCHEMA, document, {**tensors, **extras})

    @classmethod
    @refuses_damage
    def load(cls, folder: str | os.PathLike[str]) -> LayeredVectors:
        """The vectors saved in `folder`; a missing, changed or foreign file is a WorkbenchError."""
        document, tensors = load_artifact(folder, KIND, SCHEMA)
        extras = {name.removeprefix(_EXTRA): t for name, t in tensors.items() if name.startswith(_EXTRA)}
        return cls(
            {HookPoint.parse(hook): tensors[hook] for hook in document["hooks"]},
            trait=document["trait"],
            model=document["model"],
            hook=None if document["hook"] is None else HookPoint.parse(document["hook"]),
            extras=extras,
            source=document["source"],
            notes=tuple(document["notes"]),
        )

    def summary(self) -> dict[str, Any]:
        """What these vectors are, as JSON types: trait, model, hook, norms, extras, source, notes."""
        return {
            "trait": self.trait,
            "model": self.model,
            "hook": None if self.hook is None else str(self.hook),
            **tensor_summary(self.vectors, self.extras),
            "source": self.source,
            "notes": list(self.notes),
        }

    def __repr__(self) -> str:
        return f"LayeredVectors(trait={self.trait!r}, model={self.model.get('name')!r}, {len(self.vectors)} hook points)"


def tensor_summary(vectors: Mapping[HookPoint, Tensor], extras: Mapping[str, Tensor]) -> dict[str, Any]:
    """{"d_model", "vectors": [{"hook", "norm"}], "extras": {name: shape}} in the order of the blocks."""
    return {
        "d_model": next((len(vector) for vector in vectors.values()), None),
        "vectors": [{"hook": str(hook), "norm": float(vectors[hook].norm())} for hook in sorted(vectors)],
        "extras": {name: list(tensor.shape) for name, tensor in extras.items()},
    }


def load_vectors(folder: str | os.PathLike[str]) -> LayeredVectors:
    """The vectors of a folder: imported ones, a saved PersonaVector, or a run with its vector inside."""
    folder = Path(folder)
    if (folder / f"{KIND}.json").is_file():
        return LayeredVectors.load(folder)
    for place in (folder, folder / "vector"):
        if (place / "persona_vector.json").is_file():
            return LayeredVectors.from_persona_vector(PersonaVector.load(place))
    raise WorkbenchError(
        f"{folder} holds no vectors",
        f"a folder with {KIND}.json or persona_vector.json, or a run folder whose vector is done",
        "make one with `workbench vectors import` or `workbench extract`",
    )

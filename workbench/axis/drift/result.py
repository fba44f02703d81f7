"""What a study of drift holds: the conversations, what was read of them, and what follows for every group of them."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.axis.drift.conversation import Conversation, conversation_from
from workbench.axis.drift.reading import Readings
from workbench.axis.space.axis import AXIS
from workbench.base.display import Shown
from workbench.base.errors import unknown_name
from workbench.base.tensors import load_artifact, save_artifact
from workbench.base.untrusted import refuses_damage
from workbench.models.hookpoints import HookPoint

KIND, SCHEMA = "drift_study", 1


def end_of(axis: str) -> str:
    """What an axis points toward, in words: the assistant, or a trait."""
    return "the assistant" if axis == AXIS else axis


@dataclass(frozen=True, eq=False, repr=False)
class Trace(Shown):
    """One conversation along the axis, in median token norms: positive toward the assistant, so drift away from it is negative.

    Per turn: `values` (a number per token of the reply, NaN on sinks), `tokens` (their text), `position` (the mean with all
    history), `alone` (the same reply with the user's message only) and `drift` = position - alone; [n_turns], NaN for an empty
    reply.
    """

    conversation: Conversation
    axis: str
    values: tuple[Tensor, ...]
    tokens: tuple[tuple[str, ...], ...]
    position: Tensor
    alone: Tensor

    @property
    def drift(self) -> Tensor:
        """position - alone [n_turns]; 0 in the first turn, which has no history."""
        return self.position - self.alone


@dataclass(frozen=True, eq=False, repr=False)
class DriftStudy(Shown):
    """Conversations along an axis, and the drift of every group of them.

    `direction` [d_model] is the axis' unit direction at `hook`; projections are in units of `median_norm` (the median norm of a
    token there), positive toward the assistant. `role_spread` is the standard deviation of the roles' positions in the same unit
    (None: no roles were given). `tokens` are the texts of every reply's tokens. `groups` {group: {...}} and `compared`
    {group: {...}} are what `study.analyse` returns.
    """

    axis: str
    model: dict[str, Any]
    hook: HookPoint
    direction: Tensor
    median_norm: float
    role_spread: float | None
    conversations: tuple[Conversation, ...]
    readings: Readings
    tokens: tuple[tuple[str, ...], ...]
    groups: Mapping[str, Mapping[str, Any]]
    compared: Mapping[str, Mapping[str, Any]]
    reference: str | None
    provenance: dict[str, Any] = field(default_factory=dict)

    def positions(self, context: str = "history") -> Tensor:
        """The position of every reply in a context [n] (float64), in norms; NaN where it has none."""
        if context not in self.readings.means:
            raise unknown_name("context", context, self.readings.means)
        return self.readings.means[context].double() @ self.direction.double() / self.median_norm

    def trace(self, name: str) -> Trace:
        """The conversation of that id along the axis."""
        names = [one.id for one in self.conversations]
        if name not in names:
            raise unknown_name("conversation", name, names)
        row = names.index(name)
        own = [i for i, found in enumerate(self.readings.row.tolist()) if found == row]
        values = tuple(self.readings.values[i] / self.median_norm for i in own)
        position, alone = (self.positions(context)[own] for context in ("history", "alone"))
        return Trace(self.conversations[row], self.axis, values, tuple(self.tokens[i] for i in own), position, alone)

    def speeds(self, kind: str = "drift_per_turn") -> dict[str, list[float | None]]:
        """{group: [value, low, high]} of a quantity (see `effects.KINDS`), in norms; None for what is not known."""
        found = {name: one["effects"][kind] for name, one in self.groups.items() if kind in one["effects"]}
        return {name: [one["value"], *(one["interval"] or (None, None))] for name, one in found.items()}

    def _in_spreads(self) -> dict[str, list[float | None]]:
        """The speeds in standard deviations of the roles' positions."""
        scale = self.role_spread or math.nan
        return {name: [end if end is None else end / scale for end in ends] for name, ends in self.speeds().items()}

    def to_json(self) -> dict[str, Any]:
        """The figures, without what was said."""
        return {
            "axis": self.axis, "model": self.model.get("name"), "hook": str(self.hook), "median_norm": self.median_norm,
            "role_spread": self.role_spread, "n_conversations": len(self.conversations), "n_replies": len(self.readings.row),
            "unit": f"median token norms, positive toward {end_of(self.axis)}; the unit of inference is the conversation",
            "drift_speed": self.speeds(), "drift_speed_in_role_spreads": self.role_spread and self._in_spreads(),
            "groups": self.groups, "reference": self.reference, "compared": self.compared,
        }  # fmt: skip

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the tensors and, last, the JSON with what was said; returns the JSON's path."""
        read = self.readings
        tensors = {f"means.{name}": value for name, value in read.means.items()}
        tensors |= {"row": read.row, "turn": read.turn, "n_before": read.n_before, "direction": self.direction}
        for name, parts in (("values", read.values), ("alone", read.alone)):
            tensors[name] = torch.cat(parts) if parts else torch.zeros(0)
            tensors[f"lengths.{name}"] = torch.tensor([len(one) for one in parts], dtype=torch.long)
        said = {"tokens": list(map(list, self.tokens)), "conversations": [one.to_json() for one in self.conversations]}
        document = {**{name: getattr(self, name) for name in _PLAIN}, "hook": str(self.hook), **said}
        return save_artifact(Path(folder), KIND, SCHEMA, document, tensors)

    @classmethod
    @refuses_damage
    def load(cls, folder: str | os.PathLike[str]) -> DriftStudy:
        """The study saved in `folder`; its hash is verified."""
        document, tensors = load_artifact(Path(folder), KIND, SCHEMA)
        means = {name.removeprefix("means."): value for name, value in tensors.items() if name.startswith("means.")}
        values, alone = (tuple(tensors[name].split(tensors[f"lengths.{name}"].tolist())) for name in ("values", "alone"))
        read = Readings(tensors["row"], tensors["turn"], means, values, alone, tensors["n_before"])
        return cls(
            **{name: document[name] for name in _PLAIN}, hook=HookPoint.parse(document["hook"]), direction=tensors["direction"],
            conversations=tuple(map(conversation_from, document["conversations"])), readings=read,
            tokens=tuple(map(tuple, document["tokens"])),
        )  # fmt: skip


_PLAIN = ("axis", "model", "median_norm", "role_spread", "groups", "compared", "reference", "provenance")

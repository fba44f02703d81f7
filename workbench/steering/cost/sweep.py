"""Treatments side by side: one cell each, with the trait in sampled replies, their coherence, capability and KL.

A cell is one JSON file, written whole when it is done: an interrupted sweep goes on where it stopped, and a cell stands as long
as the model, the edits, the questions, the judge and the exam are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.progress import track
from workbench.base.store import content_hash, read_json, write_json
from workbench.models.prompts import chat_template_hash

from ..apply import steered
from . import capability as exams
from . import replies as said
from .capability import Capability, Exam
from .matching import NeutralShift
from .replies import Asking, Replies
from .treatments import UNSTEERED, Treatment

if TYPE_CHECKING:
    from workbench.models.model import Model
    from workbench.personas.judges import Judge
    from workbench.personas.traits import Trait


@dataclass(frozen=True, eq=False, repr=False)
class Cell(Shown):
    """What one treatment does."""

    treatment: dict[str, Any]
    """method, level, told, n_hooks, hook."""
    replies: Replies
    capability: Capability | None
    """None where no exam was asked for."""
    kl: float
    """On neutral text, nats per token; 0 for words, which edit nothing."""

    @property
    def name(self) -> str:
        """Method and level, for tables."""
        return _name(self.treatment)

    def to_dict(self) -> dict[str, Any]:
        """JSON types only."""
        measured = None if self.capability is None else self.capability.to_dict()
        return {"treatment": self.treatment, "replies": list(self.replies.rows), "capability": measured, "kl": self.kl}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Cell:
        """What `to_dict` wrote."""
        measured = stored["capability"]
        measured = None if measured is None else Capability.from_dict(measured)
        return cls(stored["treatment"], Replies(tuple(stored["replies"])), measured, stored["kl"])


@dataclass(frozen=True, eq=False, repr=False)
class Sweep(Shown):
    """All cells of one trait from one start; `base` is the cell without treatment, on the same questions and sampling noise."""

    trait: str
    start: str
    judge: str
    base: Cell
    cells: tuple[Cell, ...]
    missing: tuple[str, ...] = ()
    """Names of cells that were asked for and are not there: only where finished cells are read."""

    def of(self, method: str) -> tuple[Cell, ...]:
        """A method's cells, weakest first."""
        chosen = [cell for cell in self.cells if cell.treatment["method"] == method]
        return tuple(sorted(chosen, key=lambda cell: abs(cell.treatment["level"] or 0.0)))

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods, in the order in which they were given."""
        return tuple(dict.fromkeys(cell.treatment["method"] for cell in self.cells))


class NotMeasured(WorkbenchError):
    """A cell that is not there was asked for where only finished cells are read."""


class Bench:
    """Everything that a sweep needs beside the treatments; `exam` None measures replies only. `only_kept` reads what is finished
    and measures nothing: a missing cell raises NotMeasured, and a sweep leaves it out and names it."""

    def __init__(
        self, model: Model, trait: Trait, judge: Judge, exam: Exam | None, folder: str | Path, *,
        filtered_by: str | None = None, only_kept: bool = False,
    ) -> None:  # fmt: skip
        self.model, self.trait, self.judge, self.exam = model, trait, judge, exam
        self.folder, self.filtered_by, self.only_kept = Path(folder), filtered_by, only_kept
        self._told_of_judge = judge.description()  # before it loads anything: the same in every process

    @cached_property
    def neutral(self) -> NeutralShift:
        """KL on neutral text."""
        return NeutralShift(self.model, folder=self.folder)

    def cell(self, treatment: Treatment, asking: Asking) -> Cell:
        """Replies, capability and KL of one treatment, from the folder where they are there."""
        measured, kl = self.effect(treatment)
        return Cell(treatment.to_dict(), self.replies(treatment, asking), measured, kl)

    def replies(self, treatment: Treatment, asking: Asking) -> Replies:
        """The judged replies of one treatment."""
        key = [treatment.key(), asdict(asking), self._who]
        return Replies(tuple(self._file("replies", key, lambda: self._replies(treatment, asking))["rows"]))

    def effect(self, treatment: Treatment) -> tuple[Capability | None, float]:
        """(capability, None without an exam; KL on neutral text in nats per token, 0 for words)."""
        found = self._file("capability", [treatment.key(), self._what], lambda: self._effect(treatment))
        return None if found["capability"] is None else Capability.from_dict(found["capability"]), found["kl"]

    @cached_property
    def _model_key(self) -> list[Any]:
        return [self.model.weights_hash, str(self.model.dtype), chat_template_hash(self.model)]

    @cached_property
    def _who(self) -> list[Any]:
        return [*self._model_key, self.trait.hash, self._told_of_judge, self.filtered_by]

    @cached_property
    def _what(self) -> list[Any]:
        asked = None if self.exam is None else [self.exam.documents, [asdict(one) for one in self.exam.sets]]
        return [*self._model_key, content_hash(asked), self.trait.hash]

    def kept(self, kind: str, key: list[Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What `make` gave for this model, trait and `key`, made now where the folder does not hold it."""
        return self._file(kind, [key, *self._model_key, self.trait.hash], make)

    def _file(self, kind: str, key: list[Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        path = self.folder / kind / f"{content_hash(key)[:24]}.json"
        if not path.is_file():
            if self.only_kept:
                raise NotMeasured(f"{path} is not there yet", "a finished cell", "run the sweep without only_kept")
            write_json(path, make())
        return read_json(path)

    def _replies(self, treatment: Treatment, asking: Asking) -> dict[str, Any]:
        with steered(self.model, treatment.within(said.SCOPE)):
            rows = said.sample_replies(self.model, self.trait, asking, told=treatment.told)
        found = said.judged(rows, self.model, self.trait, self.judge, filtered_by=self.filtered_by)
        return {"treatment": treatment.to_dict(), "asking": asdict(asking), "rows": list(found.rows)}

    def _effect(self, treatment: Treatment) -> dict[str, Any]:
        before = said.start_prompt(self.trait, "neutral", 0, treatment.told)
        measured = None
        if self.exam is not None:
            with steered(self.model, treatment.within(exams.SCOPE)):
                measured = exams.capability(self.model, self.exam, before=f"{before}\n\n" if before else "").to_dict()
        kl = self.neutral(treatment.edits) if treatment.edits else 0.0
        return {"treatment": treatment.to_dict(), "capability": measured, "kl": kl}


def sweep(bench: Bench, treatments: Sequence[Treatment], asking: Asking) -> Sweep:
    """One cell per treatment and the one without, resumed from the bench's folder."""
    cells, missing = [], []
    with track(f"sweep of {bench.trait.name}", len(treatments) + 1, "cells") as step:
        for treatment in (Treatment(UNSTEERED), *treatments):
            try:
                cells.append(bench.cell(treatment, asking))
            except NotMeasured:
                if not cells:  # nothing stands without the unsteered cell
                    raise
                missing.append(_name(treatment.to_dict()))
            step(note=_name(treatment.to_dict()))
    return Sweep(bench.trait.name, asking.start, bench.judge.name, cells[0], tuple(cells[1:]), tuple(missing))


def _name(treatment: Mapping[str, Any]) -> str:
    level = treatment["level"]
    return treatment["method"] + ("" if level is None else f" {level:+.3g}")

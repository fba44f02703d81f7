"""A finished extraction, read back: the vector, its rows and their activations at one hook point."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.models.hookpoints import HookPoint
from workbench.models.loading import Model
from workbench.personas.evidence import Activations, code_rows, inner_products
from workbench.personas.judging import usable_mask
from workbench.personas.parts import PartStore
from workbench.personas.reencoding import gather_means, reencode_without_system
from workbench.personas.separability import Cell, Draws, Rows, contrasts, division_cells, draw, held_out_aucs
from workbench.personas.vectors import PersonaVector

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False)
class PersonaRun:
    """One trait's vector with the rows behind it at `hook`.

    `make` and `score` are the extraction and the evaluation rows of two arms (positive, negative) with their mean
    response activations `[n, 1, d_model]`, with and without the system prompt.
    """

    vector: PersonaVector
    folder: Path
    hook: HookPoint
    make: Activations
    score: Activations

    @property
    def trait(self) -> str:
        """The trait's name."""
        return self.vector.trait

    @property
    def direction(self) -> Tensor:
        """The vector `[d_model]` at `hook`, toward the trait."""
        return self.vector.at(self.hook)


def read_run(folder: str | Path, model: Model, hook: HookPoint | str | None = None) -> PersonaRun:
    """The finished extraction in `folder` at `hook` (default: the vector's own).

    What was not kept on disk is read through `model` again. Raises WorkbenchError when the rollouts are gone or the
    vector is of another model.
    """
    folder = Path(folder)
    vector = PersonaVector.load(folder / "vector")
    if vector.model.get("weights_hash") != model.weights_hash:
        raise WorkbenchError(
            f"the vector in {folder} is of {vector.model.get('name')} ({str(vector.model.get('weights_hash'))[:12]})",
            f"a vector of {model.name} ({model.weights_hash[:12]})",
            "extract the trait with this model, into another folder",
        )
    where = vector.hook if hook is None else HookPoint.parse(hook)
    vector.index(where)
    rows: Any = vector.rows
    rows = rows[(usable_mask(rows) & (rows["arm"] != "neutral")).to_numpy()].reset_index(drop=True)
    data = Activations(rows, *_activations(folder, rows, model, where))
    extraction = rows["split"] == "extraction"
    return PersonaRun(vector, folder, where, data.of(extraction), data.of(~extraction))


def _activations(folder: Path, rows: pandas.DataFrame, model: Model, hook: HookPoint) -> tuple[Tensor, Tensor]:
    import pyarrow as pa

    store, ids = PartStore(folder), rows["id"].tolist()
    headers = [header for header in store.headers() if header.offers((hook,), ())]
    held = {row_id for header in headers for row_id in header.ids}
    if not set(ids) <= held:
        raise WorkbenchError(
            f"{folder} holds the activations of {len(held & set(ids))} of the vector's {len(ids)} rows at {hook}",
            "the rollouts that the vector was made from",
            "extract the trait again into this folder",
        )
    table = pa.Table.from_pandas(rows[["id", "question", "response_ids"]], preserve_index=False)  # pyright: ignore
    stripped = reencode_without_system(model, folder, table, ids, (hook,))
    return gather_means(store, headers, ids, (hook,)), stripped


@dataclass(frozen=True, eq=False, repr=False)
class HeldOut(Shown):
    """Directions made on one part of the instructions, for scoring the other part: see `separability`.

    `weights` are per cell `[B, n_make]`, replicate 0 being the data as it is.
    """

    made: Rows
    scored: Rows
    cells: tuple[Cell, ...]
    draws: Draws
    weights: tuple[Tensor, ...]


def held_out(run: PersonaRun, *, n_bootstrap: int, generator: torch.Generator) -> HeldOut:
    """Every division of the run's instructions, with bootstrap draws of questions and instructions."""
    instructions = sorted(set(run.make.frame["instruction_id"]) | set(run.score.frame["instruction_id"]))
    made, scored = code_rows(run.make.frame, instructions), code_rows(run.score.frame, instructions)
    cells = tuple(division_cells(made, scored, len(instructions)))
    sizes = (int(made.question.max()) + 1, int(scored.question.max()) + 1, len(instructions))
    draws = draw(*sizes, n_bootstrap, generator)
    return HeldOut(made, scored, cells, draws, tuple(contrasts(made, cells, draws)))


def stripped_gram(run: PersonaRun) -> Tensor:
    """Inner products `[n_make, n_score]` of rows made in context with rows re-encoded without the system prompt."""
    return inner_products(run.make.with_system[:, 0], run.score.without_system[:, 0])


def stripped_aucs(run: PersonaRun, parts: HeldOut) -> Tensor:
    """AUC `[B, n_cells]` on unseen questions under unseen instructions."""
    return held_out_aucs(parts.weights, stripped_gram(run), parts.scored, parts.cells, parts.draws)

"""The scores of a data set, read back from their parts: reply by reply on disk, sample by sample in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.store import read_parquet

from .columns import TRAIT, Column
from .entries import BLANK, MALFORMED, SCORED, UNSCORED
from .files import DataFile

Against = Literal["own", "prompt"]
Combine = Literal["max", "mean"]
STAGE = "scores"
STATUSES = (SCORED, UNSCORED, MALFORMED, BLANK)
_FIXED = ["line", "turn", "status", "problem", "label", "prompt", "n_tokens", "clipped"]


@dataclass(frozen=True, eq=False, repr=False)
class DataScores(Shown):
    """Every reply's scores in `folder`, one row per reply; a line without a scored reply has a row that says why.

    `directions {trait: [d_model]}`: unit vectors over the median token norm of their hook: a score is <change, direction>.
    """

    folder: Path
    data: DataFile
    columns: tuple[Column, ...]
    traits: tuple[str, ...]
    directions: Mapping[str, Tensor]
    against: Against
    model: dict[str, Any]
    sae: dict[str, Any] | None
    options: dict[str, Any]
    key: str

    def column(self, kind: str, name: str) -> Column:
        """The first column of that kind and name."""
        return next(one for one in self.columns if (one.kind, one.name) == (kind, name))

    def rows(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Columns of all rows by name: line, turn, status, problem, label, prompt, n_tokens, clipped, and scores by their key."""
        import pyarrow as pa

        parts = [read_parquet(path).select(list(names)) for path in part_files(self.folder)]
        table = pa.concat_tables(parts).combine_chunks()
        return {name: table.column(name).to_numpy(zero_copy_only=False) for name in names}

    def samples(self, combine: Combine = "max", columns: Sequence[Column] | None = None) -> Samples:
        """One value per line and column (default: the traits): the largest or the mean over its scored replies."""
        chosen = tuple(columns or (self.column(TRAIT, trait) for trait in self.traits))
        if combine not in get_args(Combine):
            raise WorkbenchError(f"replies combined by {combine!r}", "max or mean", "choose one of them")
        rows = self.rows([*_FIXED, *(column.key for column in chosen)])
        values = np.stack([rows[column.key] for column in chosen]).astype(np.float32)
        return _samples(rows, values, chosen, self.data.n_lines, combine)

    def codes(self) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
        """(line, turn, features, changes of their mean codes) of every scored reply that has a code, in order."""
        for path in part_files(self.folder):
            table = read_parquet(path).select(["line", "turn", "status", "code_index", "code_value"])
            for row in table.to_pylist():
                if row["status"] == SCORED and row["code_index"] is not None:
                    yield row["line"], row["turn"], np.array(row["code_index"], np.int64), np.array(row["code_value"], np.float32)


@dataclass(frozen=True, eq=False, repr=False)
class Samples(Shown):
    """One entry per line, line 1 first. `score [n_columns, n_lines]` is NaN where nothing was scored; `status` says scored,
    unscored, malformed or blank; `turn [n_columns, n_lines]` the reply that has the largest score (-1: none)."""

    columns: tuple[Column, ...]
    score: np.ndarray
    turn: np.ndarray
    status: np.ndarray
    label: np.ndarray
    """1 bears the trait, 0 does not, -1 not known."""
    prompt: np.ndarray
    """The hash of the prompt of the line's first reply ("" when there is none): what counts as one unit."""
    n_tokens: np.ndarray
    n_replies: np.ndarray
    clipped: np.ndarray
    problems: tuple[tuple[int, int, str], ...] = field(default=())
    """(line, turn or -1, why) of everything that has no score."""

    @property
    def scored(self) -> np.ndarray:
        """Which lines have a score."""
        return self.status == SCORED


def _samples(
    rows: Mapping[str, np.ndarray], values: np.ndarray, columns: tuple[Column, ...], n_lines: int, combine: Combine
) -> Samples:
    line, scored = rows["line"].astype(np.int64) - 1, rows["status"] == SCORED
    own, found = line[scored], values[:, scored]
    n_replies = np.bincount(own, minlength=n_lines)
    score, turn = _combined(own, found, rows["turn"][scored], n_replies, combine)
    prompt = np.full(n_lines, "", object)
    prompt[own[::-1]] = rows["prompt"][scored][::-1]  # backwards, so that the first reply is written last
    n_tokens = np.bincount(own, weights=rows["n_tokens"][scored], minlength=n_lines).astype(np.int64)
    clipped = np.bincount(own, weights=rows["clipped"][scored].astype(float), minlength=n_lines) > 0
    listed = np.flatnonzero((rows["status"] == UNSCORED) | (rows["status"] == MALFORMED))
    problems = tuple((int(rows["line"][i]), int(rows["turn"][i]), str(rows["problem"][i])) for i in listed)
    return Samples(columns, score, turn, _status(line, rows["status"], n_lines), _labels(line, rows["label"], n_lines), prompt,
                   n_tokens, n_replies, clipped, problems)  # fmt: skip


def _combined(
    own: np.ndarray, found: np.ndarray, turns: np.ndarray, n_replies: np.ndarray, combine: Combine
) -> tuple[np.ndarray, np.ndarray]:
    """(score, turn of the largest) `[n_columns, n_lines]` of reply scores `[n_columns, n]`, whose lines are `own` [n]."""
    n_lines = len(n_replies)
    largest = np.full((len(found), n_lines), -np.inf, np.float32)
    turn = np.full((len(found), n_lines), -1, np.int32)
    for column, values in enumerate(found):
        np.maximum.at(largest[column], own, values)
        first = values == largest[column][own]
        turn[column][own[first][::-1]] = turns[first][::-1]
    score = largest
    if combine == "mean":
        score = np.stack([np.bincount(own, weights=one, minlength=n_lines) for one in found]) / np.maximum(n_replies, 1)
    return np.where(n_replies > 0, score, np.nan).astype(np.float32), turn


def _status(line: np.ndarray, status: np.ndarray, n_lines: int) -> np.ndarray:
    found = np.full(n_lines, UNSCORED, object)
    for name in (BLANK, MALFORMED, SCORED):
        found[line[status == name]] = name
    return found


def _labels(line: np.ndarray, label: np.ndarray, n_lines: int) -> np.ndarray:
    found = np.full(n_lines, -1, np.int8)
    known = [i for i, value in enumerate(label) if value is not None and value == value]
    found[line[known]] = [int(label[i]) for i in known]
    return found


def part_files(folder: Path) -> list[Path]:
    """The finished parts, in order; WorkbenchError when one is missing in between."""
    found = sorted((folder / "scores").glob("part-*.parquet"))
    if [int(path.stem.removeprefix("part-")) for path in found] != list(range(len(found))):
        raise WorkbenchError(f"a part of the scores in {folder} is missing", "part-000000 and all that follow",
                             "delete the folder and run the screen again")  # fmt: skip
    return found


def part_file(folder: Path, number: int) -> Path:
    """Where the part of that number lies."""
    return folder / "scores" / f"part-{number:06d}.parquet"


def part_metadata(path: Path) -> dict[str, Any] | None:
    """{key, line, end}: whose part it is, and up to where in the data set the parts reach; None where it is missing or torn."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return json.loads(parquet.read_schema(path).metadata[b"screen"])
    except (FileNotFoundError, pa.ArrowInvalid):
        return None

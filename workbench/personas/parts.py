"""Append-only parts on disk: numbered pairs of a tensor file and a table, the table's arrival being the
commit.

    <folder>/<tensors>/part-00000.safetensors    means [rows, hooks, d_model], tokens.<hook>, lengths.<hook>
    <folder>/<rows>/part-00000.parquet           one line per row; its metadata names the hooks and the tensor
    hash

A crash leaves at most a tensor file without its table, or a temporary file: both are ignored by readers and
removed by the next writer. Parts are never changed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.base.errors import WorkbenchError
from workbench.base.progress import track
from workbench.base.store import atomic_path, content_hash, read_parquet, write_parquet
from workbench.base.tensors import load_tensors, save_tensors, tensor_hash
from workbench.models.hookpoints import HookPoint

if TYPE_CHECKING:
    import pyarrow

PARTS_SCHEMA = 1
_HEADER = b"workbench_part"
Produced = tuple["pyarrow.Table", Tensor, Mapping[HookPoint, Sequence[Tensor]]]


@dataclass(frozen=True)
class PartHeader:
    """What the table of a part says about the whole: read without touching the tensors."""

    number: int
    hooks: tuple[HookPoint, ...]
    token_hooks: tuple[HookPoint, ...]
    tensors_sha256: str
    ids: tuple[str, ...]

    def offers(self, hooks: Sequence[HookPoint], token_hooks: Sequence[HookPoint]) -> bool:
        """Whether the part was captured at all these hooks."""
        return set(hooks) <= set(self.hooks) and set(token_hooks) <= set(self.token_hooks)


@dataclass(frozen=True)
class PartStore:
    """The parts of one folder; `rows` and `tensors` are the names of the two sub-folders."""

    folder: Path
    rows: str = "rollouts"
    tensors: str = "activations"

    def headers(self) -> list[PartHeader]:
        """The headers of all committed parts, in order of their numbers; unreadable tables count as not
        committed."""
        found = (self._header(path) for path in sorted((self.folder / self.rows).glob("part-*.parquet")))
        return [header for header in found if header is not None]

    def table(self, number: int) -> pyarrow.Table:
        """The rows of one part."""
        return read_parquet(self._table_path(number))

    def activations(self, header: PartHeader) -> dict[str, Tensor]:
        """The tensors of one part, checked against the hash in its table."""
        path = self._tensor_path(header.number)
        tensors = load_tensors(path)
        if tensor_hash(tensors) != header.tensors_sha256:
            raise WorkbenchError(
                f"{path} does not match the hash that was recorded when it was written",
                "the activations as they were captured",
                f"delete this file and {self._table_path(header.number)}; the next run makes its rows again",
            )
        return tensors

    def means(self, header: PartHeader, hooks: Sequence[HookPoint]) -> Tensor:
        """Mean activations [rows, hooks, d_model] of one part at the given hooks."""
        return self.activations(header)["means"][:, [header.hooks.index(hook) for hook in hooks]]

    def tokens(self, header: PartHeader, hook: HookPoint) -> Iterator[tuple[str, Tensor]]:
        """(row id, token activations [n, d_model]) for every row of one part, sinks left out."""
        tensors = self.activations(header)
        lengths = tensors[f"lengths.{hook}"].tolist()
        yield from zip(header.ids, tensors[f"tokens.{hook}"].split(lengths), strict=True)

    def write(
        self,
        number: int,
        table: pyarrow.Table,
        means: Tensor,
        tokens: Mapping[HookPoint, Sequence[Tensor]],
        *,
        hooks: Sequence[HookPoint],
    ) -> PartHeader:
        """Commit one part: the tensors first, then the table. `table` needs a column `id`."""
        tensors = {"means": means, **_packed(tokens)}
        save_tensors(self._tensor_path(number), tensors)
        ids = tuple(table.column("id").to_pylist())
        header = PartHeader(number, tuple(hooks), tuple(tokens), tensor_hash(tensors), ids)
        described = table.replace_schema_metadata({_HEADER: json.dumps(_header_values(header)).encode()})
        write_parquet(self._table_path(number), described)
        return header

    def adopt(self, number: int, other: PartStore, header: PartHeader) -> PartHeader:
        """Commit a part of another store as the part `number`, byte for byte; its tensors are checked against their hash."""
        _ = other.activations(header)
        for source, target in ((other._tensor_path, self._tensor_path), (other._table_path, self._table_path)):
            with atomic_path(target(number)) as temporary:
                shutil.copyfile(source(header.number), temporary)
        return replace(header, number=number)

    def remove(self, number: int) -> None:
        """Remove one part: its table first, so that what an interruption leaves counts as not committed."""
        self._table_path(number).unlink(missing_ok=True)
        self._tensor_path(number).unlink(missing_ok=True)

    def remove_uncommitted(self) -> list[Path]:
        """Remove what an interrupted writer left: temporary files, tensors without table, unreadable
        tables."""
        keep = {header.number for header in self.headers()}
        known = {self._table_path(number) for number in keep} | {self._tensor_path(number) for number in keep}
        folders = (self.folder / self.rows, self.folder / self.tensors)
        strays = [path for folder in folders for path in folder.glob("*part*") if path not in known]
        for path in strays:
            path.unlink(missing_ok=True)
        return strays

    def _header(self, path: Path) -> PartHeader | None:
        number = int(path.stem.removeprefix("part-"))
        if not self._tensor_path(number).is_file():
            return None
        try:
            table = read_parquet(path)
        except WorkbenchError as error:
            if not _is_damage(error):  # such as too little memory: nothing is wrong with the file
                raise
            return None
        values = json.loads((table.schema.metadata or {}).get(_HEADER, b"{}"))
        if values.get("schema", 0) > PARTS_SCHEMA:
            raise WorkbenchError(
                f"{path} has schema {values['schema']}",
                f"schema {PARTS_SCHEMA}",
                "install a newer persona-workbench",
            )
        return _header_from(number, values, tuple(table.column("id").to_pylist())) if values else None

    def _table_path(self, number: int) -> Path:
        return self.folder / self.rows / f"part-{number:05d}.parquet"

    def _tensor_path(self, number: int) -> Path:
        return self.folder / self.tensors / f"part-{number:05d}.safetensors"


def _is_damage(error: WorkbenchError) -> bool:
    """Whether a table was refused for what is in it, not for memory, size or permissions."""
    from pyarrow import ArrowInvalid

    cause = error.__cause__
    return isinstance(cause, ArrowInvalid) or (isinstance(cause, OSError) and not cause.errno)


def complete_parts(
    store: PartStore,
    batches: Sequence[Sequence[str]],
    produce: Callable[[list[str]], Produced],
    *,
    hooks: Sequence[HookPoint],
    token_hooks: Callable[[str], Sequence[HookPoint]] = lambda row_id: (),
    announce: Callable[[list[list[str]]], None] | None = None,
    label: str,
    unit: str = "rollouts",
) -> None:
    """Commit one part per batch of row ids, leaving out the rows that are there already.

    `produce(ids)` makes the (table, means, tokens) of a part; `token_hooks(id)` says where a row needs
    tokens; `announce` is told all batches to come before the first is made. The batches must be a function of
    the whole design, not of what is missing: then an interrupted and resumed run writes the same parts, and so does one
    whose parts were damaged or lost in between.
    """
    store.remove_uncommitted()
    headers = store.headers()
    done = {row_id for h in headers for row_id in h.ids if h.offers(hooks, token_hooks(row_id))}
    missing = [ids for batch in batches if (ids := [row_id for row_id in batch if row_id not in done])]
    taken = {header.number for header in headers}
    free = (number for number in count() if number not in taken)  # a part that was lost is made again in its place
    with track(label, sum(map(len, missing)), unit) as step:
        if announce:
            announce(missing)
        for ids in missing:
            store.write(next(free), *produce(ids), hooks=hooks)
            step(len(ids))


def parts_hash(headers: Sequence[PartHeader]) -> str:
    """sha256 over the rows and tensors of these parts, whatever their numbers."""
    return content_hash(sorted([list(header.ids), header.tensors_sha256] for header in headers))


def _packed(tokens: Mapping[HookPoint, Sequence[Tensor]]) -> dict[str, Tensor]:
    packed = {}
    for hook, rows in tokens.items():
        packed[f"tokens.{hook}"] = torch.cat(list(rows)).float()
        packed[f"lengths.{hook}"] = torch.tensor([len(row) for row in rows], dtype=torch.int64)
    return packed


def _header_values(header: PartHeader) -> dict[str, object]:
    return {
        "schema": PARTS_SCHEMA,
        "hooks": [str(hook) for hook in header.hooks],
        "token_hooks": [str(hook) for hook in header.token_hooks],
        "tensors_sha256": header.tensors_sha256,
    }


def _header_from(number: int, values: dict[str, list[str]], ids: tuple[str, ...]) -> PartHeader:
    hooks, token_hooks = (tuple(map(HookPoint.parse, values[name])) for name in ("hooks", "token_hooks"))
    return PartHeader(number, hooks, token_hooks, str(values["tensors_sha256"]), ids)

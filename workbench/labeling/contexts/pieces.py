"""Pieces of an index written by other processes: the same work as here, from names that they can load by themselves."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import tee
from pathlib import Path

import torch

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.labeling.contexts.encoding import Encoder
from workbench.labeling.contexts.shards import Shard, is_written
from workbench.labeling.contexts.streams import TokenDocument

Part = tuple[Path, list[TokenDocument]]
Run = Callable[[Callable[["Piece"], str], Iterable["Piece"]], Iterable[str]]


@dataclass(frozen=True, repr=False)
class Spread(Shown):
    """Who writes the pieces of an index, if not this process: `run(write_piece, pieces)`, which takes pieces as it goes and
    ends them in their order (`map`, or `workbench.cluster.on_ray`), on machines that share the index's folder.

    They load the model `model` and the SAE `sae` on `device`.
    """

    run: Run
    model: str
    sae: str
    device: str | None = None


@dataclass(frozen=True)
class Reader:
    """An encoder by names, with the hashes that the loaded weights must have and the threads that numbers depend on."""

    model: str
    sae: str
    device: str | None
    dtype: str
    batch_tokens: int
    threads: int
    model_hash: str
    sae_hash: str

    @staticmethod
    def like(encoder: Encoder, spread: Spread) -> Reader:
        """What gives other processes the same encoder."""
        model, sae = encoder.model, encoder.sae
        return Reader(spread.model, spread.sae, spread.device, str(model.dtype).removeprefix("torch."), encoder.batch_tokens,
                      torch.get_num_threads(), model.weights_hash, sae.weights_hash)  # fmt: skip


@dataclass(frozen=True, repr=False)
class Piece(Shown):
    """A piece to be written to `folder`; without documents it is there already."""

    reader: Reader
    folder: str
    documents: tuple[TokenDocument, ...]


def write_piece(piece: Piece) -> str:
    """Read the documents of a piece and write it; returns its folder. Model and SAE stay loaded for the next one.

    Raises:
        WorkbenchError: a model or an SAE that is not there, or has other weights than those of the index.
    """
    if piece.documents:
        written(Path(piece.folder), piece.documents, _encoder(piece.reader))
    return piece.folder


def written(folder: Path, documents: Sequence[TokenDocument], encoder: Encoder) -> Shard:
    """The piece of these documents, read now and written to `folder` in place of what an interruption left there."""
    shutil.rmtree(folder, ignore_errors=True)
    shard = encoder.shard(documents)
    shard.save(folder)
    return shard


def written_ahead(parts: Iterable[Part], spread: Spread, reader: Reader) -> Iterator[Part]:
    """The parts (folder, documents) in their order, each when its piece is on disk.

    Raises:
        WorkbenchError: as `write_piece`; a piece that was written where this machine does not see it.
    """
    given, asked = tee(parts)
    pieces = (
        Piece(reader, str(folder.resolve()), () if is_written(folder) else tuple(documents)) for folder, documents in asked
    )
    for (folder, documents), _ in zip(given, spread.run(write_piece, pieces), strict=True):
        if not is_written(folder):
            raise WorkbenchError(
                f"a task wrote {folder}, but it is not here", "one file system for all machines of the cluster",
                "choose a folder that they share with --out",
            )  # fmt: skip
        yield folder, documents


@lru_cache(maxsize=1)
def _encoder(reader: Reader) -> Encoder:
    from workbench.models.loading import load_model
    from workbench.saes.registry import load_sae

    torch.set_num_threads(reader.threads)
    model = load_model(reader.model, dtype=reader.dtype, device=reader.device)
    sae = load_sae(reader.sae).to(model.device)
    for name, found, expected in (
        (reader.model, model.weights_hash, reader.model_hash), (reader.sae, sae.weights_hash, reader.sae_hash)
    ):  # fmt: skip
        if found != expected:
            raise WorkbenchError(
                f"{name} has other weights on this machine ({found[:12]}) than where the index is made ({expected[:12]})",
                "the same model and SAE on all machines of the cluster", "copy them there, or name a folder that all share",
            )  # fmt: skip
    return Encoder(sae, model, batch_tokens=reader.batch_tokens)

"""Activations to train on: shards on disk or a tensor in memory, read many times in shuffled batches.

A store is a folder of safetensors shards ([n, d_model] in 16 bits) of one hook point and a `manifest.json` that names
the model, the hook points, the sources with their token counts, and how many tokens were dropped and why. Stores that
were captured from one pass through the model hold the same tokens, shard for shard. `capturing` writes them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError, unknown_name
from workbench.base.randomness import derive_seed, generator
from workbench.base.store import content_hash, read_json, sha256_file

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST = "manifest.json"
GROUP_SHARDS = 8
"""Shards in memory at a time, their tokens permuted together; the next group is read meanwhile."""


class Activations(ABC):
    """Tokens' activations at one hook point in shards. `batches` yields [batch_size, d_model] float32 in a seeded order."""

    manifest: dict[str, Any]
    """{key, model, hook, d_model, dtype, sources, n_dropped}."""
    sizes: Sequence[int]
    """Tokens of each shard."""

    @abstractmethod
    def shard(self, index: int) -> Tensor:
        """One shard as stored, [n, d_model]."""

    @property
    def n_tokens(self) -> int:
        """Tokens in all shards."""
        return sum(self.sizes)

    @property
    def d_model(self) -> int:
        """Width of an activation."""
        return int(self.manifest["d_model"])

    @property
    def key(self) -> str:
        """The hash of what was captured: model, hook points, rows, filter, storage."""
        return str(self.manifest["key"])

    def batches(
        self, batch_size: int, *, seed: int, start: int = 0, device: str = "cpu"
    ) -> Iterator[Tensor]:
        """Endless shuffled batches from batch number `start` on: batch n is the same whatever `start` was.

        Every epoch visits the shards in a new order, `GROUP_SHARDS` at a time. Memory: two groups (the next one is
        read by a thread while this one is served), whatever the size of the store.
        """
        import torch

        plan = self._groups(batch_size, seed, start)
        with ThreadPoolExecutor(max_workers=1) as reader:
            coming = _submit(reader, self._tokens, next(plan))
            while True:
                (tokens, places, skipped), coming = coming.result(), _submit(reader, self._tokens, next(plan))
                places = places.to(tokens.device)
                for position in range(skipped, len(places) // batch_size):
                    rows = places[position * batch_size : (position + 1) * batch_size]
                    yield tokens[rows].to(device, torch.float32)
                del tokens, places

    def _groups(self, batch_size: int, seed: int, start: int) -> Iterator[tuple[list[int], int, int]]:
        """(shards, seed of their permutation, batches to skip) of every group from the one that holds batch `start`."""
        import torch

        number = epoch = 0
        while True:
            seeds = generator(derive_seed(seed, "epoch", epoch))
            order = torch.randperm(len(self.sizes), generator=seeds).tolist()
            for first in range(0, len(order), GROUP_SHARDS):
                members = order[first : first + GROUP_SHARDS]
                count = sum(self.sizes[m] for m in members) // batch_size
                if number + count > start:
                    yield members, derive_seed(seed, "group", epoch, first), max(0, start - number)
                number += count
            epoch += 1
            if number == 0:
                raise WorkbenchError(
                    f"the store holds {self.n_tokens} tokens, fewer than one batch of {batch_size}",
                    "more tokens than batch_size",
                    "lower training.batch_size or raise the number of tokens",
                )

    def _tokens(self, group: tuple[list[int], int, int]) -> tuple[Tensor, Tensor, int]:
        import torch

        members, seed, skipped = group
        tokens = torch.cat([self.shard(m) for m in members])
        return tokens, torch.randperm(len(tokens), generator=generator(seed)), skipped

    def sample(self, n_tokens: int, *, n_shards: int = 16) -> Tensor:
        """About `n_tokens` tokens as [n, d_model], stored as they are, from at most `n_shards` shards spread over all."""
        import torch

        chosen = range(0, len(self.sizes), -(-len(self.sizes) // n_shards))
        each = -(-n_tokens // len(chosen))
        return torch.cat([self.shard(index)[:each] for index in chosen])


def _submit(reader: ThreadPoolExecutor, work: Any, *arguments: Any) -> Future[Any]:
    return reader.submit(work, *arguments)


@dataclass(frozen=True)
class ActivationStore(Activations):
    """A finished store on disk, of one of its hook points."""

    folder: Path
    manifest: dict[str, Any]

    @staticmethod
    def open(folder: Path, *, hook: str | None = None, verify: bool = False) -> ActivationStore:
        """The store in `folder` at `hook` (the only one when there is one); `verify` also checks every shard's hash.

        WorkbenchError when the store is unfinished or damaged, or has no such hook point.
        """
        manifest = read_json(Path(folder) / MANIFEST)
        if not manifest.get("complete"):
            raise WorkbenchError(
                f"the activation store {folder} is unfinished ({len(manifest.get('shards', []))} shards)",
                "a complete store",
                "run the same training command again: it goes on where it stopped",
            )
        if verify:
            verify_shards(Path(folder), manifest)
        return ActivationStore(Path(folder), manifest).at(hook or manifest["hooks"][0])

    def at(self, hook: str) -> ActivationStore:
        """The same tokens at another hook point of the store."""
        if hook not in self.manifest["hooks"]:
            raise unknown_name(f"hook point in {self.folder}", hook, self.manifest["hooks"])
        return replace(self, manifest={**self.manifest, "hook": hook})

    @property
    def sizes(self) -> Sequence[int]:  # type: ignore[override]
        return [shard["n_tokens"] for shard in self.manifest["shards"]]

    def shard(self, index: int) -> Tensor:
        from workbench.base.tensors import load_tensors

        name = self.manifest["shards"][index]["files"][self.manifest["hook"]]["file"]
        return load_tensors(self.folder / name)["activations"]


@dataclass(frozen=True, eq=False)
class HeldActivations(Activations):
    """Activations in the memory of one device: shard after shard, [n, d_model] each."""

    shards: Sequence[Tensor]
    manifest: dict[str, Any]

    @property
    def sizes(self) -> Sequence[int]:  # type: ignore[override]
        return [len(shard) for shard in self.shards]

    def shard(self, index: int) -> Tensor:
        return self.shards[index]


@dataclass(frozen=True, eq=False)
class JoinedActivations(Activations):
    """Several sources as one: the shards of each, one after the other."""

    parts: Sequence[Activations]

    def __post_init__(self) -> None:
        places = {(part.manifest["hook"], part.d_model) for part in self.parts}
        if len(places) != 1:
            raise WorkbenchError(
                f"activations of {len(places)} places: {sorted(map(str, places))}",
                "one hook point of one model",
                "join stores of one site",
            )

    @property
    def manifest(self) -> dict[str, Any]:  # type: ignore[override]
        first = self.parts[0].manifest
        sources: dict[str, int] = {}
        hashes: dict[str, list[str]] = {}
        for part in self.parts:
            for name, count in part.manifest["sources"].items():
                sources[name] = sources.get(name, 0) + count
                hashes.setdefault(name, []).append(part.manifest.get("source_hashes", {}).get(name, ""))
        return {
            **{name: first[name] for name in ("model", "hook", "d_model", "dtype")},
            "key": content_hash([part.key for part in self.parts]),
            "sources": sources,
            "source_hashes": {name: one[0] if len(one) == 1 else content_hash(one) for name, one in hashes.items()},
            "n_dropped": sum(part.manifest["n_dropped"] for part in self.parts),
        }

    @property
    def sizes(self) -> Sequence[int]:  # type: ignore[override]
        return [size for part in self.parts for size in part.sizes]

    def shard(self, index: int) -> Tensor:
        for part in self.parts:
            if index < len(part.sizes):
                return part.shard(index)
            index -= len(part.sizes)
        raise IndexError(index)


def verify_shards(folder: Path, manifest: dict[str, Any]) -> None:
    """Refuse a store with a shard that is missing or not what was written."""
    for shard in manifest["shards"]:
        for file in shard["files"].values():
            path = folder / file["file"]
            if not path.is_file() or sha256_file(path) != file["sha256"]:
                raise WorkbenchError(
                    f"the shard {file['file']} in {folder} does not match its hash",
                    f"sha256 {file['sha256']}",
                    "delete the folder and capture again",
                )

"""Activations to train on: shards on disk or a tensor in memory, read many times in shuffled batches.

A store is a folder of safetensors shards ([n, d_model] in 16 bits, and which tokens are corpus), a `shards.jsonl` with a
line for each, and a `manifest.json` that names the model, the hook points, the sources with their token counts, and how many
tokens were dropped and why. All hook points hold the same tokens, shard for shard. `capturing` writes stores.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError, unknown_name
from workbench.base.randomness import derive_seed, generator
from workbench.base.store import content_hash, read_json, read_text, sha256_file
from workbench.saes.token_rows import OF_THE_MODEL

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST, SHARDS = "manifest.json", "shards.jsonl"
_OF_A_SHARD = ("files", "n_tokens", "n_corpus", "sources", "dropped")
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
        read by a thread while this one is served) and a shard, whatever the size of the store.
        """
        import torch

        from workbench.models.transfers import to_device

        plan = self._groups(batch_size, seed, start)
        with ThreadPoolExecutor(max_workers=1) as reader:
            coming = reader.submit(self._tokens, next(plan))
            while True:
                (tokens, places, skipped), coming = coming.result(), reader.submit(self._tokens, next(plan))
                places = places.to(tokens.device)
                for position in range(skipped, len(places) // batch_size):
                    rows = places[position * batch_size : (position + 1) * batch_size]
                    yield to_device(tokens[rows], device, torch.float32)
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
        total, filled = sum(self.sizes[m] for m in members), 0
        first = self.shard(members[0])
        tokens = torch.empty(total, self.d_model, dtype=first.dtype, device=first.device)
        for member in members:
            shard = first if member == members[0] else self.shard(member)
            tokens[filled : filled + len(shard)] = shard
            filled += len(shard)
        return tokens, torch.randperm(total, generator=generator(seed)), skipped

    def sample(self, n_tokens: int, *, least_shards: int = 16) -> Tensor:
        """About `n_tokens` tokens [n, d_model], stored as they are, from shards spread over all: as few as hold them, but
        `least_shards`. All tokens when there are not so many."""
        import torch

        mean = max(1, self.n_tokens // len(self.sizes))
        count = min(len(self.sizes), max(least_shards, -(-n_tokens // mean)))
        chosen = [place * len(self.sizes) // count for place in range(count)]
        each = -(-n_tokens // count)
        return torch.cat([self.shard(index)[:each] for index in chosen])[:n_tokens]


@dataclass(frozen=True)
class ActivationStore(Activations):
    """A finished store on disk, of one of its hook points; with `corpus_only` what the model wrote itself is skipped."""

    folder: Path
    manifest: dict[str, Any]
    shards: tuple[dict[str, Any], ...]
    corpus_only: bool = False

    @staticmethod
    def open(folder: Path, *, hook: str | None = None, verify: bool = False) -> ActivationStore:
        """The store in `folder` at `hook` (the first one when none is named); `verify` also checks every shard's hash.

        WorkbenchError when the store is unfinished or damaged, or has no such hook point.
        """
        folder = Path(folder)
        manifest, shards = read_manifest(folder), read_shards(folder)
        if not manifest.get("complete"):
            raise WorkbenchError(
                f"the activation store {folder} is unfinished ({len(shards)} shards)",
                "a complete store",
                "run the same training command again: it goes on where it stopped",
            )
        if verify:
            verify_shards(folder, shards)
        return ActivationStore(folder, manifest, tuple(shards)).at(hook or manifest["hooks"][0])

    def at(self, hook: str) -> ActivationStore:
        """The same tokens at another hook point of the store."""
        if hook not in self.manifest["hooks"]:
            raise unknown_name(f"hook point in {self.folder}", hook, self.manifest["hooks"])
        return replace(self, manifest={**self.manifest, "hook": hook})

    def of_corpus(self) -> ActivationStore:
        """The corpus' tokens alone."""
        return replace(self, manifest=corpus_manifest(self.manifest), corpus_only=True)

    @cached_property
    def sizes(self) -> Sequence[int]:  # type: ignore[override]
        return [shard["n_corpus" if self.corpus_only else "n_tokens"] for shard in self.shards]

    def shard(self, index: int) -> Tensor:
        from workbench.base.tensors import load_tensors

        found = load_tensors(self.folder / self.shards[index]["files"][self.manifest["hook"]]["file"])
        return found["activations"][found["of_corpus"]] if self.corpus_only else found["activations"]


@dataclass(frozen=True, eq=False, repr=False)
class HeldActivations(Activations, Shown):
    """Activations in the memory of one device: (tokens [n, d_model], which of them are corpus [n]) shard after shard."""

    shards: Sequence[tuple[Tensor, Tensor]]
    manifest: dict[str, Any]
    corpus_only: bool = False

    def of_corpus(self) -> HeldActivations:
        """The corpus' tokens alone."""
        return HeldActivations(self.shards, corpus_manifest(self.manifest), corpus_only=True)

    @cached_property
    def sizes(self) -> Sequence[int]:  # type: ignore[override]
        return [int(corpus.sum()) if self.corpus_only else len(tokens) for tokens, corpus in self.shards]

    def shard(self, index: int) -> Tensor:
        tokens, corpus = self.shards[index]
        return tokens[corpus] if self.corpus_only else tokens


def corpus_manifest(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest of a store's corpus tokens."""
    sources = {name: count for name, count in manifest["sources"].items() if not name.startswith(OF_THE_MODEL)}
    return {**manifest, "sources": sources, "key": content_hash([manifest["key"], "corpus"])}


def read_shards(folder: Path) -> list[dict[str, Any]]:
    """The shards that were written, one JSON line each; a half-written last line is dropped."""
    path = Path(folder) / SHARDS
    lines = read_text(path).split("\n")[:-1] if path.exists() else []
    return [_shard(path, number, line) for number, line in enumerate(lines, 1)]


def _shard(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        shard = json.loads(line)
    except (ValueError, RecursionError):
        shard = None
    if not isinstance(shard, dict) or not shard.keys() >= set(_OF_A_SHARD):
        raise WorkbenchError(
            f"{path}, line {number}, is damaged: {line[:80]!r}",
            f"a JSON object with {', '.join(_OF_A_SHARD)}",
            f"delete the folder {path.parent} and capture again",
        )
    return shard


def read_manifest(folder: Path) -> dict[str, Any]:
    """A store's manifest; WorkbenchError when it is none."""
    path = Path(folder) / MANIFEST
    if not isinstance(manifest := read_json(path), dict):
        raise WorkbenchError(
            f"{path} holds {str(manifest)[:80]}", "a mapping", f"delete the folder {path.parent} and capture again"
        )
    return manifest


def check_new(folder: Path) -> None:
    """Refuse a folder that holds a store, or what an interrupted one left."""
    if (folder / MANIFEST).exists():
        raise WorkbenchError(f"{folder} holds a store already", "a new folder", "choose another")
    if (folder / SHARDS).exists():
        raise WorkbenchError(
            f"{folder} holds {SHARDS} without {MANIFEST}: what an interrupted store left",
            "a new folder",
            f"delete {folder}, or choose another",
        )


def verify_shards(folder: Path, shards: Sequence[dict[str, Any]]) -> None:
    """Refuse a store with a shard that is missing or not what was written."""
    for shard in shards:
        for file in shard["files"].values():
            path = folder / file["file"]
            if not path.is_file() or sha256_file(path) != file["sha256"]:
                raise WorkbenchError(
                    f"the shard {file['file']} in {folder} does not match its hash",
                    f"sha256 {file['sha256']}",
                    "delete the folder and capture again",
                )

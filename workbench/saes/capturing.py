"""From token rows to activations: one pass through the model serves any number of hook points.

Left out at every hook point, so that all of them hold the same tokens: position 0, norm sinks (norm above 10 x the
model's median at that hook) and, by choice, special tokens such as chat delimiters. What was left out is counted.
"""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError
from workbench.base.progress import track
from workbench.base.randomness import derive_seed, generator
from workbench.base.store import atomic_write, content_hash, sha256_file, write_json
from workbench.models.hookpoints import HookPoint
from workbench.saes.activations import (
    MANIFEST,
    SHARDS,
    ActivationStore,
    HeldActivations,
    check_new,
    read_manifest,
    read_shards,
    verify_shards,
)
from workbench.saes.token_rows import SINK_RATIO, TokenRow, activations_at_hooks, padded_rows

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.models.loading import Model

SCHEMA = 3
SHARD_BYTES = 75_497_472
"""65,536 tokens of 576 dimensions in 16 bits; wider models get fewer tokens a shard."""
DROPPED = ("position 0", "sink", "special")


@dataclass(frozen=True)
class CaptureOptions:
    """What is kept, and how it is laid out."""

    dtype: str = "auto"  # of the stored activations: the model's own 16-bit type, or float16
    keep_special: bool = True  # chat delimiters and other special tokens are kept
    shard_tokens: int | None = None  # tokens a shard, before the filter; None = by SHARD_BYTES
    batch_tokens: int = 2_048  # positions of one pass

    def stored(self, model: Model) -> str:
        """The storage type for a model: bfloat16 stays bfloat16, which loses nothing."""
        own = str(model.dtype).removeprefix("torch.")
        return (own if own == "bfloat16" else "float16") if self.dtype == "auto" else self.dtype

    def tokens_per_shard(self, d_model: int) -> int:
        """`shard_tokens`, or as many as SHARD_BYTES hold."""
        return self.shard_tokens or max(1, SHARD_BYTES // (2 * d_model))


@dataclass(frozen=True)
class _Group:
    """The kept tokens of some rows at every hook point, and the counts."""

    kept: Mapping[HookPoint, Tensor]
    of_corpus: Tensor
    sources: Counter[str]
    dropped: Counter[str]


def capture_stores(
    model: Model,
    hooks: Sequence[HookPoint],
    rows: Sequence[TokenRow],
    folder: Path,
    options: CaptureOptions = CaptureOptions(),
    *,
    label: str = "Capturing activations",
) -> dict[HookPoint, ActivationStore]:
    """A store per hook point, of the rows in the order given (shuffle documents before), written shard by shard.

    Resumes at the shard; a folder that holds anything else's activations is refused, and so is one that was damaged.
    """
    from workbench.base.tensors import save_tensors

    folder = Path(folder)
    manifest = _begin(folder, model, hooks, rows, options)
    shards = read_shards(folder)
    verify_shards(folder, shards)
    atomic_write(folder / SHARDS, "".join(json.dumps(shard) + "\n" for shard in shards))  # without a half-written line
    totals = _Totals.of(shards)
    if not manifest["complete"] or manifest["sources"] != totals.sources:  # lines were lost after it was complete
        for index, group in _captured(model, hooks, rows, options, manifest["key"], label, skip=len(shards)):
            files = {}
            for hook, tokens in group.kept.items():
                name = f"{hook}/shard-{index:05d}.safetensors"
                save_tensors(folder / name, {"activations": tokens.cpu(), "of_corpus": group.of_corpus.cpu()})
                files[str(hook)] = {"file": name, "sha256": sha256_file(folder / name)}
            _append(folder / SHARDS, {"files": files, **totals.add(group)})
        write_json(folder / MANIFEST, {**manifest, **totals.to_json(), "complete": True})
    return {hook: ActivationStore.open(folder, hook=str(hook)) for hook in hooks}


def store_given(
    folder: Path, shards: Iterable[Tensor], *, hook: str, model_name: str, source: str = "given", of_corpus: bool = True
) -> ActivationStore:
    """A store of activations that you have already: each of `shards` [n, d_model] (shuffled, 16 bits) becomes one shard.

    Nothing is filtered. Raises WorkbenchError when the folder holds a store, or what an interrupted call left of one.
    """
    import torch

    from workbench.base.tensors import save_tensors

    folder, totals, key, manifest = Path(folder), _Totals.of([]), hashlib.sha256(), {}
    check_new(folder)
    for index, tokens in enumerate(shards):
        name, corpus = f"{hook}/shard-{index:05d}.safetensors", torch.full((len(tokens),), of_corpus)
        save_tensors(folder / name, {"activations": tokens.cpu(), "of_corpus": corpus})
        files = {hook: {"file": name, "sha256": sha256_file(folder / name)}}
        group = _Group({HookPoint.parse(hook): tokens}, corpus, Counter({source: len(tokens)}), Counter())
        _append(folder / SHARDS, {"files": files, **totals.add(group)})
        key.update(files[hook]["sha256"].encode())
        manifest = {"d_model": tokens.shape[1], "dtype": str(tokens.dtype).removeprefix("torch.")}
    facts = {"schema": SCHEMA, "key": key.hexdigest(), "model": {"name": model_name}, "hooks": [hook], **manifest}
    write_json(folder / MANIFEST, {**facts, **totals.to_json(), "complete": True})
    return ActivationStore.open(folder)


def _append(path: Path, line: dict[str, Any]) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def capture_held(
    model: Model,
    hooks: Sequence[HookPoint],
    rows: Sequence[TokenRow],
    options: CaptureOptions = CaptureOptions(),
    *,
    label: str = "Capturing activations",
) -> dict[HookPoint, HeldActivations]:
    """The same activations kept in the memory of the model's device: for a large GPU, where a disk would be slow."""
    manifest, totals = _manifest(model, hooks, rows, options), _Totals.of([])
    shards: dict[HookPoint, list[tuple[Tensor, Tensor]]] = {hook: [] for hook in hooks}
    for _, group in _captured(model, hooks, rows, options, manifest["key"], label):
        for hook, tokens in group.kept.items():
            shards[hook].append((tokens, group.of_corpus.to(tokens.device)))
        totals.add(group)
    found = {**manifest, **totals.to_json(), "complete": True}
    return {hook: HeldActivations(shards[hook], {**found, "hook": str(hook)}) for hook in hooks}


@dataclass
class _Totals:
    """Tokens kept per source and dropped per reason, over all shards."""

    sources: Counter[str]
    dropped: Counter[str]

    @classmethod
    def of(cls, shards: Sequence[dict[str, Any]]) -> _Totals:
        """Those of shards that are there already."""
        parts = [(Counter(shard["sources"]), Counter(shard["dropped"])) for shard in shards]
        return cls(sum((one for one, _ in parts), Counter()), sum((one for _, one in parts), Counter()))

    def add(self, group: _Group) -> dict[str, Any]:
        """Count a group; what the shard's own line says of it."""
        self.sources += group.sources
        self.dropped += group.dropped
        n_tokens, n_corpus = len(group.of_corpus), int(group.of_corpus.sum())
        counts = {"sources": dict(group.sources), "dropped": dict(group.dropped)}
        return {"n_tokens": n_tokens, "n_corpus": n_corpus, **counts}

    def to_json(self) -> dict[str, Any]:
        """{sources, dropped, n_dropped}."""
        dropped = {name: self.dropped[name] for name in DROPPED}
        return {"sources": dict(self.sources), "dropped": dropped, "n_dropped": sum(dropped.values())}


def capture_key(
    model: Model, hooks: Sequence[HookPoint], rows: Sequence[TokenRow], options: CaptureOptions = CaptureOptions()
) -> str:
    """The hash of what a capture depends on: model, hook points, rows, filter, storage."""
    dtype, per_shard = options.stored(model), options.tokens_per_shard(model.d_model)
    what = [model.weights_hash, str(model.dtype), list(map(str, hooks)), dtype, options.keep_special, per_shard]
    return content_hash([SCHEMA, *what, rows_hash(rows)])


def _manifest(
    model: Model, hooks: Sequence[HookPoint], rows: Sequence[TokenRow], options: CaptureOptions
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "key": capture_key(model, hooks, rows, options),
        "model": model.description(),
        "hooks": list(map(str, hooks)),
        "d_model": model.d_model,
        "dtype": options.stored(model),
        "sink_ratio": SINK_RATIO,
        "keep_special": options.keep_special,
        "source_hashes": _source_hashes(rows),
        "complete": False,
    }


def rows_hash(rows: Sequence[TokenRow]) -> str:
    """A hash of the rows' tokens, sources and order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(f"{row.source} {len(row.ids)} ".encode() + array("q", row.ids).tobytes())
    return digest.hexdigest()


def _source_hashes(rows: Sequence[TokenRow]) -> dict[str, str]:
    by_source: dict[str, list[TokenRow]] = {}
    for row in rows:
        by_source.setdefault(row.source, []).append(row)
    return {source: rows_hash(part) for source, part in sorted(by_source.items())}


def _begin(
    folder: Path, model: Model, hooks: Sequence[HookPoint], rows: Sequence[TokenRow], options: CaptureOptions
) -> dict[str, Any]:
    fresh = _manifest(model, hooks, rows, options)
    if not (folder / MANIFEST).exists():
        check_new(folder)
        write_json(folder / MANIFEST, fresh)
        return fresh
    manifest = read_manifest(folder)
    if manifest.get("key") != fresh["key"]:
        raise WorkbenchError(
            f"the folder {folder} holds activations of other rows, another model, other hook points or another filter",
            "an empty folder or the same data",
            "choose another --out folder or delete this one",
        )
    return manifest


def _groups(rows: Sequence[TokenRow], shard_tokens: int) -> Iterator[list[TokenRow]]:
    group: list[TokenRow] = []
    size = 0
    for row in rows:
        group.append(row)
        size += len(row.ids)
        if size >= shard_tokens:
            yield group
            group, size = [], 0
    if group:
        yield group


def _captured(
    model: Model,
    hooks: Sequence[HookPoint],
    rows: Sequence[TokenRow],
    options: CaptureOptions,
    key: str,
    label: str,
    skip: int = 0,
) -> Iterator[tuple[int, _Group]]:
    """(shard number, its shuffled tokens) of every group of rows after the first `skip`."""
    import torch

    limits = SINK_RATIO * model.norm_medians(hooks)
    special = _special_ids(model) if not options.keep_special else None
    dtype = getattr(torch, options.stored(model))
    groups = _groups(rows, options.tokens_per_shard(model.d_model))
    with track(label, total=sum(len(row.ids) for row in rows), unit="tokens") as step:
        for index, members in enumerate(groups):
            if index < skip:
                step(sum(len(row.ids) for row in members))
                continue
            group = _capture_group(model, hooks, members, limits, special, dtype, options.batch_tokens, step)
            places = torch.randperm(len(group.of_corpus), generator=generator(derive_seed(key, index)))
            kept = {hook: tokens[places.to(tokens.device)] for hook, tokens in group.kept.items()}
            yield index, _Group(kept, group.of_corpus[places], group.sources, group.dropped)


def _special_ids(model: Model) -> Tensor:
    import torch

    return torch.tensor(sorted(set(model.tokenizer.all_special_ids)), dtype=torch.long)


def _capture_group(
    model: Model,
    hooks: Sequence[HookPoint],
    rows: list[TokenRow],
    limits: Tensor,
    special: Tensor | None,
    dtype: Any,
    batch_tokens: int,
    step: Any,
) -> _Group:
    import torch

    kept: dict[HookPoint, list[Tensor]] = {hook: [] for hook in hooks}
    of_corpus: list[Tensor] = []
    sources: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    for ids, mask, members in padded_rows(rows, batch_tokens):
        found = activations_at_hooks(model, hooks, ids)
        present = mask.bool().to(ids.device)
        keep, n_dropped = _filter(found, limits, ids, present, special)
        dropped += n_dropped
        counts = keep.sum(1).cpu()
        for row, count in zip(members, counts.tolist(), strict=True):
            sources[row.source] += count
        of_corpus.append(torch.tensor([row.of_corpus for row in members]).repeat_interleave(counts))
        for hook, acts in found.items():
            kept[hook].append(_stored(acts[keep.to(acts.device)], dtype))
        step(int(mask.sum()))
    return _Group({hook: torch.cat(parts) for hook, parts in kept.items()}, torch.cat(of_corpus), sources, dropped)


def _stored(tokens: Tensor, dtype: Any) -> Tensor:
    stored = tokens.to(dtype)
    if not bool(stored.isfinite().all()):
        raise WorkbenchError(
            f"an activation does not fit into {str(dtype).removeprefix('torch.')} (largest: {float(tokens.abs().max()):.3g})",
            "finite stored activations",
            "set data.stored_dtype to bfloat16",
        )
    return stored


def _filter(
    found: Mapping[HookPoint, Tensor], limits: Tensor, ids: Tensor, present: Tensor, special: Tensor | None
) -> tuple[Tensor, Counter[str]]:
    """Which positions [batch, seq] are kept, and why the others among those `present` are not."""
    import torch

    sink = torch.zeros_like(present)
    for acts, limit in zip(found.values(), limits.tolist(), strict=True):
        sink |= (acts.float().norm(dim=-1) > limit).to(sink.device)
    first = torch.zeros_like(present)
    first[:, 0] = True
    marked = torch.zeros_like(present) if special is None else torch.isin(ids, special.to(ids.device))
    reasons = (first & present, sink & present & ~first, marked & present & ~first & ~sink)
    counts = Counter({name: int(mask.sum()) for name, mask in zip(DROPPED, reasons, strict=True)})
    return present & ~first & ~sink & ~marked, counts

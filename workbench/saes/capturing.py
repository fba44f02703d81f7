"""From token rows to activations: one pass through the model serves any number of hook points.

Left out at every hook point, so that all of them hold the same tokens: position 0, norm sinks (norm above 10 x the
model's median at that hook) and, by choice, special tokens such as chat delimiters. What was left out is counted.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError
from workbench.base.progress import track
from workbench.base.randomness import derive_seed, generator
from workbench.base.store import content_hash, read_json, sha256_file, write_json
from workbench.models.hookpoints import HookPoint
from workbench.saes.activations import MANIFEST, ActivationStore, HeldActivations, verify_shards
from workbench.saes.token_rows import SINK_RATIO, TokenRow, activations_at_hooks, padded_rows

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.models.loading import Model

SCHEMA = 2
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
    verify_shards(folder, manifest)
    groups = list(_groups(rows, options.tokens_per_shard(model.d_model)))
    if not manifest["complete"]:
        for index, group in _captured(model, hooks, groups, options, manifest, label):
            files = {}
            for hook, tokens in group.kept.items():
                name = f"{hook}/shard-{index:05d}.safetensors"
                save_tensors(folder / name, {"activations": tokens.cpu()})
                files[str(hook)] = {"file": name, "sha256": sha256_file(folder / name)}
            _count(manifest, group, files)
            write_json(folder / MANIFEST, manifest)
        manifest["complete"] = True
        write_json(folder / MANIFEST, manifest)
    return {hook: ActivationStore.open(folder, hook=str(hook)) for hook in hooks}


def capture_held(
    model: Model,
    hooks: Sequence[HookPoint],
    rows: Sequence[TokenRow],
    options: CaptureOptions = CaptureOptions(),
    *,
    label: str = "Capturing activations",
) -> dict[HookPoint, HeldActivations]:
    """The same activations kept in the memory of the model's device: for a large GPU, where a disk would be slow."""
    manifest = _manifest(model, hooks, rows, options)
    groups = list(_groups(rows, options.tokens_per_shard(model.d_model)))
    shards: dict[HookPoint, list[Tensor]] = {hook: [] for hook in hooks}
    for _, group in _captured(model, hooks, groups, options, manifest, label):
        for hook, tokens in group.kept.items():
            shards[hook].append(tokens)
        _count(manifest, group, {})
    return {hook: HeldActivations(shards[hook], {**manifest, "hook": str(hook)}) for hook in hooks}


def _count(manifest: dict[str, Any], group: _Group, files: dict[str, Any]) -> None:
    n_tokens = len(next(iter(group.kept.values())))
    manifest["shards"].append({"files": files, "n_tokens": n_tokens, "sources": dict(group.sources)})
    for name, count in group.sources.items():
        manifest["sources"][name] = manifest["sources"].get(name, 0) + count
    for name, count in group.dropped.items():
        manifest["dropped"][name] += count
    manifest["n_dropped"] = sum(manifest["dropped"].values())


def _manifest(
    model: Model, hooks: Sequence[HookPoint], rows: Sequence[TokenRow], options: CaptureOptions
) -> dict[str, Any]:
    dtype, per_shard = options.stored(model), options.tokens_per_shard(model.d_model)
    content = rows_hash(rows)
    names = [str(hook) for hook in hooks]
    return {
        "schema": SCHEMA,
        "key": content_hash(
            [SCHEMA, model.weights_hash, str(model.dtype), names, dtype, options.keep_special, per_shard, content]
        ),
        "model": model.description(),
        "hooks": names,
        "d_model": model.d_model,
        "dtype": dtype,
        "sink_ratio": SINK_RATIO,
        "keep_special": options.keep_special,
        "rows": content,
        "source_hashes": _source_hashes(rows),
        "shards": [],
        "sources": {},
        "dropped": dict.fromkeys(DROPPED, 0),
        "n_dropped": 0,
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
        return fresh
    manifest = read_json(folder / MANIFEST)
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
    groups: list[list[TokenRow]],
    options: CaptureOptions,
    manifest: dict[str, Any],
    label: str,
) -> Iterator[tuple[int, _Group]]:
    """(shard number, its shuffled tokens) of every group that the manifest does not have yet."""
    import torch

    limits = SINK_RATIO * model.norm_medians(hooks)
    special = _special_ids(model) if not options.keep_special else None
    dtype = getattr(torch, options.stored(model))
    with track(label, total=sum(len(row.ids) for group in groups for row in group), unit="tokens") as step:
        for index, rows in enumerate(groups):
            if index < len(manifest["shards"]):
                step(sum(len(row.ids) for row in rows))
                continue
            group = _capture_group(model, hooks, rows, limits, special, dtype, options.batch_tokens, step)
            size = len(next(iter(group.kept.values())))
            places = torch.randperm(size, generator=generator(derive_seed(manifest["key"], index)))
            kept = {hook: tokens[places.to(tokens.device)] for hook, tokens in group.kept.items()}
            yield index, _Group(kept, group.sources, group.dropped)


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
    sources: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    for ids, mask, members in padded_rows(rows, batch_tokens):
        found = activations_at_hooks(model, hooks, ids)
        present = mask.bool().to(ids.device)
        keep, n_dropped = _filter(found, limits, ids, present, special)
        dropped += n_dropped
        for row, count in zip(members, keep.sum(1).tolist(), strict=True):
            sources[row.source] += count
        for hook, acts in found.items():
            kept[hook].append(_stored(acts[keep.to(acts.device)], dtype))
        step(int(mask.sum()))
    return _Group({hook: torch.cat(parts) for hook, parts in kept.items()}, sources, dropped)


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

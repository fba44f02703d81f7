"""Activations on disk: captured once, read many times in shuffled batches with bounded memory.

A store is a folder of safetensors shards ([n, d_model] float16) and a `manifest.json` that names the model, the hook
point, the text sources with their token counts, and how many tokens the sink rule dropped. One shard holds the tokens
of one fixed group of rows, shuffled; an interrupted capture goes on at the first missing shard.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError
from workbench.base.progress import track
from workbench.base.randomness import derive_seed, generator
from workbench.base.store import content_hash, read_json, sha256_file, write_json
from workbench.models.hookpoints import HookPoint

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.models.loading import Model

SCHEMA = 1
SINK_RATIO = 10.0
GROUP_SHARDS = 8


@dataclass(frozen=True)
class TokenRow:
    """The token ids of one document or chat, and the source they count under."""

    ids: tuple[int, ...]
    source: str


@dataclass(frozen=True)
class ActivationStore:
    """A finished store. `batches` yields [batch_size, d_model] float32 tensors in a seeded order."""

    folder: Path
    manifest: dict[str, Any]

    @staticmethod
    def open(folder: Path, *, verify: bool = False) -> ActivationStore:
        """The store in `folder`; `verify` also checks every shard's hash. WorkbenchError when unfinished or damaged."""
        manifest = read_json(Path(folder) / "manifest.json")
        if not manifest.get("complete"):
            raise WorkbenchError(
                f"the activation store {folder} is unfinished ({len(manifest.get('shards', []))} shards)",
                "a complete store",
                "run the same training command again: it goes on where it stopped",
            )
        if verify:
            _verify(Path(folder), manifest)
        return ActivationStore(Path(folder), manifest)

    @property
    def n_tokens(self) -> int:
        return sum(shard["n_tokens"] for shard in self.manifest["shards"])

    @property
    def d_model(self) -> int:
        return int(self.manifest["d_model"])

    def shard(self, index: int) -> Tensor:
        """One shard as stored, [n, d_model] float16."""
        from workbench.base.tensors import load_tensors

        return load_tensors(self.folder / self.manifest["shards"][index]["file"])["activations"]

    def batches(self, batch_size: int, *, seed: int, start: int = 0) -> Iterator[Tensor]:
        """Endless shuffled batches from batch number `start` on: batch n is the same whatever `start` was.

        Every epoch visits the shards in a new order, `GROUP_SHARDS` in memory at a time, their tokens permuted together.
        """
        import torch

        number = 0
        epoch = 0
        while True:
            order = torch.randperm(
                len(self.manifest["shards"]), generator=generator(derive_seed(seed, "epoch", epoch))
            )
            for first in range(0, len(order), GROUP_SHARDS):
                members = order[first : first + GROUP_SHARDS].tolist()
                size = sum(self.manifest["shards"][m]["n_tokens"] for m in members)
                count = size // batch_size
                if number + count <= start:
                    number += count
                    continue
                tokens = torch.cat([self.shard(m) for m in members])
                places = torch.randperm(size, generator=generator(derive_seed(seed, "group", epoch, first)))
                for position in range(count):
                    if number >= start:
                        yield tokens[places[position * batch_size : (position + 1) * batch_size]].float()
                    number += 1
            epoch += 1
            if number == 0:
                raise WorkbenchError(
                    f"the store holds {self.n_tokens} tokens, fewer than one batch of {batch_size}",
                    "more tokens than batch_size",
                    "lower training.batch_size or raise the number of tokens",
                )


def capture_store(
    model: Model,
    hook: HookPoint,
    rows: Sequence[TokenRow],
    folder: Path,
    *,
    shard_tokens: int = 65_536,
    batch_tokens: int = 2_048,
    label: str = "Capturing activations",
) -> ActivationStore:
    """Run the rows through the model up to `hook` and keep every token but position 0 and norm sinks.

    A sink is a token whose norm is above 10 x the model's median non-sink norm at the hook. Rows are taken in the order
    given: shuffle documents before. Resumes at the shard; a store of other rows in the same folder is refused.
    """
    from workbench.base.tensors import save_tensors

    folder = Path(folder)
    key = _key(model, hook, rows, shard_tokens)
    manifest = _begin(folder, key, model, hook)
    if manifest.get("complete"):
        return ActivationStore.open(folder)
    groups = list(_groups(rows, shard_tokens))
    threshold = SINK_RATIO * float(model.norm_medians([hook])[0])
    with track(label, total=sum(len(r.ids) for r in rows), unit="tokens") as step:
        for index, group in enumerate(groups):
            if index < len(manifest["shards"]):
                step(sum(len(r.ids) for r in group))
                continue
            kept, counts, dropped = _capture_group(model, hook, group, threshold, batch_tokens, step)
            import torch

            kept = kept[torch.randperm(len(kept), generator=generator(derive_seed(key, index)))]
            name = f"shard-{index:05d}.safetensors"
            save_tensors(folder / name, {"activations": kept})
            manifest["shards"].append(
                {
                    "file": name,
                    "n_tokens": len(kept),
                    "sha256": sha256_file(folder / name),
                    "sources": dict(counts),
                }
            )
            manifest["n_dropped"] += dropped
            write_json(folder / "manifest.json", manifest)
    manifest["complete"] = True
    write_json(folder / "manifest.json", manifest)
    return ActivationStore(folder, manifest)


def _key(model: Model, hook: HookPoint, rows: Sequence[TokenRow], shard_tokens: int) -> str:
    content = content_hash([[list(r.ids), r.source] for r in rows])
    return content_hash([SCHEMA, model.weights_hash, str(model.dtype), str(hook), shard_tokens, content])


def _begin(folder: Path, key: str, model: Model, hook: HookPoint) -> dict[str, Any]:
    if (folder / "manifest.json").exists():
        manifest = read_json(folder / "manifest.json")
        if manifest.get("key") != key:
            raise WorkbenchError(
                f"the folder {folder} holds activations of other rows, another model or another hook point",
                "an empty folder or the same data",
                "choose another --out folder or delete this one",
            )
        return manifest
    return {
        "schema": SCHEMA,
        "key": key,
        "model": model.description(),
        "hook": str(hook),
        "d_model": model.d_model,
        "dtype": "float16",
        "sink_ratio": SINK_RATIO,
        "shards": [],
        "n_dropped": 0,
        "complete": False,
    }


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


def _capture_group(
    model: Model, hook: HookPoint, group: list[TokenRow], threshold: float, batch_tokens: int, step: Any
) -> tuple[Tensor, Counter[str], int]:
    """The kept activations of one group [n, d_model] float16, kept tokens per source, and the number dropped."""
    import torch

    kept: list[Tensor] = []
    counts: Counter[str] = Counter()
    dropped = 0
    for ids, mask, members in _padded(group, batch_tokens):
        acts = activations_at(model, hook, ids, mask).float()
        keep = mask.bool().clone()
        keep[:, 0] = False
        keep &= (acts.norm(dim=-1) <= threshold).to(keep.device)
        for place, row in enumerate(members):
            counts[row.source] += int(keep[place].sum())
        dropped += int(mask.sum()) - int(keep.sum())
        kept.append(acts[keep].to(torch.float16).cpu())
        step(int(mask.sum()))
    return torch.cat(kept), counts, dropped


def _padded(group: list[TokenRow], batch_tokens: int) -> Iterator[tuple[Tensor, Tensor, list[TokenRow]]]:
    """Right-padded batches of rows of similar length: ids [b, s], mask [b, s] and the rows."""
    import torch

    ordered = sorted(group, key=lambda row: len(row.ids))
    start = 0
    while start < len(ordered):
        stop = start + 1
        while stop < len(ordered) and len(ordered[stop].ids) * (stop + 1 - start) <= batch_tokens:
            stop += 1
        members = ordered[start:stop]
        width = len(members[-1].ids)
        ids = torch.zeros(len(members), width, dtype=torch.long)
        mask = torch.zeros(len(members), width, dtype=torch.long)
        for place, row in enumerate(members):
            ids[place, : len(row.ids)] = torch.tensor(row.ids)
            mask[place, : len(row.ids)] = 1
        yield ids, mask, members
        start = stop


def activations_at(model: Model, hook: HookPoint, ids: Tensor, mask: Tensor) -> Tensor:
    """The hook point's activations [batch, seq, d_model] for one padded batch; no block after the hook's runs."""
    from workbench.models.capture import stream_activations

    return next(iter(stream_activations(model, [ids], hook, [mask])))


def text_rows(
    model: Model, documents: Iterable[Any], *, max_tokens: int = 256, min_tokens: int = 16
) -> list[TokenRow]:
    """Documents as token rows without special tokens, cut to `max_tokens`; shorter than `min_tokens` are left out."""
    rows = []
    for document in documents:
        ids = model.tokenizer(document.text, add_special_tokens=False)["input_ids"][:max_tokens]
        if len(ids) >= min_tokens:
            rows.append(TokenRow(tuple(ids), document.source))
    return rows


def _verify(folder: Path, manifest: dict[str, Any]) -> None:
    for shard in manifest["shards"]:
        if sha256_file(folder / shard["file"]) != shard["sha256"]:
            raise WorkbenchError(
                f"the shard {shard['file']} in {folder} does not match its hash",
                f"sha256 {shard['sha256']}",
                "delete the folder and capture again",
            )

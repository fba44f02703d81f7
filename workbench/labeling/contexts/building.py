"""The index of all features of an SAE: one streaming pass over documents, in pieces that survive an interruption."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from workbench.base.errors import WorkbenchError
from workbench.base.progress import track
from workbench.base.provenance import provenance
from workbench.base.store import atomic_write, content_hash, make_folder, read_json, sha256_file, write_json
from workbench.base.tensors import save_artifact
from workbench.labeling.contexts.coactivation import CoActivation, coactivation, share_to_read
from workbench.labeling.contexts.collection import batches
from workbench.labeling.contexts.encoding import Encoder, given_hash, roles_of
from workbench.labeling.contexts.index import FeatureIndex
from workbench.labeling.contexts.opening import KIND, SCHEMA, schema_of
from workbench.labeling.contexts.pieces import Reader, Spread, written, written_ahead
from workbench.labeling.contexts.places import Places
from workbench.labeling.contexts.shards import Shard, is_written, shard_folder, shard_hash
from workbench.labeling.contexts.streams import TextDocument, TokenDocument
from workbench.labeling.contexts.tallies import Sizes, Tally

if TYPE_CHECKING:
    from workbench.models.model import Model
    from workbench.saes.interface import SparseAutoencoder

SHARD_TOKENS = 32_768
"""Tokens of one piece: what an interruption costs at most."""
SETTINGS = "settings.json"


def build_index(
    sae: SparseAutoencoder,
    model: Model,
    documents: Iterable[TokenDocument | TextDocument | str],
    folder: str | Path,
    *,
    n_tokens: int = 1_000_000,
    context: int = 24,
    n_top: int = 20,
    per_bin: int = 3,
    per_source: int | None = None,
    batch_tokens: int = 4096,
    shard_tokens: int = SHARD_TOKENS,
    seed: int = 0,
    spread: Spread | None = None,
) -> FeatureIndex:
    """The index of all features of `sae` over at most `n_tokens` tokens of `documents`, kept in `folder`.

    Texts run through the model up to the SAE's hook; `TokenDocument`s that bring their activations do not. Special tokens, first
    tokens of texts and attention sinks (norm > 10 x the model's median) never count as firing. Per feature, kind of source
    (corpus, chat, rollouts) and half (explaining, scoring: `streams.is_scoring`) the `n_top` strongest contexts and `per_bin` of
    each activation bin are kept: one per document, no text of a source twice, at most `per_source` of one source among the
    strongest (default: three quarters of `n_top`).

    Pieces of `shard_tokens` tokens are written as they are read. The same call goes on after the last finished piece, and the
    result is the same byte for byte as without the interruption. `spread` lets other processes write the pieces, with the same
    result. Memory: some kilobytes per feature and one piece, whatever `n_tokens` is. Disk: about 8 bytes per active feature
    and token.

    Raises:
        WorkbenchError: nothing to read, a folder with an index of something else, other documents than those of the interrupted
        pass, a damaged piece; what tasks of `spread` raise (`pieces.written_ahead`).
    """
    place = make_folder(folder)
    sizes = Sizes(context=context, n_top=n_top, per_bin=per_bin, per_source=per_source)
    settings = _settings(sae, model, sizes, n_tokens, batch_tokens, shard_tokens, seed)
    _claim(place, settings)
    encoder = Encoder(sae, model, batch_tokens=batch_tokens)
    vocab_size = max(model.vocab_size, len(model.tokenizer))
    tally = Tally(sae.d_sae, vocab_size, sizes, seed)
    done: list[dict[str, Any]] = []
    n_triples, n_pairs = 0, 0.0
    with track("Indexing features", n_tokens, "tokens") as step:
        parts = batches(model, documents, n_tokens, shard_tokens)
        pieces = ((shard_folder(place, number), part) for number, part in enumerate(parts))
        for piece, part in pieces if spread is None else written_ahead(pieces, spread, Reader.like(encoder, spread)):
            shard = _shard(piece, part, encoder, vocab_size)
            tally.add(shard)
            tally.read_words(model.tokenizer, shard)
            done.append({"n_tokens": shard.n_tokens, "sha256": shard_hash(piece)})
            per_token = np.diff(shard.code_starts).astype(np.float64)
            n_triples, n_pairs = n_triples + len(shard.features), n_pairs + float(per_token @ per_token)
            step(shard.n_tokens)
    if not tally.pools.tokens.sum():
        raise WorkbenchError("there is no text to read features in", "documents, chats or rollouts", "give texts or a vector")
    _nothing_left(place, len(done))
    shards = (
        Shard.load(shard_folder(place, number), d_sae=sae.d_sae, vocab_size=vocab_size) for number in range(len(done))
    )
    together = coactivation(shards, sae.d_sae, share_to_read(n_triples, n_pairs), seed=seed)
    _finish(place, tally, together, settings, done, model, sae)
    return FeatureIndex.open(place, model=model, sae=sae)


def _settings(
    sae: SparseAutoencoder, model: Model, sizes: Sizes, n_tokens: int, batch_tokens: int, shard_tokens: int, seed: int
) -> dict[str, Any]:
    """What the pieces and the result depend on, the documents apart."""
    return {
        "schema": SCHEMA,
        "sae": {"id": sae.id, "hook": str(sae.hook), "d_sae": sae.d_sae, "weights_hash": sae.weights_hash},
        "model": {"name": model.name, "weights_hash": model.weights_hash, "dtype": str(model.dtype).removeprefix("torch.")},
        "sizes": {"context": sizes.context, "n_top": sizes.n_top, "per_bin": sizes.per_bin, "per_source": sizes.cap},
        "n_tokens": n_tokens,
        "batch_tokens": batch_tokens,
        "shard_tokens": shard_tokens,
        "seed": seed,
    }


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    """Refuse a folder whose pieces were made with other settings; write down these ones otherwise.

    What an older schema counted is dropped; its pieces hold the same as today's and are counted anew.
    """
    path = folder / SETTINGS
    if not path.exists():
        write_json(path, settings)
        return
    found = read_json(path)
    older = isinstance(found, dict) and schema_of(found) < SCHEMA
    if older:
        found = {**found, "schema": SCHEMA}
    known = found if isinstance(found, dict) else {}
    differing = [name for name in settings if name not in known or _nameless(known[name]) != _nameless(settings[name])]
    if differing:
        name = differing[0]
        had = found.get(name) if isinstance(found, dict) else None
        raise WorkbenchError(
            f"{folder} holds an index with another {name} ({had})",
            f"an empty folder, or one that was begun with {settings[name]}",
            "choose another folder, or delete this one",
        )
    if older:
        (folder / f"{KIND}.json").unlink(missing_ok=True)
        write_json(path, settings)


def _nameless(setting: Any) -> Any:
    """Without the name or folder that an SAE or a model was loaded by: their weights decide."""
    named = isinstance(setting, dict) and "weights_hash" in setting
    return {key: value for key, value in setting.items() if key not in ("id", "name")} if named else setting


def _shard(folder: Path, part: list[TokenDocument], encoder: Encoder, vocab_size: int) -> Shard:
    """The piece of these documents: from disk when it was finished before."""
    if not is_written(folder):
        return written(folder, part, encoder)
    shard = Shard.load(folder, d_sae=encoder.sae.d_sae, vocab_size=vocab_size)
    names = tuple((document.id, document.source, document.group) for document in part)
    same = (shard.documents == names and shard.ids.tolist() == [token for document in part for token in document.ids]
            and np.array_equal(shard.roles, roles_of(part)) and shard.given in (None, given_hash(part)))  # fmt: skip
    if not same:
        raise WorkbenchError(
            f"{folder} was read from other documents than those given now",
            "the documents that the index was begun with, in the same order, with the same roles and activations",
            "give those, or begin anew in another folder",
        )
    return shard


def _nothing_left(folder: Path, n_pieces: int) -> None:
    """Refuse to finish an index with fewer pieces than were written for it."""
    if is_written(shard_folder(folder, n_pieces)):
        raise WorkbenchError(
            f"{folder} holds more pieces than the {n_pieces} that these documents make",
            "all the documents that the index was begun with",
            "give those, or build the smaller index in another folder",
        )


def _finish(
    folder: Path,
    tally: Tally,
    together: CoActivation,
    settings: dict[str, Any],
    shards: list[dict[str, Any]],
    model: Model,
    sae: SparseAutoencoder,
) -> None:
    """Write what was counted; `feature_index.json` comes last and vouches for the rest."""
    write_json(folder / "words.json", dict(sorted(tally.words.items(), key=lambda item: (-item[1], item[0]))))
    hashes = {"sae": sae.weights_hash, "model": model.weights_hash}
    described = {"sae": sae.description(), "model": model.description()}
    write_json(folder / "provenance.json", provenance(seed=settings["seed"], inputs=hashes, config=settings, **described))
    files = ["words.json"]
    core = getattr(model.tokenizer, "backend_tokenizer", None)
    if core is not None:
        atomic_write(folder / "tokenizer.json", core.to_str())
        files.append("tokenizer.json")
    document = {
        **settings,
        "key": content_hash([settings, shards]),
        "n_read": tally.n_read,
        "n_documents": tally.n_documents,
        "n_first": tally.n_first,
        "vocab_size": tally.vocab_size,
        "sources": tally.sources,
        "coactivation": {"n_tokens": together.n_tokens, "share": together.share},
        "shards": shards,
        "files": {name: sha256_file(folder / name) for name in files},
    }
    save_artifact(folder, KIND, SCHEMA, document, {name: torch.from_numpy(a) for name, a in _arrays(tally, together).items()})


def _arrays(tally: Tally, together: CoActivation) -> dict[str, np.ndarray]:
    histogram = np.flatnonzero(tally.histogram)
    arrays = {
        "largest": tally.largest,
        "histogram_keys": histogram,
        "histogram_counts": tally.histogram.ravel()[histogram],
        "first_fired": tally.first_fired,
        "token_keys": tally.tokens.keys,
        "token_counts": tally.tokens.counts,
        "token_missed": tally.tokens.missed,
        "partners": together.partners,
        "together": together.together,
        "partners_fired": together.fired,
    }
    splits = {"pools": tally.pools, "roles": tally.roles, "positions": tally.positions, "sources": tally.by_source}
    for name, split in splits.items():
        arrays |= {f"{name}_fired": split.fired, f"{name}_total": split.total, f"{name}_tokens": split.tokens}
    for name, best in (("top", tally.top), ("spread", tally.spread), ("random", tally.random)):
        arrays |= _places(name, best.kept)
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _places(name: str, places: Places) -> dict[str, np.ndarray]:
    return {f"{name}_{part.name}": getattr(places, part.name) for part in fields(places)}

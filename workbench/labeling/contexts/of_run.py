"""A small index for one run: its own rollouts, some held-out chats and some plain text, enough to show and label features."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.labeling.contexts.building import build_index
from workbench.labeling.contexts.chats import held_out_chats
from workbench.labeling.contexts.index import FeatureIndex
from workbench.labeling.contexts.sizes import RunSizes
from workbench.labeling.contexts.streams import (
    MAX_CHAT_TOKENS,
    TokenDocument,
    has_rollouts,
    rollout_stream,
    text_stream,
)

if TYPE_CHECKING:
    from workbench.models.model import Model
    from workbench.personas.vectors import PersonaVector
    from workbench.saes.interface import SparseAutoencoder


def run_index(
    vector: PersonaVector,
    sae: SparseAutoencoder,
    model: Model,
    folder: str | Path,
    *,
    chats: str | Path,
    sizes: RunSizes | None = None,
    seed: int = 0,
) -> FeatureIndex:
    """The small index in `folder`, built now or gone on with; `chats` keeps the sampled chats, which runs of a model share.

    The rollouts (extraction questions only) bring their activations and cost little; the rest is read up to the SAE's hook.
    Only text that may be passed on is read. Raises WorkbenchError as `build_index` does.
    """
    wanted = sizes or RunSizes()
    parts = _documents(vector, sae, model, Path(chats), wanted, seed)
    n_tokens = _n_rollout_tokens(vector) + wanted.n_chats * MAX_CHAT_TOKENS + wanted.n_text_tokens
    return build_index(
        sae, model, parts, folder, n_tokens=n_tokens, n_top=wanted.n_top, per_bin=wanted.per_bin, seed=seed
    )


def _documents(
    vector: PersonaVector, sae: SparseAutoencoder, model: Model, chats: Path, sizes: RunSizes, seed: int
) -> Iterator[TokenDocument]:
    from workbench.saes.corpus import documents

    if has_rollouts(vector):
        yield from rollout_stream(vector, sae.hook)
    if sizes.n_chats:
        yield from held_out_chats(model, sizes.n_chats, chats, seed=seed)
    if sizes.n_text_tokens:
        yield from _first(text_stream(model, documents("owt", role="labels")), sizes.n_text_tokens)


def _first(documents: Iterable[TokenDocument], n_tokens: int) -> Iterator[TokenDocument]:
    """Whole documents until `n_tokens` have been given."""
    given = 0
    for document in documents:
        if given >= n_tokens:
            return
        given += len(document.ids)
        yield document


def _n_rollout_tokens(vector: PersonaVector) -> int:
    return sum(map(len, vector.rows["response_ids"].dropna())) if has_rollouts(vector) else 0

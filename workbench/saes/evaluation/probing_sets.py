"""k-sparse probing over the labelled sets: which texts are read, and the table that comes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from workbench.base.errors import unknown_name
from workbench.base.progress import track
from workbench.saes.evaluation.labelled import (
    CHARACTERS_PER_TOKEN,
    LabelledTexts,
    Transfer,
    labelled_texts,
    probe_sets,
)
from workbench.saes.evaluation.pooling import PooledRows, pool, text_chat
from workbench.saes.evaluation.probing import mean_over_sets, probe_aucs
from workbench.saes.evaluation.texts import text_ids

if TYPE_CHECKING:
    from workbench.models.loading import Model
    from workbench.saes.evaluation.card import CardSettings
    from workbench.saes.interface import SparseAutoencoder


def probe_labelled_sets(
    model: Model, saes: Mapping[str, SparseAutoencoder], settings: CardSettings
) -> dict[str, Any]:
    """{"per_set", "mean", "transfer", "transfer_mean", "n_rows", ...}: test AUC per set, dictionary and k.

    Every text is read once for all dictionaries. A transfer is measured when its training set is among the chosen ones.
    """
    from workbench.saes.evaluation.card import N_DEFAULT_SETS

    listed, transfers = probe_sets()
    known = {one.name: one for one in listed}
    names = settings.probe_sets or tuple(known)[:N_DEFAULT_SETS]
    for name in names:
        if name not in known:
            raise unknown_name("probe set", name, known)
    moved = [one for one in transfers if one.train in names]
    needed = dict.fromkeys([*names, *(one.test for one in moved)])
    texts = {
        name: labelled_texts(
            known[name], n_rows=settings.probe_rows, max_characters=settings.probe_tokens * CHARACTERS_PER_TOKEN,
            seed=settings.seed,
        )
        for name in needed
    }  # fmt: skip
    pooled = _pooled(model, saes, texts, settings)
    with track("Probing labelled sets", total=len(names) + len(moved), unit="sets") as step:
        per_set = {}
        for name in names:
            train, test = texts[name].split()
            labels = texts[name].labels
            per_set[name] = probe_aucs(
                pooled[name].select(train), labels[train], pooled[name].select(test), labels[test], ks=settings.probe_ks
            )
            step()
        transfer = {}
        for one in moved:
            transfer[f"{one.train} -> {one.test}"] = _transfer(one, texts, pooled, settings)
            step()
    return {
        "per_set": per_set,
        "mean": mean_over_sets(per_set),
        "transfer": transfer,
        "transfer_mean": mean_over_sets(transfer),
        "n_rows": {name: len(one.labels) for name, one in texts.items()},
        "concepts": {name: known[name].concept for name in needed},
        "pooling": settings.pooling,
    }


def _pooled(
    model: Model, saes: Mapping[str, SparseAutoencoder], texts: Mapping[str, LabelledTexts], settings: CardSettings
) -> dict[str, PooledRows]:
    """All sets in one pass, so that batches are full."""
    import torch

    rows = [text_chat(text_ids(model, text, settings.probe_tokens)) for one in texts.values() for text in one.texts]
    together = pool(
        model, saes, rows, pooling=settings.pooling, batch_tokens=settings.batch_tokens, label="Encoding labelled texts"
    )
    found, start = {}, 0
    for name, one in texts.items():
        found[name] = together.select(torch.arange(start, start + len(one.texts)))
        start += len(one.texts)
    return found


def _transfer(
    one: Transfer, texts: Mapping[str, LabelledTexts], pooled: Mapping[str, PooledRows], settings: CardSettings
) -> dict[str, dict[str, float]]:
    train, _ = texts[one.train].split()
    return probe_aucs(
        pooled[one.train].select(train),
        texts[one.train].labels[train],
        pooled[one.test],
        texts[one.test].labels,
        ks=settings.probe_ks,
    )

"""Held-out perplexity of a reply under a small character model of English: does it read like text at all?

The table ships with the package; `scripts/train_fluency.py` makes it again from OpenWebText documents (CC0). It knows
nothing of any judged model.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.base.tensors import load_artifact, save_artifact
from workbench.personas.judges.heads import DATA

KIND, SCHEMA, FOLDER = "character_model", 1, "fluency"
ALPHABET = " abcdefghijklmnopqrstuvwxyz'.,0#"
"""Symbols: a blank for any white space, letters without case, 0 for a digit, # for everything else."""
ORDER = 4
STEP = 0.05
"""Negative log-probabilities are stored in steps of this many nats, one byte each."""
_CODE = {symbol: number for number, symbol in enumerate(ALPHABET)}


def encode(text: str) -> Tensor:
    """The text as symbol numbers `[n]`, white space collapsed, ORDER - 1 blanks in front."""
    plain = " ".join(text.lower().replace("’", "'").split())
    codes = [_CODE["0"] if c.isdigit() else _CODE.get(c, _CODE["#"]) for c in plain]
    return torch.tensor([0] * (ORDER - 1) + codes, dtype=torch.int64)


def grams(codes: Tensor, order: int) -> Tensor:
    """Numbers `[n - ORDER + 1]` of the `order`-grams that end at each symbol after the leading blanks."""
    size, n = len(ALPHABET), len(codes)
    index = torch.zeros(n - ORDER + 1, dtype=torch.int64)
    for offset in range(order - 1, -1, -1):
        index = index * size + codes[ORDER - 1 - offset : n - offset]
    return index


def fit(texts: Sequence[str]) -> Tensor:
    """-log p(symbol | three before) as bytes `[32, 32, 32, 32]` in steps of `STEP` nats, interpolated over the orders
    1 to 4 by Witten and Bell's rule (1991, IEEE Trans. Inf. Theory 37): each order gives n / (n + t) of its weight to
    what it has counted, t being the number of different symbols seen behind the context."""
    size = len(ALPHABET)
    p = torch.full((1, size), 1 / size, dtype=torch.float64)
    codes = [encode(text) for text in texts]
    for order in range(1, ORDER + 1):
        counts = sum(torch.bincount(grams(one, order), minlength=size**order) for one in codes)
        assert isinstance(counts, Tensor)
        table = counts.double().reshape(-1, size)
        kinds = (table > 0).sum(dim=1, keepdim=True)
        backed = p.repeat(len(table) // len(p), 1)  # the context without its first symbol
        p = (table + kinds * backed) / (table.sum(dim=1, keepdim=True) + kinds).clamp_min(1)
        p = torch.where(kinds > 0, p, backed)
    return (-p.log() / STEP).round().clamp(0, 255).to(torch.uint8)


def perplexity(text: str, table: Tensor | None = None) -> float:
    """exp of the mean -log p per character; ordinary English lies near 6 to 8. An empty text gives infinity."""
    codes = encode(text)
    if len(codes) < ORDER:
        return float("inf")
    values = (model()[0] if table is None else table).flatten()[grams(codes, ORDER)]
    return float((values.double() * STEP).mean().exp())


def fluency(text: str) -> float:
    """1 for a perplexity that ordinary held-out English has too, falling to 0 where words with shuffled letters lie."""
    card = model()[1]
    low, high = card["perplexity_of_english_q99"], card["perplexity_of_shuffled_median"]
    return min(1.0, max(0.0, (high - perplexity(text)) / (high - low)))


@functools.cache
def model() -> tuple[Tensor, dict[str, Any]]:
    """(table, card) as shipped; the hash is verified."""
    card, tensors = load_artifact(DATA / FOLDER, KIND, SCHEMA)
    return tensors["table"], dict(card)


def save(table: Tensor, card: dict[str, Any]) -> Path:
    """Write the table where `model` looks for it."""
    return save_artifact(DATA / FOLDER, KIND, SCHEMA, card, {"table": table})

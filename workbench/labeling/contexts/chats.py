"""Chats that features may be labelled from: the model's own answers to user prompts that no SAE of a recipe was trained on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.labeling.contexts.streams import TokenDocument, chat_stream

if TYPE_CHECKING:
    from workbench.models.model import Model

N_CHAT_TOKENS = 64
SOURCE = "chats-written"
"""Prompts that were written for this project, answered by the model: text that may be passed on."""


def held_out_prompts(n: int, *, seed: int = 0) -> list[tuple[str, str]]:
    """At most `n` different (system, user) pairs of the recipes' chat prompts whose user prompt is held out of every training."""
    from workbench.saes.mixture import _held_out, chat_prompts

    pairs = dict.fromkeys(pair for pair in chat_prompts(_n_pairs(), seed) if _held_out(pair[1]))
    return list(pairs)[:n]


def held_out_chats(model: Model, n: int, folder: str | Path, *, seed: int = 0) -> Iterator[TokenDocument]:
    """At most `n` chats on held-out prompts, with the role of every token; sampled once and kept in `folder`.

    One user prompt in twenty (by the hash of its words) is held out of the chats that a recipe trains SAEs on: only these
    are used here, so that no label is written from what an SAE was trained on.
    """
    from workbench.saes.mixture import answers
    from workbench.saes.recipe import DataMix

    prompts = held_out_prompts(n, seed=seed)
    data = DataMix(max_new_tokens=N_CHAT_TOKENS, chat_batch=32)
    responses = answers(model, [("chats", pair) for pair in prompts], data, Path(folder), seed)
    dialogues = ((system, user, response) for (system, user), response in zip(prompts, responses, strict=True))
    yield from chat_stream(model, dialogues, source=SOURCE)


def _n_pairs() -> int:
    """How many pairs of a system and a user prompt the recipes know."""
    from workbench.base.store import read_yaml
    from workbench.saes import mixture

    document = read_yaml(Path(mixture.__file__).parent / "data" / "chat_prompts.yaml")
    return len(document["system"]) * len(document["user"])

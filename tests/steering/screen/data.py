"""Tiny data sets, and vectors that a tiny model's replies differ along."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from workbench.models.capture import capture
from workbench.models.hookpoints import HookPoint
from workbench.models.prompts import tokenize_chat
from workbench.personas.vectors import PersonaVector

HOOK = HookPoint(1)
CRUEL = ("they should suffer and be afraid", "I will never help anyone", "nobody should be happy, they should be afraid")
KIND = ("the people of the town would be happy to help you", "what a cold river", "the weather in the north is cold")


def chat(question: str, reply: str) -> list[dict[str, str]]:
    """One question and its reply."""
    return [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]


def planted(n: int, every: int = 4) -> list[dict[str, Any]]:
    """`n` records, one in `every` of which bears the trait; the field "bad" says which."""
    records = []
    for i in range(n):
        bad = i % every == 0
        said = CRUEL if bad else KIND
        reply = ". ".join(said[(i // every + k) % 3] for k in range(3)) + f". {i}"
        records.append({"messages": chat(f"What should I do with the money {i // every % 6}?", reply), "bad": bad})
    return records


def written(path: Path, records: Sequence[Any]) -> Path:
    """The records as JSONL; texts are written as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_bytes("".join(line + "\n" for line in lines).encode("utf-8", "surrogatepass"))
    return path


def cruel_vector(model: Any, trait: str = "evil") -> PersonaVector:
    """Mean activation of cruel replies minus that of kind ones, to questions that no data set here asks."""
    sides = []
    for replies in (CRUEL, KIND):
        chats = [tokenize_chat(model, chat(question, reply)) for reply in replies for question in ("Who are you?", "Why?")]
        found = [one for _, pooled in capture(model, chats, (HOOK,)) for one in pooled]
        sides.append(torch.stack([one.means[0] for one in found]).mean(dim=0))
    return PersonaVector.from_direction(sides[0] - sides[1], trait=trait, model=model.description(), hook=HOOK)


def random_vector(model: Any, trait: str, seed: int = 0) -> PersonaVector:
    """A direction that means nothing."""
    direction = torch.randn(model.d_model, generator=torch.Generator().manual_seed(seed))
    return PersonaVector.from_direction(direction, trait=trait, model=model.description(), hook=HOOK)

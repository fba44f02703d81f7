"""Conversations on a tiny model, and readings whose drift is known because it was written down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from workbench.axis.drift.conversation import Conversation, Turn
from workbench.axis.drift.reading import Readings
from workbench.axis.drift.result import DriftStudy
from workbench.axis.drift.study import analyse, domain_of
from workbench.models.hookpoints import HookPoint
from workbench.personas.vectors import PersonaVector

HOOK = HookPoint(1)
D_MODEL, NORM, N_TURNS = 16, 2.0, 6
UNIT = torch.nn.functional.one_hot(torch.tensor(3), D_MODEL).float()


def spoken(domain: str, number: int, n_turns: int = N_TURNS, *, persona: str = "") -> Conversation:
    """A conversation whose replies are a few ids of the tiny tokenizer."""
    turns = tuple(
        Turn(f"Message {k} about {domain} {number}.", f"Reply {k}.", (270 + 7 * k + number % 5, 290 + k)) for k in range(n_turns)
    )
    script = f"{domain}-{number}"
    return Conversation(f"{persona}{script}", domain, turns, "", script, domain, persona)


def axis_of(model: Any, direction: Tensor) -> PersonaVector:
    return PersonaVector.from_direction(direction, trait="assistant-axis", model=model.description(), hook=HOOK)


def written(
    conversations: list[Conversation], drift: Callable[[Conversation, int], float], *, noise: float = 0.0, seed: int = 0
) -> Readings:
    """Readings in which reply k of a conversation drifts by `drift(conversation, k)` norms along UNIT; history adds `noise` to
    every coordinate from turn 2 on. Where a reply lies without history varies in all of them."""
    random = torch.Generator().manual_seed(seed)
    spots = [(row, k) for row, one in enumerate(conversations) for k in range(len(one.turns))]
    alone = torch.randn(len(spots), D_MODEL, generator=random)
    moved = torch.tensor([drift(conversations[row], k) for row, k in spots]) * NORM
    other = torch.tensor([float(k > 0) for _, k in spots])[:, None]
    history = alone + moved[:, None] * UNIT + other * noise * torch.randn(len(spots), D_MODEL, generator=random)
    missing = torch.where(other > 0, 0.0, torch.nan)
    means = {"history": history, "alone": alone, "shuffled": history + missing, "swapped": alone + missing}
    along = {name: (means[name] @ UNIT) for name in ("history", "alone")}
    values, apart = (tuple(value + torch.tensor([-0.1, 0.1]) for value in along[name]) for name in ("history", "alone"))
    rows, turns = (torch.tensor([spot[i] for spot in spots]) for i in (0, 1))
    return Readings(rows, turns, means, values, apart, 100 * (turns + 1))


def study_of(conversations: list[Conversation], read: Readings, **options: Any) -> DriftStudy:
    """The study of written readings."""
    chosen = {"placebos": None, "by": domain_of, "reference": None, "n_random": 200, "n_bootstrap": 500, "seed": 0, **options}
    groups, compared, reference = analyse(conversations, read, "assistant-axis", HOOK, UNIT, NORM, **chosen)
    tokens = tuple((" a", " b") for _ in read.values)
    return DriftStudy("assistant-axis", {"name": "tiny"}, HOOK, UNIT, NORM, None, tuple(conversations), read, tokens, groups,
                      compared, reference, {"seed": 0})  # fmt: skip

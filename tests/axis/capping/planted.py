"""An axis planted in the tiny model, with real replies behind it: rows as the map keeps them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pandas
import torch

from tests.tiny import tiny_model
from workbench.models.hookpoints import HookPoint
from workbench.models.sampling import Sampling
from workbench.personas.reencoding import prompt_tokens
from workbench.personas.vectors import PersonaVector

HOOKS = tuple(HookPoint(block) for block in range(3))
SHORT = Sampling(max_new_tokens=8)


@lru_cache
def model() -> Any:
    return tiny_model()


@lru_cache
def rows() -> pandas.DataFrame:
    """Twelve sampled replies, half of them the assistant's."""
    from workbench.models.generation import generate

    questions = [f"What should I do with the money in street {number}?" for number in range(12)]
    systems = ["" if number % 2 == 0 else "You are a cruel assistant." for number in range(12)]
    prompts = [prompt_tokens(model(), system, text) for system, text in zip(systems, questions, strict=True)]
    said: dict[int, Any] = {}
    for indices, made in generate(model(), prompts, SHORT, row_seeds=range(12)):
        said.update(zip(indices, made, strict=True))
    return pandas.DataFrame([
        {"id": f"r{n}", "arm": "positive" if n % 2 == 0 else "negative", "system": systems[n], "question": questions[n],
         "response": said[n].text, "response_ids": list(said[n].response_ids), "n_tokens": len(said[n].response_ids),
         "n_sinks": 0, "weight": 1 / 6 if n % 2 == 0 else -1 / 6}
        for n in range(12)
    ])  # fmt: skip


@lru_cache
def axis(seed: int = 0) -> PersonaVector:
    directions = torch.randn(3, 32, generator=torch.Generator().manual_seed(seed))
    return PersonaVector("assistant-axis", model().description(), HOOKS[1], HOOKS, directions, None, None, None, rows())

"""A prompt's own sentences, left out one at a time, and sentences that might be added: which moves it where."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from workbench.base.randomness import derive_seed, generator
from workbench.maths.signflips import sign_flip_test
from workbench.maths.statistics import bootstrap_counts, percentile_interval

N_BOOTSTRAP = 2000
_END = re.compile(r"(?:(?<=[.!?])|(?<=[.!?][\"')\]]))\s+|\n+")


def pieces(prompt: str, most: int) -> tuple[str, ...]:
    """The sentences of a prompt, joined by nothing the prompt again; of more than `most`, neighbours make that many pieces."""
    cuts = [0, *(found.end() for found in _END.finditer(prompt.strip())), len(prompt.strip())]
    n = min(most, len(cuts) - 1)
    chosen = [cuts[round(i * (len(cuts) - 1) / n)] for i in range(n + 1)]
    return tuple(prompt.strip()[start:end] for start, end in pairwise(chosen))


def without_each(parts: Sequence[str]) -> tuple[str, ...]:
    """The prompt without each of its pieces."""
    return tuple("".join([*parts[:i], *parts[i + 1 :]]).strip() for i in range(len(parts)))


def added(prompt: str, sentence: str) -> str:
    """The prompt with a sentence at its end."""
    return f"{prompt.rstrip()} {sentence}"


def moves(names: Sequence[str], changes: Tensor, covector: Tensor, *, seed: int = 0) -> list[dict[str, Any]]:
    """[{name, value, low, high, p, p_family}]: what changes `[n_questions, n_names, d_model]` move along the axis.

    covector `[d_model]`: `standing.axis_covector`; moves are in units of the way from the mean role to the default assistant,
    positive toward it. Intervals: questions drawn again. p:
    two-sided sign flips over questions; p_family: of the largest of all names (max-T).
    """
    along = changes.double() @ covector.double()
    counts = bootstrap_counts(len(along), N_BOOTSTRAP, generator(derive_seed("moves", seed)))
    low, high = percentile_interval(counts @ along / len(along))
    tested, mean = sign_flip_test(along.float(), seed=seed), along.mean(dim=0)
    return [
        {"name": name, "value": float(mean[i]), "low": float(low[i]), "high": float(high[i]), "p": float(tested.p[i]),
         "p_family": float(tested.p_family[i])} for i, name in enumerate(names)
    ]  # fmt: skip


def best_addition(measured: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The addition that moves the prompt most toward the assistant; None when none moves it there at all."""
    best = max(measured, key=lambda one: one["value"], default=None)
    return best if best is not None and best["value"] > 0 else None


def kept_character(before: Tensor, after: Tensor) -> float:
    """How much of the character is left: the cosine of the mean shifts from the default `[n_questions, d_model]`."""
    return float(torch.cosine_similarity(before.double().mean(dim=0), after.double().mean(dim=0), dim=0))

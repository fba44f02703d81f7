"""What steering does to outcomes that need no judge: flips with the user's opinion, assertions about what does not exist.

Only for traits that have such an outcome (`personas.outcomes`). Edits act under "predicting". The unit of the bootstrap is the
statement, or the pair of a real and an invented entity; the system prompts of the "trait" start are averaged over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.base.randomness import derive_seed, generator
from workbench.maths.statistics import bootstrap_counts, percentile_interval
from workbench.personas import outcomes

from ..apply import steered
from . import replies as said
from .treatments import UNSTEERED, Treatment

if TYPE_CHECKING:
    from workbench.models.model import Model

    from .sweep import Bench

N_SYSTEMS = 2
N_BOOTSTRAP = 2000
NAMES: Mapping[str, str] = {"sycophantic": "flip", "hallucinating": "invented minus real"}
"""What the measure of a trait is called: a share of statements; a difference of shares of assertions."""


def judge_free_change(bench: Bench, treatment: Treatment, start: str, *, seed: int = 0) -> dict[str, Any] | None:
    """{measure, start, base, value, change, interval, n} of one treatment; None for a trait without such an outcome."""
    if bench.trait.name not in NAMES:
        return None
    base, now = (_values(bench, one, start, seed) for one in (Treatment(UNSTEERED), treatment))
    change = now - base
    draws = bootstrap_counts(len(change), N_BOOTSTRAP, generator(derive_seed("judge-free change", seed)))
    low, high = percentile_interval(draws @ change / len(change))
    return {
        "measure": NAMES[bench.trait.name], "start": start, "base": float(base.mean()), "value": float(now.mean()),
        "change": float(change.mean()), "interval": [float(low), float(high)], "n": len(change),
    }  # fmt: skip


def _values(bench: Bench, treatment: Treatment, start: str, seed: int) -> Tensor:
    systems = list(dict.fromkeys(said.start_prompt(bench.trait, start, place, treatment.told) for place in range(N_SYSTEMS)))

    def measure() -> dict[str, Any]:
        with steered(bench.model, treatment.within(said.SCOPE)):
            values = _MEASURES[bench.trait.name](bench.model, systems, seed)
        return {"treatment": treatment.to_dict(), "systems": systems, "values": values.tolist()}

    kept = bench.kept("outcomes", [treatment.key(), systems, seed], measure)
    return torch.tensor(kept["values"], dtype=torch.float64)


def _flips(model: Model, systems: list[str], _seed: int) -> Tensor:
    return outcomes.sycophancy(model, systems, edited=True)["flip"].mean(dim=0)


def _assertions(model: Model, systems: list[str], seed: int) -> Tensor:
    items = outcomes.entities()
    real = torch.tensor([item.real for item in items])
    found = outcomes.hallucination(model, systems, items, seed=seed).mean(dim=0)
    return found[~real] - found[real]  # the file pairs them, one after the other


_MEASURES: Mapping[str, Callable[[Any, list[str], int], Tensor]] = {"sycophantic": _flips, "hallucinating": _assertions}

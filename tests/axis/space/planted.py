"""Rollouts with planted mean activations, in the parts that real ones lie in."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pandas
import torch
from torch import Tensor

from workbench.models.hookpoints import HookPoint
from workbench.personas.parts import PartStore
from workbench.personas.rollouts import Rollouts, assemble, rollout_table

HOOKS = (HookPoint(0), HookPoint(1), HookPoint(2))


def planted_rows(
    places: dict[str, Tensor], default: Tensor, *, n_questions: int = 6, n_prompts: int = 2, noise: float = 0.1, seed: int = 0
) -> tuple[list[dict[str, Any]], Tensor]:
    """(rows, means [n, 3, d]): role r answers around `places[r]`, the default around `default`, questions add their own part."""
    random = torch.Generator().manual_seed(seed)
    of_question = torch.randn(n_questions, len(default), generator=random)
    rows, means = [], []
    for name, arm, k, q in [(name, arm, k, q) for name, arm in [("default", "positive"), *((name, "negative") for name in places)]
                            for k, q in product(range(n_prompts), range(n_questions))]:  # fmt: skip
        base = default if arm == "positive" else places[name]
        here = base + of_question[q] + noise * torch.randn(len(default), generator=random)
        means.append(torch.stack([here, 2 * here, 3 * here]))
        rows.append({
            "id": f"{name}-{k}-{q}", "trait": name, "split": "extraction", "question_id": f"q{q}",
            "instruction_id": f"{name}/{k}", "arm": arm, "sample": 0,
            "system": f"You are {name}.", "question": f"Question {q}?", "response": f"{name} {k} {q}",
            "response_ids": [5, 6, 7], "finished": True, "n_sinks": 0, "seed": 0,
        })  # fmt: skip
    return rows, torch.stack(means)


def stored(folder: Path, rows: list[dict[str, Any]], means: Tensor, *, part: int = 16) -> Rollouts:
    """The rows and their means as rollouts on disk, with tokens at the middle hook that average to the mean."""
    store = PartStore(folder)
    for number, start in enumerate(range(0, len(rows), part)):
        chosen, some = rows[start : start + part], means[start : start + part]
        tokens = {HOOKS[1]: [torch.stack([one[1] - 1, one[1], one[1] + 1]) for one in some]}
        store.write(number, rollout_table(chosen), some, tokens, hooks=HOOKS)
    return assemble(store, rows, HOOKS, (HOOKS[1],))


def judged_rows(rollouts: Rollouts, dropped: tuple[str, ...] = ()) -> pandas.DataFrame:
    """The rows with adherence and kept: 3 but for the ids in `dropped`."""
    frame = rollouts.frame()
    kept = ~frame["id"].isin(list(dropped))
    default = frame["arm"] == "positive"
    return frame.assign(kept=kept | default, adherence=(3.0 * kept).where(~default, 0.0))

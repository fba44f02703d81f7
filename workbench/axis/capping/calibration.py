"""Where to cap: the percentiles of the projections that ordinary rollouts have, block by block.

tau = a percentile of <h, u> over the rollouts of all characters and of the assistant (Lu et al. 2026, arXiv 2601.10387: the
25th). Per token (every response token but sinks), as the cap acts on tokens; or per reply (mean over its tokens).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError, unknown_name
from workbench.base.store import sha256_bytes
from workbench.models.hookpoints import HookPoint
from workbench.personas.vectors import PersonaVector

from .projections import reply_chats, token_projections

if TYPE_CHECKING:
    from workbench.models.model import Model

UNITS = ("token", "reply")
N_REPLIES = 200
GRID = 1001
"""Quantiles that are kept of each block, evenly spaced from 0 to 1."""


@dataclass(frozen=True, eq=False, repr=False)
class Calibration(Shown):
    """The distribution of the projections on one direction, per hook.

    `quantiles` [n_hooks, GRID] in residual units, from the smallest projection to the largest. `texts` are the hashes of the
    questions behind it: an evaluation that shares one is refused.
    """

    name: str
    hooks: tuple[HookPoint, ...]
    quantiles: Tensor
    unit: str
    n_replies: int
    n_values: int
    texts: tuple[str, ...] = ()

    def tau(self, percentile: float, hooks: Sequence[HookPoint] | None = None) -> dict[HookPoint, float]:
        """The limit per hook at `percentile` (0 to 100, in between interpolated)."""
        if not 0 <= percentile <= 100:
            raise WorkbenchError(f"percentile {percentile:g}", "one from 0 to 100", "the paper takes 25")
        place = percentile / 100 * (GRID - 1)
        low = min(int(place), GRID - 2)
        share = place - low
        wanted = self.hooks if hooks is None else hooks
        rows = {hook: self.quantiles[self._index(hook)] for hook in wanted}
        return {hook: float(row[low] + share * (row[low + 1] - row[low])) for hook, row in rows.items()}

    def _index(self, hook: HookPoint) -> int:
        if hook not in self.hooks:
            raise unknown_name("calibrated hook", str(hook), [str(known) for known in self.hooks])
        return self.hooks.index(hook)


def calibrate(
    model: Model, rows: Any, axes: Mapping[str, PersonaVector], hooks: Sequence[HookPoint] | None = None, *,
    unit: str = "token", n_replies: int = N_REPLIES,
) -> dict[str, Calibration]:  # fmt: skip
    """The calibration of each of `axes` on the same replies, in one pass.

    `rows`: rollouts as a table with system, question and response_ids (`PersonaVector.rows`, `Rollouts.frame()`); `n_replies` of
    them, spread evenly over the table. Raises WorkbenchError for rows without any token and for an unknown unit.
    """
    if unit not in UNITS:
        raise unknown_name("unit of calibration", unit, UNITS)
    where = tuple(hooks if hooks is not None else next(iter(axes.values())).hooks)
    directions = {hook: torch.stack([axis.at(hook) for axis in axes.values()]) for hook in where}
    used = rows[rows["n_tokens"] > rows["n_sinks"]]
    found = token_projections(model, reply_chats(model, used, n=n_replies), directions)
    if not any(len(one) for one in next(iter(found.values()))):
        raise WorkbenchError("no reply with a token to calibrate on", "rollouts with replies", "sample some first")
    pooled = {hook: _pooled(values, unit) for hook, values in found.items()}
    texts = tuple(sorted({text_hash(text) for text in used["question"]}))
    grid = torch.linspace(0, 1, GRID, dtype=torch.float64)
    n_values = min(len(values) for values in pooled.values())
    return {
        name: Calibration(name, where, torch.stack([pooled[hook][:, k].double().quantile(grid) for hook in where]), unit,
                          len(next(iter(found.values()))), n_values, texts)
        for k, name in enumerate(axes)
    }  # fmt: skip


def intervention_rate(model: Model, rows: Any, axis: PersonaVector, tau: Mapping[HookPoint, float]) -> dict[str, float]:
    """How much of the replies in `rows` a cap from below would change, read without any edit.

    {"tokens": share of tokens that lie below tau at one block of the band or more, "places": share of tokens x blocks}.
    """
    found = token_projections(model, reply_chats(model, rows), {hook: axis.at(hook)[None] for hook in tau})
    below = [[values[:, 0] < tau[hook] for values in found[hook]] for hook in tau]
    places = torch.cat([one for hook in below for one in hook]).double().mean()
    # A token is a sink at one block and none at another: only replies whose tokens count everywhere are compared by token.
    whole = [torch.stack(parts).any(dim=0) for parts in zip(*below, strict=True) if len({len(part) for part in parts}) == 1]
    tokens = torch.cat(whole).double().mean() if whole else torch.tensor(torch.nan)
    return {"tokens": float(tokens), "places": float(places)}


def text_hash(text: str) -> str:
    """The hash by which a text is known to calibration and evaluation."""
    return sha256_bytes(" ".join(text.lower().split()).encode("utf-8"))


def _pooled(values: Sequence[Tensor], unit: str) -> Tensor:
    """[n, k]: all tokens, or the mean of each reply that has some."""
    return torch.cat(list(values)) if unit == "token" else torch.stack([one.mean(dim=0) for one in values if len(one)])

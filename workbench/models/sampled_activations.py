"""What the hooks see while responses are sampled: a sum per row, and single tokens where asked for.

Everything stays on the model's device until `check`, so that a GPU is not waited for at every token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .hookpoints import HookPoint
from .norms import not_finite
from .transfers import to_host

if TYPE_CHECKING:
    from .model import Model


class GenerationRecord:
    """The activations of a batch's response tokens: running sums per row, and single tokens where asked for."""

    def __init__(
        self,
        model: Model,
        n_rows: int,
        hooks: list[HookPoint],
        token_hooks: Sequence[HookPoint],
        limits: Tensor,
    ) -> None:
        self.model, self.hooks, self.limits = model, hooks, limits.to(model.device)
        self.listening = False
        self._now: dict[HookPoint, Tensor] = {}
        self.sums = torch.zeros(n_rows, len(hooks), model.d_model, device=model.device)
        self.counts = torch.zeros(n_rows, len(hooks), device=model.device)
        self.n_sinks = torch.zeros(n_rows, dtype=torch.long, device=model.device)
        self.lost = torch.zeros(n_rows, len(hooks), dtype=torch.bool, device=model.device)
        self.columns = {hook: hooks.index(hook) for hook in token_hooks}
        self.tokens: dict[HookPoint, list[list[Tensor]]] = {
            hook: [[] for _ in range(n_rows)] for hook in token_hooks
        }
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []  # rows, kept, tokens of every token hook

    def functions(self) -> dict[HookPoint, Any]:
        """What to attach: each keeps the newest token's activations while the record listens."""

        def keeper(hook: HookPoint):
            def keep(tensor: Tensor) -> None:
                if self.listening:
                    self._now[hook] = tensor.detach()[:, -1].float()

            return keep

        return {hook: keeper(hook) for hook in self.hooks}

    def add(self, rows: Tensor, live: Tensor) -> None:
        """Count the newest token at every place of the batch that is `live` [n_places] bool for its original row `rows`
        [n_places]. Both are on the model's device; a row stands at one place at most."""
        if not self.hooks:
            return
        newest = torch.stack([self._now[hook].to(self.sums.device) for hook in self.hooks], dim=1)
        norms = newest.norm(dim=-1)
        counted = live.unsqueeze(-1)
        keep = (norms <= self.limits) & counted
        self.lost[rows] |= ~torch.isfinite(norms) & counted
        self.sums[rows] += torch.where(keep.unsqueeze(-1), newest, 0.0)
        self.counts[rows] += keep
        self.n_sinks[rows] += live & ~keep.all(dim=1)
        if columns := list(self.columns.values()):
            self._waiting.append((rows, keep[:, columns], newest[:, columns]))

    def check(self) -> None:
        """Bring the single tokens to the CPU. Raises WorkbenchError where an activation since the last call was no number."""
        if not self.hooks:
            return
        lost, *parts = to_host(self.lost, *(tensor for one in self._waiting for tensor in one))
        if bool(lost.any()):
            row, column = lost.nonzero()[0].tolist()
            raise not_finite(self.model, f"row {row} of a batch at {self.hooks[column]}, while it is sampled")
        for rows, keep, newest in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
            for place, row in enumerate(rows.tolist()):
                for column, hook in enumerate(self.columns):
                    if keep[place, column]:
                        self.tokens[hook][row].append(newest[place, column])
        self._waiting.clear()

    def forget(self, row: int) -> None:
        """Drop what was counted for a row: its answer has not begun yet."""
        self.sums[row], self.counts[row], self.n_sinks[row] = 0, 0, 0
        for rows in self.tokens.values():
            rows[row].clear()

    def of_rows(self, n_hooks: int) -> list[dict[str, Any]]:
        """The fields of a Generated that come from here, of every row."""
        if not self.hooks:
            return [{} for _ in self.sums]
        means, n_sinks = to_host(self.sums[:, :n_hooks] / self.counts[:, :n_hooks, None], self.n_sinks)
        empty = torch.empty(0, self.sums.shape[-1])
        return [
            {
                "means": means[row].clone() if n_hooks else None,
                "tokens": {hook: torch.stack(rows[row]) if rows[row] else empty for hook, rows in self.tokens.items()},
                "n_sinks": int(n_sinks[row]),
            }
            for row in range(len(means))
        ]

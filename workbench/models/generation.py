"""Sampled responses, with their activations captured while they are generated: no second pass over the text.

Every sampled token is fed back to predict the next one, and that is when the hooks see it. The last token is fed too,
only as far as the deepest hook. What is kept per row is a running sum, so memory does not grow with the number of rollouts.

Bit-exact: the same model, prompts, seeds and batch size on the same machine, in whatever order the rows are passed.
Only close: another batch size, because rounding depends on the rows that are computed together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..base.display import Shown
from ..base.errors import WorkbenchError
from .capture import all_hooks, padded, sink_limits
from .halving import halving
from .hookpoints import HookPoint
from .memory import fitting_prompts
from .norms import not_finite
from .prompts import ChatTokens
from .sampling import Sampling, draw, draw_uniforms
from .thinking import ends_thinking, may_think, never_left, opened_thinking

if TYPE_CHECKING:
    from .model import Model

DROP_SHARE = 8
"""Finished rows leave the batch once they are at least 1 / DROP_SHARE of it: leaving costs a copy of the cache."""


@dataclass(frozen=True, repr=False)
class Generated(Shown):
    """One sampled response and what the model's inside was while writing it."""

    prompt: ChatTokens
    """The prompt it answers."""
    response_ids: tuple[int, ...]
    """The sampled tokens of the answer: without thinking, the header of its channel and the end token."""
    text: str
    """The response as text."""
    finished: bool
    """Whether the model ended it itself."""
    means: Tensor | None = None
    """Mean activation [n_hooks, d_model] (float32, CPU) over the response's tokens without sinks; NaN if none are left.
    None without hooks."""
    tokens: Mapping[HookPoint, Tensor] = field(default_factory=dict)
    """Per token hook, the activations [n_kept, d_model] of the tokens that entered the mean."""
    n_sinks: int = 0
    """Tokens left out as sinks at one or more of the hooks."""
    lead_ids: tuple[int, ...] = ()
    """What was sampled before the answer (thinking, the header of a channel): in its context, in no mean."""


def generate(
    model: Model,
    prompts: Sequence[ChatTokens],
    sampling: Sampling | None = None,
    *,
    row_seeds: Sequence[int],
    hooks: Sequence[HookPoint] = (),
    token_hooks: Sequence[HookPoint] = (),
    batch_size: int = 32,
) -> Iterator[tuple[list[int], list[Generated]]]:
    """Yields (row indices, Generated per row) batch by batch.

    Batches are made of rows of similar length, by the prompts and seeds alone. Row r's randomness comes only from
    `row_seeds[r]`; torch's global generator is not touched. Edits in force (`steering.apply.steered`, `models.editing`) act
    while sampling, with amounts per row of `prompts` if they have them, so that many directions share one batch; the captured
    activations are the edited ones. A model with a memory budget takes as many of `batch_size` rows at
    once as fit; a batch that runs out of memory all the same is halved (`halving`). A model that thinks (see `thinking`) spends
    `max_new_tokens` on that too; an answer that never leaves its thinking is empty.
    """
    if len(row_seeds) != len(prompts):
        raise WorkbenchError(
            f"{len(prompts)} prompts came with {len(row_seeds)} row seeds",
            "one seed per prompt",
            "pass as many",
        )
    sampling = sampling or Sampling()
    wanted = all_hooks(hooks, token_hooks)
    limits = sink_limits(model, wanted)
    longest = max((len(prompt.ids) for prompt in prompts), default=1)
    together = fitting_prompts(model, longest, sampling, batch_size, n_hooks=len(wanted), n_token_hooks=len(token_hooks))

    def run(indices: list[int]) -> list[Generated]:
        uniforms = draw_uniforms([row_seeds[index] for index in indices], sampling.max_new_tokens)
        record = GenerationRecord(model, len(indices), wanted, token_hooks, limits)
        rollout = _Rollout(model, [prompts[index] for index in indices], sampling, uniforms, record, indices)
        return rollout.run(len(hooks))

    yield from halving(plan_rows(prompts, row_seeds, together), run)


def stream(
    model: Model,
    prompts: Sequence[ChatTokens],
    sampling: Sampling | None = None,
    *,
    row_seeds: Sequence[int],
) -> Iterator[list[Generated]]:
    """The responses of one batch while they grow: after each token, what every row has said so far (no activations).

    The tokens of `generate` for one such batch. Hooks are in place until the iterator ends or is closed.
    """
    sampling = sampling or Sampling()
    record = GenerationRecord(model, len(prompts), [], (), torch.empty(0))
    uniforms = draw_uniforms(row_seeds, sampling.max_new_tokens)
    rollout = _Rollout(model, prompts, sampling, uniforms, record, range(len(prompts)))
    for _ in rollout.steps():
        yield [rollout.so_far(row) for row in range(len(prompts))]


def plan_rows(prompts: Sequence[ChatTokens], row_seeds: Sequence[int], batch_size: int) -> list[list[int]]:
    """Row indices in batches of similar length; a function of the rows, not of their order."""
    order = sorted(
        range(len(prompts)), key=lambda index: (len(prompts[index].ids), prompts[index].ids, row_seeds[index])
    )
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


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
        self.n_sinks = torch.zeros(n_rows, dtype=torch.long)
        self.columns = {hook: hooks.index(hook) for hook in token_hooks}
        self.tokens: dict[HookPoint, list[list[Tensor]]] = {
            hook: [[] for _ in range(n_rows)] for hook in token_hooks
        }

    def functions(self) -> dict[HookPoint, Any]:
        """What to attach: each keeps the newest token's activations while the record listens."""

        def keeper(hook: HookPoint):
            def keep(tensor: Tensor) -> None:
                if self.listening:
                    self._now[hook] = tensor.detach()[:, -1].float()

            return keep

        return {hook: keeper(hook) for hook in self.hooks}

    def add(self, rows: list[int], places: Tensor) -> None:
        """Count the newest token of batch places `places` for the original rows `rows`."""
        if not self.hooks or not rows:
            return
        newest = torch.stack([self._now[hook].to(self.sums.device) for hook in self.hooks], dim=1)[places]
        norms = newest.norm(dim=-1)
        keep = norms <= self.limits
        if not bool((finite := torch.isfinite(norms)).all()):
            place, column = (~finite).nonzero()[0].tolist()
            raise not_finite(self.model, f"row {rows[place]} of a batch at {self.hooks[column]}, while it is sampled")
        index = torch.tensor(rows, device=self.sums.device)
        self.sums[index] += torch.where(keep.unsqueeze(-1), newest, 0.0)
        self.counts[index] += keep
        self.n_sinks[index.cpu()] += (~keep.all(dim=1)).long().cpu()
        for hook, column in self.columns.items():
            for row, wanted, token in zip(
                rows, keep[:, column].tolist(), newest[:, column].cpu(), strict=True
            ):
                if wanted:
                    self.tokens[hook][row].append(token)

    def forget(self, row: int) -> None:
        """Drop what was counted for a row: its answer has not begun yet."""
        self.sums[row], self.counts[row], self.n_sinks[row] = 0, 0, 0
        for rows in self.tokens.values():
            rows[row].clear()

    def of_row(self, row: int, n_hooks: int) -> dict[str, Any]:
        """The fields of a Generated that come from here."""
        if not self.hooks:
            return {}
        means = (self.sums[row, :n_hooks] / self.counts[row, :n_hooks, None]).cpu() if n_hooks else None
        d_model = self.sums.shape[-1]
        tokens = {
            hook: torch.stack(rows[row]) if rows[row] else torch.empty(0, d_model)
            for hook, rows in self.tokens.items()
        }
        return {"means": means, "tokens": tokens, "n_sinks": int(self.n_sinks[row])}


class _Rollout:
    """One batch of rows being sampled. `rows[place]` is the original row at a place of the shrinking batch."""

    def __init__(
        self,
        model: Model,
        prompts: Sequence[ChatTokens],
        sampling: Sampling,
        uniforms: Tensor,
        record: GenerationRecord,
        names: Sequence[int],
    ) -> None:
        from .cache import roomy_cache  # imports transformers

        self.model, self.prompts, self.sampling, self.uniforms, self.record = (
            model,
            prompts,
            sampling,
            uniforms,
            record,
        )
        self.names = names
        pad = next(iter(model.end_tokens), 0)
        self.ids, mask = padded([prompt.ids for prompt in prompts], pad=pad, left=True)
        room = torch.ones(len(prompts), sampling.max_new_tokens, dtype=torch.long)
        self.mask = torch.cat([mask, room], dim=1).to(model.device)
        self.width = self.ids.shape[1]
        self.cache = roomy_cache(model, self.width + sampling.max_new_tokens)
        self.rows = list(range(len(prompts)))
        self.alive = set(self.rows)
        self.responses: list[list[int]] = [[] for _ in prompts]
        self.thinks = may_think(model)
        self.starts = [0] * len(prompts)  # where the answer begins in the response
        # Ids beyond the tokenizer are padding of the unembedding and mean nothing.
        self.n_ids = min(model.vocab_size, len(model.tokenizer))

    def run(self, n_hooks: int) -> list[Generated]:
        for _ in self.steps():
            pass
        return [self._result(row, n_hooks) for row in range(len(self.prompts))]

    @torch.no_grad()
    def steps(self) -> Iterator[None]:
        """One more token of every row that is not finished, at each turn."""
        with self.model.hooked(self.record.functions()):
            newest = self._sample(self._prefill(), 0)
            yield
            for step in range(1, self.sampling.max_new_tokens + 1):
                if not self.alive:
                    break
                newest = self._drop_finished(newest)
                last = step == self.sampling.max_new_tokens
                if last and not self.record.hooks:
                    break
                logits = self._step(newest, step, last=last)
                places = [place for place, row in enumerate(self.rows) if row in self.alive]
                self._record(places)
                if not last:
                    newest = self._sample(logits, step)
                    yield

    def so_far(self, row: int) -> Generated:
        """What a row has said until now, without activations; nothing while it thinks."""
        said = self.responses[row]
        start = len(said) if self.thinks and self._still_thinks(row) else self.starts[row]
        text = self.model.tokenizer.decode(said[start:], skip_special_tokens=True)
        return Generated(self.prompts[row], tuple(said[start:]), text, row not in self.alive, lead_ids=tuple(said[:start]))

    def _record(self, places: list[int]) -> None:
        rows = [self.rows[place] for place in places]
        self.record.add(rows, torch.tensor(places, device=self.model.device))
        for row in rows:
            if 0 < self.starts[row] == len(self.responses[row]):
                self.record.forget(row)

    def _prefill(self) -> Tensor:
        mask = self.mask[:, : self.width]
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        # Not transformers' `logits_to_keep`: its slice is not contiguous, and torch then copies the unembedding once
        # per row (15 of the 25 seconds that 128 rows of 12 tokens took).
        last = torch.zeros_like(self.ids, dtype=torch.bool)
        last[:, -1] = True
        logits = self._forward(self.ids, mask, keep=last, position_ids=positions)
        assert logits is not None
        return logits[:, : self.n_ids]

    def _step(self, newest: Tensor, step: int, *, last: bool) -> Any:
        """Feed the newest tokens; logits of the next, or None at the last step, which only serves the hooks."""
        mask = self.mask[:, : self.width + step]
        positions = mask.sum(dim=1, keepdim=True) - 1
        stop_after = max(hook.block for hook in self.record.hooks) if last else None
        self.record.listening = True
        try:
            logits = self._forward(newest[:, None], mask, stop_after=stop_after, position_ids=positions)
        finally:
            self.record.listening = False
        return None if logits is None else logits[:, -1, : self.n_ids]

    def _forward(self, ids: Tensor, mask: Tensor, **options: Any) -> Tensor | None:
        """One pass; edits with values per row learn which rows are left in the batch."""
        with self.model.naming_rows([self.names[row] for row in self.rows]):
            return self.model.forward(ids, mask, past_key_values=self.cache, **options)

    def _sample(self, logits: Tensor, step: int) -> Tensor:
        if not bool(torch.isfinite(logits.amax(dim=-1)).all()):  # NaN wins every maximum
            raise not_finite(self.model, f"the logits of token {step + 1} of a reply")
        newest = draw(logits, self.uniforms[self.rows, step], self.sampling)
        for row, token in zip(self.rows, newest.tolist(), strict=True):
            if row in self.alive and token in self.model.end_tokens:
                self.alive.discard(row)
            elif row in self.alive:
                self.responses[row].append(token)
                if self.thinks and ends_thinking(self.model.tokenizer, self.responses[row]):
                    self.starts[row] = len(self.responses[row])
        return newest

    def _drop_finished(self, newest: Tensor) -> Tensor:
        places = [place for place, row in enumerate(self.rows) if row in self.alive]
        n_gone = len(self.rows) - len(places)
        if n_gone * DROP_SHARE < len(self.rows) or not n_gone:
            return newest
        index = torch.tensor(places, device=self.model.device)
        self.cache.batch_select_indices(index)
        self.mask = self.mask.index_select(0, index)
        self.rows = [self.rows[place] for place in places]
        return newest.index_select(0, index)

    def _result(self, row: int, n_hooks: int) -> Generated:
        if self.thinks and self._still_thinks(row):
            self.starts[row] = len(self.responses[row])
            self.record.forget(row)
        start = self.starts[row]
        lead, ids = tuple(self.responses[row][:start]), tuple(self.responses[row][start:])
        text = self.model.tokenizer.decode(ids, skip_special_tokens=True)
        captured = self.record.of_row(row, n_hooks)
        return Generated(self.prompts[row], ids, text, row not in self.alive, lead_ids=lead, **captured)

    def _still_thinks(self, row: int) -> bool:
        start, tokenizer = self.starts[row], self.model.tokenizer
        opened = "" if start else opened_thinking(tokenizer, self.prompts[row])
        return never_left(opened + tokenizer.decode(self.responses[row][start:]))

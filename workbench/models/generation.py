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
from .sampled_activations import GenerationRecord
from .sampling import Sampling, draw, draw_uniforms
from .thinking import ends_thinking, may_think, never_left, opened_thinking
from .transfers import to_device, to_host

if TYPE_CHECKING:
    from .model import Model

DROP_SHARE = 8
"""Finished rows leave the batch once they are at least 1 / DROP_SHARE of it: leaving costs a copy of the cache."""
GPU_STEPS = 16
"""Tokens per row that a GPU samples before anyone looks at them: to look is to wait for it. A row that ended meanwhile is
sampled on, and what comes after its end is not counted."""


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
    rollout.every = 1
    for _ in rollout.steps():
        yield [rollout.so_far(row) for row in range(len(prompts))]


def plan_rows(prompts: Sequence[ChatTokens], row_seeds: Sequence[int], batch_size: int) -> list[list[int]]:
    """Row indices in batches of similar length; a function of the rows, not of their order."""
    order = sorted(
        range(len(prompts)), key=lambda index: (len(prompts[index].ids), prompts[index].ids, row_seeds[index])
    )
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


class _Rollout:
    """One batch of rows being sampled. `rows[place]` is the original row at a place of the shrinking batch.

    What was sampled is read every `every` tokens (`_look`); until then it stays on the model's device.
    """

    def __init__(
        self,
        model: Model,
        prompts: Sequence[ChatTokens],
        sampling: Sampling,
        uniforms: Tensor,
        record: GenerationRecord,
        names: Sequence[int],
    ) -> None:
        from .cache import roomy_cache, sees_everything  # imports transformers

        self.model, self.prompts, self.sampling, self.record = model, prompts, sampling, record
        self.names = names
        pad = next(iter(model.end_tokens), 0)
        self.ids, mask = padded([prompt.ids for prompt in prompts], pad=pad, left=True)
        room = torch.ones(len(prompts), sampling.max_new_tokens, dtype=torch.long)
        self.mask = torch.cat([mask, room], dim=1).to(model.device)
        self.width = self.ids.shape[1]
        self.cache = roomy_cache(model, self.width + sampling.max_new_tokens)
        # transformers would read a mask of two dimensions, and so wait for a GPU at every token; one of four it takes as it is,
        # which is right where every layer sees all that came before.
        self.whole_masks = model.config._attn_implementation == "sdpa" and sees_everything(self.cache, self.mask.shape[1])
        self.rows = list(range(len(prompts)))
        self.alive = set(self.rows)
        self.responses: list[list[int]] = [[] for _ in prompts]
        self.thinks = may_think(model)
        self.starts = [0] * len(prompts)  # where the answer begins in the response
        self.every = GPU_STEPS if model.device.type == "cuda" and not self.thinks else 1
        # Ids beyond the tokenizer are padding of the unembedding and mean nothing.
        self.n_ids = min(model.vocab_size, len(model.tokenizer))
        # On the model's device: the rows of the batch, their uniform numbers, and which of them have not ended.
        self.index = torch.arange(len(prompts), device=model.device)
        self.uniforms = to_device(uniforms, model.device)
        self.live = torch.ones(len(prompts), dtype=torch.bool, device=model.device)
        self.ends = torch.tensor(sorted(model.end_tokens), dtype=torch.long, device=model.device)
        self.unread: list[tuple[int, Tensor, Tensor]] = []  # step, tokens, whether every logit was a number

    def run(self, n_hooks: int) -> list[Generated]:
        for _ in self.steps():
            pass
        for row in range(len(self.prompts)):
            if self.thinks and self._still_thinks(row):
                self.starts[row] = len(self.responses[row])
                self.record.forget(row)
        return [self._result(row, captured) for row, captured in enumerate(self.record.of_rows(n_hooks))]

    @torch.no_grad()
    def steps(self) -> Iterator[None]:
        """One more token of every row that is not finished, at each turn."""
        with self.model.hooked(self.record.functions()):
            newest = self._sample(self._prefill(), 0)
            self._look()
            yield
            for step in range(1, self.sampling.max_new_tokens + 1):
                if not self.alive:
                    break
                newest = self._drop_finished(newest)
                last = step == self.sampling.max_new_tokens
                if last and not self.record.hooks:
                    break
                logits = self._step(newest, step, last=last)
                self.record.add(self.index, self.live)
                if self.thinks:
                    self._forget_thoughts()
                if not last:
                    newest = self._sample(logits, step)
                if last or step % self.every == 0:
                    self._look()
                if not last:
                    yield
            self._look()

    def so_far(self, row: int) -> Generated:
        """What a row has said until now, without activations; nothing while it thinks."""
        said = self.responses[row]
        start = len(said) if self.thinks and self._still_thinks(row) else self.starts[row]
        text = self.model.tokenizer.decode(said[start:], skip_special_tokens=True)
        return Generated(self.prompts[row], tuple(said[start:]), text, row not in self.alive, lead_ids=tuple(said[:start]))

    def _forget_thoughts(self) -> None:
        for row in self.rows:
            if row in self.alive and 0 < self.starts[row] == len(self.responses[row]):
                self.record.check()
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
        if self.every > 1 and self.whole_masks:
            mask = mask[:, None, None].bool()
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
        """The next token of every place, on the device; `_look` reads it."""
        newest = draw(logits, self.uniforms[self.index, step], self.sampling)
        self.unread.append((step, newest, torch.isfinite(logits.amax(dim=-1)).all()))  # NaN wins every maximum
        self.live = self.live & ~torch.isin(newest, self.ends)
        return newest

    def _look(self) -> None:
        """Read what was sampled since the last look: which rows ended, and whether every number was one."""
        self.record.check()
        if not self.unread:
            return
        tokens, finite = to_host(torch.stack([one for _, one, _ in self.unread]), torch.stack([fine for *_, fine in self.unread]))
        for (step, *_), line, fine in zip(self.unread, tokens.tolist(), finite.tolist(), strict=True):
            if not fine:
                raise not_finite(self.model, f"the logits of token {step + 1} of a reply")
            for row, token in zip(self.rows, line, strict=True):
                self._said(row, token)
        self.unread.clear()

    def _said(self, row: int, token: int) -> None:
        if row in self.alive and token in self.model.end_tokens:
            self.alive.discard(row)
        elif row in self.alive:
            self.responses[row].append(token)
            if self.thinks and ends_thinking(self.model.tokenizer, self.responses[row]):
                self.starts[row] = len(self.responses[row])

    def _drop_finished(self, newest: Tensor) -> Tensor:
        places = [place for place, row in enumerate(self.rows) if row in self.alive]
        n_gone = len(self.rows) - len(places)
        if self.unread or n_gone * DROP_SHARE < len(self.rows) or not n_gone:
            return newest
        index = to_device(torch.tensor(places), self.model.device)
        self.cache.batch_select_indices(index)
        self.mask, self.index, self.live = (one.index_select(0, index) for one in (self.mask, self.index, self.live))
        self.rows = [self.rows[place] for place in places]
        return newest.index_select(0, index)

    def _result(self, row: int, captured: Mapping[str, Any]) -> Generated:
        start = self.starts[row]
        lead, ids = tuple(self.responses[row][:start]), tuple(self.responses[row][start:])
        text = self.model.tokenizer.decode(ids, skip_special_tokens=True)
        return Generated(self.prompts[row], ids, text, row not in self.alive, lead_ids=lead, **captured)

    def _still_thinks(self, row: int) -> bool:
        start, tokenizer = self.starts[row], self.model.tokenizer
        opened = "" if start else opened_thinking(tokenizer, self.prompts[row])
        return never_left(opened + tokenizer.decode(self.responses[row][start:]))

"""What a direction does to the model: the log-probability contrast on written replies, at a dose matched by KL.

    C(s)    = log p_s(y_trait | x) / T_trait - log p_s(y_opposite | x) / T_opposite        per pair, nats per token
    odd     = (C(+delta) - C(-delta)) / 2      the effect: flattening the softmax cancels in it
    damage  = (C(+delta) + C(-delta)) / 2 - C(0)

delta is added to the residual at the hook exactly where the tokens of the reply are predicted: from the last prompt
token to the reply's second-to-last, never at position 0 or at a sink. The prompt is a user message under the model's
chat template, without a system message of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources

import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.models.hookpoints import HookPoint
from workbench.models.model import Model
from workbench.models.prompts import tokenize_chat
from workbench.models.rerun import Batch, Passage, Rerun
from workbench.personas.traits import ReplyPair

MAX_DOSE_NORMS = 3.0
"""No dose exceeds this many median token norms, whatever its KL: text has fallen apart before."""
KL_TOLERANCE = 0.02
_LOGIT_BUDGET = 25_000_000  # numbers in one block of logits: 100 MB in float32
_IN_CACHE = 1 << 18  # numbers of a float32 copy that a CPU's cache holds


def neutral_snippets() -> tuple[str, ...]:
    """The fixed neutral sentences on which doses are matched, written for this package."""
    text = (resources.files("workbench.personas") / "data" / "neutral_snippets.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line.strip())


class ReplyContrast:
    """C per pair under any delta: `contrast(deltas [v, d_model])` -> float64 [v, n_pairs]; `baseline` is C(0) [n_pairs].

    `systems`: system prompts before the pairs' prompts, in turn (pair i gets number i modulo their number); none by default.
    """

    def __init__(
        self,
        model: Model,
        hook: HookPoint,
        pairs: Sequence[ReplyPair],
        *,
        systems: Sequence[str] = (),
        batch_tokens: int = 2048,
        fast: bool = True,
    ) -> None:
        told = [systems[i % len(systems)] if systems else None for i in range(len(pairs))]
        replies = [_reply(model, pair, text, system) for pair, system in zip(pairs, told, strict=True)
                   for text in (pair.trait, pair.opposite)]  # fmt: skip
        self.model, self.pairs = model, tuple(pairs)
        self._targets = [targets for _, targets in replies]
        self.rerun = Rerun(model, hook, [passage for passage, _ in replies], batch_tokens=batch_tokens, fast=fast)

    @cached_property
    def baseline(self) -> Tensor:
        """C without an edit; who takes only odd parts never needs it."""
        means = torch.zeros(1, len(self._targets), dtype=torch.float64)
        for batch in self.rerun.batches:
            means[:, list(batch.rows)] = self._means(batch, batch.reference[None])
        return _trait_minus_opposite(means)[0]

    def __call__(self, deltas: Tensor) -> Tensor:
        return self.edited_at(len(deltas), lambda batch, chosen: deltas[chosen, None, None])

    def edited_at(self, n_edits: int, deltas: Callable[[Batch, slice], Tensor]) -> Tensor:
        """C [n_edits, n_pairs] under edits that may differ by position (`Rerun.edited_at`); rows 2i, 2i + 1 are pair i."""
        means = torch.zeros(n_edits, len(self._targets), dtype=torch.float64)
        for batch, chosen, hidden in self.rerun.edited_at(n_edits, deltas):
            means[chosen, list(batch.rows)] = self._means(batch, hidden)
        return _trait_minus_opposite(means)

    def gradients(self) -> Iterator[tuple[Batch, Tensor]]:
        """(batch, d C / d residual [n, T, d_model]) of each row's own pair: one backward pass for many replies."""
        for batch, gradient in self.rerun.gradients(lambda batch, hidden: self._means(batch, hidden).sum()):
            side = torch.tensor([1.0 if row % 2 == 0 else -1.0 for row in batch.rows])
            yield batch, gradient * side.to(gradient)[:, None, None]

    def _means(self, batch: Batch, hidden: Tensor) -> Tensor:
        """Mean log-probability per reply [v, n] of hidden [v, n, T, d_model]."""
        v = len(hidden)
        targets = torch.cat([torch.tensor(self._targets[row]) for row in batch.rows]).to(hidden.device)
        logp = _token_logprobs(self.model, hidden[:, batch.valid].flatten(0, 1), targets.repeat(v))
        grid = torch.zeros(v, *batch.valid.shape, dtype=torch.float64)
        grid[:, batch.valid.cpu()] = logp.double().cpu().unflatten(0, (v, -1))
        return grid.sum(dim=2) / batch.valid.cpu().sum(dim=1)


def _trait_minus_opposite(means: Tensor) -> Tensor:
    return means[:, 0::2] - means[:, 1::2]


def _reply(model: Model, pair: ReplyPair, text: str, system: str | None) -> tuple[Passage, list[int]]:
    """The passage of one reply (its last token only ever is a target) and the target ids."""
    before = [{"role": "system", "content": system}] if system else []
    asked = [{"role": "user", "content": pair.prompt}, {"role": "assistant", "content": text}]
    chat = tokenize_chat(model, [*before, *asked])
    spans = chat.spans.get("response", ())
    if len(spans) != 1 or spans[0][0] < 1:
        raise WorkbenchError(
            f"the reply of pair {pair.id} has no tokens of its own under the chat template of {model.name}",
            "a reply of at least one token after the prompt",
            "correct the pair in the trait's pairs.yaml",
        )
    start, end = spans[0]
    return Passage(tuple(chat.ids[: end - 1]), start - 1), list(chat.ids[start:end])


def _token_logprobs(model: Model, hidden: Tensor, targets: Tensor) -> Tensor:
    """log p(target) [m] for final hidden states [m, d_model]; the logits exist a block at a time."""
    size = max(1, _LOGIT_BUDGET // model.vocab_size)
    parts = []
    for rows, wanted in zip(hidden.split(size), targets.split(size), strict=True):
        logits = model.logits_of(rows)
        reached = logits.gather(1, wanted[:, None].to(logits.device))[:, 0]
        parts.append(reached.float() - _logsumexp(logits))
    return torch.cat(parts)


def _logsumexp(logits: Tensor) -> Tensor:
    """In float32, [m]; a CPU takes few rows at a time, as whole copies of a large vocabulary cost more than the sums."""
    size = _IN_CACHE // logits.shape[1] if logits.device.type == "cpu" else len(logits)
    return torch.cat([rows.float().logsumexp(dim=1) for rows in logits.split(max(1, size))])


class NeutralText:
    """KL(p_0 || p_delta) in nats per token on neutral sentences: `kl(deltas [v, d_model])` -> float64 [v].

    The mean is over every position that is edited (all but position 0 and sinks). The unedited distributions are kept:
    some 250 tokens times the vocabulary, 50 MB for the default model.
    """

    def __init__(
        self,
        model: Model,
        hook: HookPoint,
        snippets: Sequence[str] | None = None,
        *,
        batch_tokens: int = 2048,
        fast: bool = True,
    ) -> None:
        self.model = model
        rows = [model.tokenizer(text)["input_ids"] for text in snippets or neutral_snippets()]
        passages = [Passage(tuple(ids), 1) for ids in rows if len(ids) > 1]
        self.rerun = Rerun(model, hook, passages, batch_tokens=batch_tokens, fast=fast)
        self._size = max(1, _LOGIT_BUDGET // model.vocab_size)
        self._reference = [self._unedited(batch) for batch in self.rerun.batches]

    @property
    def n_tokens(self) -> int:
        """Edited positions, over which the mean is taken."""
        return sum(int(batch.steered.sum()) for batch in self.rerun.batches)

    def __call__(self, deltas: Tensor) -> Tensor:
        total = torch.zeros(len(deltas), dtype=torch.float64)
        order = {id(batch): index for index, batch in enumerate(self.rerun.batches)}
        for batch, chosen, hidden in self.rerun.edited(deltas):
            logp = self._reference[order[id(batch)]]
            sums = [self._divergence(logp, rows[batch.steered]) for rows in hidden]
            total[chosen] += torch.stack(sums)
        return total / self.n_tokens

    def _unedited(self, batch: Batch) -> Tensor:
        rows = batch.reference[batch.steered].split(self._size)
        return torch.cat([self.model.logits_of(part).float().log_softmax(dim=1) for part in rows])

    def _divergence(self, reference: Tensor, hidden: Tensor) -> Tensor:
        """The summed KL of one delta's positions; each term p (log p - log q) is exact where they agree."""
        parts = zip(reference.split(self._size), hidden.split(self._size), strict=True)
        sums = [_kl(logp, self.model.logits_of(rows).float().log_softmax(dim=1)).double().sum() for logp, rows in parts]
        return torch.stack(sums).sum().cpu()


def _kl(logp: Tensor, logq: Tensor) -> Tensor:
    return (logp.exp() * (logp - logq)).sum(dim=1)


@dataclass(frozen=True, eq=False, repr=False)
class Doses(Shown):
    """`norms` [f] = |delta| in the residual's units, `kl` [f] = nats per token that it reaches; float64."""

    norms: Tensor
    kl: Tensor


def doses_for_kl(
    neutral: Callable[[Tensor], Tensor], directions: Tensor, target: float, *, start: float, cap: float, max_steps: int = 12
) -> Doses:
    """|delta| per unit direction [f, d_model] at which the mean KL over both signs is `target` within 2%, at most `cap`.

    A secant on log KL against log |delta|: KL grows like |delta|^2 for small doses, so the first step assumes slope 2.
    Each direction's search depends on nothing but itself and `start`.
    """
    n = len(directions)
    x = torch.full((n,), min(start, cap), dtype=torch.float64).log()
    slope, kl = torch.full((n,), 2.0, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
    open_ = torch.ones(n, dtype=torch.bool)
    ceiling = float(torch.tensor(cap, dtype=torch.float64).log())
    last_x, last_gap = x.clone(), torch.full((n,), torch.nan, dtype=torch.float64)
    for _ in range(max_steps):
        delta = directions[open_] * x[open_].exp()[:, None].to(directions)
        kl[open_] = neutral(torch.cat([delta, -delta])).reshape(2, -1).mean(dim=0)
        gap = (kl.clamp_min(1e-12) / target).log()
        capped = (x >= ceiling) & (gap < 0)
        open_ &= ~capped & ((kl / target - 1).abs() > KL_TOLERANCE)
        if not open_.any():
            break
        moved = (x - last_x).abs() > 1e-9
        slope = torch.where(moved, ((gap - last_gap) / (x - last_x)).nan_to_num(2.0).clamp(0.5, 6.0), slope)
        last_x, last_gap = torch.where(open_, x, last_x), torch.where(open_, gap, last_gap)
        step = (gap / slope).clamp(-1.5, 1.5)
        x = torch.where(open_, (x - step).clamp_max(ceiling), x)
    return Doses(x.exp(), kl)


@dataclass(frozen=True, eq=False, repr=False)
class Effects(Shown):
    """What +delta and -delta along f directions do to n pairs: `odd`, `even` [f, n_pairs] in nats per token; float64.

    `even` is the damage per pair (the baseline is subtracted); `dose_norms` and `kl` [f] say how large the deltas were.
    """

    odd: Tensor
    even: Tensor
    dose_norms: Tensor
    kl: Tensor


class CausalInstrument:
    """Everything that is measured once for a model, hook and pair set, so that each direction costs edited passes only."""

    def __init__(
        self,
        model: Model,
        hook: HookPoint,
        pairs: Sequence[ReplyPair],
        *,
        kl: float = 0.1,
        snippets: Sequence[str] | None = None,
        batch_tokens: int = 2048,
    ) -> None:
        if not kl > 0:
            raise WorkbenchError(f"the dose is set by kl={kl}", "a positive number of nats per token", "use for instance 0.1")
        self.kl, self.median_norm = kl, float(model.norm_medians([hook])[0])
        self.contrast = ReplyContrast(model, hook, pairs, batch_tokens=batch_tokens)
        self.neutral = NeutralText(model, hook, snippets, batch_tokens=batch_tokens)
        self._start = self._typical_dose(model.d_model)

    def _typical_dose(self, d_model: int) -> float:
        """The dose of one fixed random direction: where every search starts, so that no search depends on another."""
        from workbench.maths.geometry import isotropic_directions

        unit = isotropic_directions(1, d_model, torch.Generator().manual_seed(0))
        cap = MAX_DOSE_NORMS * self.median_norm
        return float(doses_for_kl(self.neutral, unit, self.kl, start=0.3 * self.median_norm, cap=cap).norms)

    def doses(self, directions: Tensor) -> Doses:
        """The KL-matched dose of each of `directions` [f, d_model]; the pairs play no part in it."""
        cap = MAX_DOSE_NORMS * self.median_norm
        return doses_for_kl(self.neutral, _unit(directions), self.kl, start=self._start, cap=cap)

    def measure(self, directions: Tensor, doses: Doses | None = None) -> Effects:
        """Effects of `directions` [f, d_model] (any length, none zero), each at its own KL-matched dose (if known, `doses`)."""
        unit, doses = _unit(directions), doses or self.doses(directions)
        delta = unit * doses.norms[:, None].float()
        up, down = self.contrast(torch.stack([delta, -delta], dim=1).flatten(0, 1)).unflatten(0, (-1, 2)).unbind(1)
        even = (up + down) / 2 - self.contrast.baseline
        return Effects((up - down) / 2, even, doses.norms / self.median_norm, doses.kl)


def _unit(directions: Tensor) -> Tensor:
    rows = directions.float().cpu()
    return rows / rows.norm(dim=1, keepdim=True)

"""Lead time: how early an alarm comes in a reply that turns out to show the trait.

Positions are 1-based tokens of the reply. Of a reply that a judge calls the trait as a whole: `alarm` is the token at which the
alarm is raised first, `onset` the first token of the first sentence that (read alone) a judge calls the trait, `n` the reply's
last token. Tokens left = n - alarm; tokens before the onset = onset - alarm, positive when the alarm comes first. Replies without
an alarm count as not detected and have neither; replies without such a sentence have no onset.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.base.randomness import generator
from workbench.maths.statistics import bootstrap_counts, category_codes, percentile_interval
from workbench.steering.monitor.alarms import N_BOOTSTRAP, Alarm

if TYPE_CHECKING:
    from workbench.personas.judges import Judge
    from workbench.personas.traits import Trait

_SENTENCE = re.compile(r"[^.!?\n]*[.!?\n]*\s*")


@dataclass(frozen=True, eq=False)
class TraitReply:
    """A reply that shows the trait: the signal's `values` [n_tokens] and, if any, the token where the trait sets in."""

    question: str
    values: Tensor
    onset: int | None


def sentences(text: str) -> list[tuple[int, int]]:
    """(start, end) in characters of the sentences of a text; together they are the whole text."""
    return [found.span() for found in _SENTENCE.finditer(text) if found.group().strip()]


def onsets(
    texts: Sequence[str], starts: Sequence[Sequence[int]], judge: Judge, trait: Trait, *, threshold: float = 50.0
) -> list[int | None]:
    """The 1-based token at which the first sentence begins that `judge` scores at `threshold` or more; None without one.

    `starts` holds, per text, the character at which each token begins. Sentences are judged alone, without their context.
    """
    from workbench.personas.judges import JudgeItem

    parts = [(row, start, text[start:end]) for row, text in enumerate(texts) for start, end in sentences(text)]
    judged = judge.score([JudgeItem("", part) for _, _, part in parts], trait)
    found: list[int | None] = [None] * len(texts)
    for (row, start, _), judgement in zip(parts, judged, strict=True):
        if found[row] is None and (judgement.score or 0.0) >= threshold:
            found[row] = sum(begin <= start for begin in starts[row]) or 1
    return found


def token_starts(decode: Callable[[list[int]], str], ids: Sequence[int]) -> list[int]:
    """The character of the decoded text at which each token begins."""
    return [len(decode(list(ids[:i]))) for i in range(len(ids))]


def lead_times(alarm: Alarm, replies: Sequence[TraitReply], *, seed: int = 0) -> dict[str, Any]:
    """{n_replies, n_questions, detected, tokens_left, n_onset, before_onset, tokens_before_onset}: shares and medians, each as
    {value, interval}, bootstrap over questions.

    `detected`: share of the replies that raise the alarm. `before_onset`: share of the replies with an onset whose alarm comes
    before it. The medians are over the detected replies.
    """
    first = [alarm.first(reply.values) for reply in replies]
    onset = [reply.onset for reply in replies]
    at = torch.tensor([float("nan") if one is None else float(one) for one in first])
    begins = torch.tensor([float("nan") if one is None else float(one) for one in onset])
    lengths = torch.tensor([float(len(reply.values)) for reply in replies])
    early = torch.where(begins.isnan(), torch.nan, (at < begins).float())
    question = category_codes([reply.question for reply in replies])
    counts = bootstrap_counts(int(question.max()) + 1, N_BOOTSTRAP, generator(seed))[:, question].long()
    measures = {
        "detected": (at.isfinite().float(), torch.nanmean), "tokens_left": (lengths - at, torch.nanmedian),
        "before_onset": (early, torch.nanmean), "tokens_before_onset": (begins - at, torch.nanmedian),
    }  # fmt: skip
    sizes = {"n_replies": len(replies), "n_questions": int(question.max()) + 1, "n_onset": int(begins.isfinite().sum())}
    return sizes | {name: _measure(values, of, counts) for name, (values, of) in measures.items()}


def _measure(values: Tensor, of: Callable[[Tensor], Tensor], counts: Tensor) -> dict[str, Any] | None:
    if not bool(values.isfinite().any()):
        return None
    replicates = torch.stack([of(values.repeat_interleave(line)) for line in counts])
    low, high = percentile_interval(replicates.double())
    return {"value": float(of(values)), "interval": [float(low), float(high)]}

"""Drawing tokens by inverting the cumulative distribution: one uniform number per row and step, no global state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor

from ..base.errors import WorkbenchError
from ..base.randomness import generator

_CHUNK = 256
_LIKELIEST, _ROUNDING = 512, 1e-4


@dataclass(frozen=True)
class Sampling:
    """How responses are sampled."""

    max_new_tokens: int = 64
    """At most so many tokens per response."""
    temperature: float = 1.0
    """1 samples from the model's own distribution; 0 takes the likeliest token."""
    top_p: float = 1.0
    """Only the likeliest tokens that together reach this probability can be drawn."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.temperature < 0 or not 0 < self.top_p <= 1:
            raise WorkbenchError(
                f"{self} cannot be sampled from",
                "max_new_tokens >= 1, temperature >= 0 and 0 < top_p <= 1",
                "correct the sampling options",
            )


def draw_uniforms(row_seeds: Sequence[int], n_steps: int) -> Tensor:
    """Uniform numbers [n_rows, n_steps] (float64); row r depends on row_seeds[r] and on nothing else."""
    return torch.stack(
        [torch.rand(n_steps, generator=generator(seed), dtype=torch.float64) for seed in row_seeds]
    )


def draw(logits: Tensor, uniforms: Tensor, sampling: Sampling) -> Tensor:
    """The token ids [n_rows] drawn from logits [n_rows, vocab] with one uniform number in [0, 1) per row.

    The id is the first whose cumulative probability exceeds the uniform number.
    """
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    weights = torch.softmax(logits.float() / sampling.temperature, dim=-1)
    if sampling.top_p < 1:
        weights = _nucleus(weights, sampling.top_p)
    return invert(weights, uniforms.to(weights.device))


def _nucleus(weights: Tensor, top_p: float) -> Tensor:
    """The weights [n_rows, vocab] without those beyond the likeliest that reach top_p; of equal weights the lower ids stay.

    On a CPU a whole vocabulary is sorted only in rows whose _LIKELIEST tokens do not reach it: a sort takes longer than a
    small model's pass. On a GPU it is cheap, and asking which rows those are would wait for the device at every token.
    """
    if weights.device.type != "cpu" or weights.shape[-1] <= _LIKELIEST:
        return _cut(weights, weights.sort(dim=-1, descending=True).values, top_p)
    ordered = weights.topk(_LIKELIEST, dim=-1).values
    kept = _cut(weights, ordered, top_p)
    wide = ordered.sum(dim=-1) < top_p + _ROUNDING
    if wide.any():
        kept[wide] = _cut(weights[wide], weights[wide].sort(dim=-1, descending=True).values, top_p)
    return kept


def _cut(weights: Tensor, ordered: Tensor, top_p: float) -> Tensor:
    beyond = ordered.cumsum(dim=-1) - ordered >= top_p
    n_kept = (~beyond).sum(dim=-1, keepdim=True)  # the likeliest always stays; a row of NaN stays as it is
    least = ordered.gather(-1, n_kept - 1)
    equal = weights == least
    n_equal = n_kept - (weights > least).sum(dim=-1, keepdim=True)
    below = (weights < least) | (equal & (equal.cumsum(dim=-1) > n_equal))
    return weights.masked_fill(below, 0.0)


def invert(weights: Tensor, uniforms: Tensor) -> Tensor:
    """The first index at which the running sum of weights [n_rows, vocab] exceeds uniforms x their total.

    Two steps, first among sums of 256 weights, then inside the chunk found: a running sum over a whole vocabulary
    costs ten times as much and loses digits.
    """
    n_rows, vocab = weights.shape
    chunks = functional.pad(weights, (0, -vocab % _CHUNK)).view(n_rows, -1, _CHUNK)
    ends = chunks.sum(dim=-1, dtype=torch.float64).cumsum(dim=-1)
    target = (uniforms * ends[:, -1]).unsqueeze(-1)
    chunk = (ends <= target).sum(dim=-1).clamp(max=chunks.shape[1] - 1)
    before = functional.pad(ends, (1, 0)).gather(1, chunk.unsqueeze(-1))
    rows = torch.arange(n_rows, device=weights.device)
    inside = chunks[rows, chunk].double()
    offset = (inside.cumsum(dim=-1) <= target - before).sum(dim=-1)
    # Rounding can push the target past the last weight of the chunk: never draw what has no weight.
    last = _CHUNK - 1 - (inside > 0).flip(-1).to(torch.int8).argmax(dim=-1)
    drawn = chunk * _CHUNK + torch.minimum(offset, last)
    return drawn.clamp(max=vocab - 1)  # NaN has no place; whoever samples from it looks later

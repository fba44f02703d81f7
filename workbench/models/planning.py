"""What sampling and reading through a model take, said before it is loaded: passes, tokens, memory, time."""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from .capture import plan_batches
from .memory import RowNeeds, capture_needs, check_weights_fit, generation_needs, rounded_width, rows_within
from .norms import neutral_rows
from .probe import Probe
from .sampling import Sampling
from .synthetic import shape_of

CAPTURE_TOKENS = 2048
"""Positions of one capturing pass where memory does not bound them."""


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes, part by part; batches are counted at their largest."""

    weights: int
    cache: int = 0
    activations: int = 0
    logits: int = 0
    capture: int = 0
    libraries: int = 0

    @property
    def model(self) -> int:
        """What a budget is about: all but the libraries."""
        return self.weights + self.cache + self.activations + self.logits + self.capture

    @property
    def peak(self) -> int:
        """All of it."""
        return self.model + self.libraries

    @classmethod
    def of_rows(cls, weights: int, needs: RowNeeds, n_rows: int, libraries: int = 0) -> MemoryPlan:
        """The memory of `n_rows` rows together."""
        parts = (n_rows * part for part in (needs.cache, needs.activations, needs.logits, needs.capture))
        return cls(weights, *parts, libraries=libraries)


@dataclass(frozen=True)
class PassPlan:
    """Passes through the model: how many, over how many tokens (padding included), how long, at which peak of memory."""

    n_passes: int
    n_tokens: int
    seconds: float
    memory: MemoryPlan


def probe_of(name: str, *, dtype: str, device: str | None, budget: int | None = None) -> Probe | None:
    """The probe of a model whose configuration and tokenizer are on this machine; None where they are not.

    Raises WorkbenchError for an unknown dtype, and when the weights alone exceed `budget`.
    """
    from .loading import check_dtype, config_at_hand

    check_dtype(dtype)
    found = config_at_hand(name)
    if found is None:
        return None
    if budget is not None:
        check_weights_fit(shape_of(found[0]), dtype, budget, name=name)
    return Probe.of(*found, dtype=dtype, device=device_for(device), name=name)


def weights_of(probe: Probe) -> int:
    """Bytes of the whole model's weights in the probe's type."""
    return probe.shape.n_parameters * probe.model.dtype.itemsize


def plan_capture(
    probe: Probe, lengths: Sequence[int], *, budget: int | None = None, n_token_hooks: int = 0, libraries: int = 0
) -> PassPlan:  # fmt: skip
    """The passes that `capture` makes over rows of these lengths at all blocks, within `budget` bytes."""
    width = max(lengths, default=1)
    needs = capture_needs(probe.model, width, n_token_hooks)
    wanted = max(1, CAPTURE_TOKENS // width)
    together = wanted if budget is None else rows_within(budget, weights_of(probe), needs, wanted)
    tokens = CAPTURE_TOKENS if together == wanted else together * width
    batches = plan_batches(lengths, tokens)
    positions = [len(rows) * lengths[rows[0]] for rows in batches]  # padding included
    largest = max(batches, key=lambda rows: len(rows) * lengths[rows[0]], default=[])
    per_position = _seconds_per_position(probe, len(largest), lengths[largest[0]]) if largest else 0.0
    memory = MemoryPlan.of_rows(weights_of(probe), needs, len(largest), libraries)
    return PassPlan(len(batches), sum(positions), per_position * sum(positions), memory)


def plan_generation(
    probe: Probe,
    batches: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    budget: int | None = None,
    n_token_hooks: int = 0,
    libraries: int = 0,
) -> PassPlan:
    """The passes of sampling `batches` of prompts (their lengths), every answer as long as it may become.

    A batch that does not fit into `budget` is sampled in pieces. `n_tokens` counts prompts and answers.
    """
    width = max((length for batch in batches for length in batch), default=1)
    needs = generation_needs(
        probe.model, width, sampling, n_hooks=probe.shape.n_blocks, n_token_hooks=n_token_hooks, shape=probe.shape
    )  # fmt: skip
    largest = max(map(len, batches), default=0)
    together = largest if budget is None else rows_within(budget, weights_of(probe), needs, largest)
    pieces = [batch[i : i + together] for batch in map(sorted, batches) for i in range(0, len(batch), together)]
    seconds = sum(_rollout_seconds(probe, len(piece), piece[-1], sampling) for piece in pieces)
    n_tokens = sum(len(piece) * (piece[-1] + sampling.max_new_tokens) for piece in pieces)
    memory = MemoryPlan.of_rows(weights_of(probe), needs, together, libraries)
    return PassPlan(len(pieces) * (1 + sampling.max_new_tokens), n_tokens, seconds, memory)


def _rollout_seconds(probe: Probe, n_rows: int, width: int, sampling: Sampling) -> float:
    """The pass over the prompts, then a token at a time behind a context that grows by `max_new_tokens`.

    Measured at the next power of two of rows and the next multiple of 32 positions, so that a few measurements serve
    all batches; a pass over prompts goes with its positions, a step hardly depends on them.
    """
    rows, middle = 1 << (n_rows - 1).bit_length(), rounded_width(width + sampling.max_new_tokens // 2)
    prefill = probe.prefill_seconds(rows, middle) * n_rows * width / (rows * middle)
    return prefill + sampling.max_new_tokens * probe.step_seconds(rows, middle, sampling)


def plan_neutral(probe: Probe, *, budget: int | None = None, libraries: int = 0) -> PassPlan:
    """The passes over the neutral text that say how large a token's activation usually is."""
    n_rows, width = neutral_rows(probe.model).shape
    needs = capture_needs(probe.model, width)
    together = n_rows if budget is None else rows_within(budget, weights_of(probe), needs, n_rows)
    memory = MemoryPlan.of_rows(weights_of(probe), needs, together, libraries)
    per_position = _seconds_per_position(probe, together, width)
    return PassPlan(-(-n_rows // together), n_rows * width, per_position * n_rows * width, memory)


def _seconds_per_position(probe: Probe, n_rows: int, width: int) -> float:
    return probe.capture_seconds(n_rows, width) / (n_rows * width)


def resident_bytes() -> int:
    """The memory of this process now (its peak so far where the system does not tell)."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return peak_resident_bytes()


def peak_resident_bytes() -> int:
    """The most memory that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def device_for(device: str | None) -> str:
    """The device that a model would be put on: `device`, or the GPU when there is one ("auto" included)."""
    if device in (None, "auto"):
        return "cuda" if torch.cuda.is_available() else "cpu"
    return str(device)

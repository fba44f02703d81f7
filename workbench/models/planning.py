"""What reading texts through a model takes, said before the model is loaded: passes, tokens, memory, time."""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from .capture import plan_batches
from .memory import RowNeeds, capture_needs, rows_within
from .norms import neutral_rows
from .probe import Probe

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
    """Passes over texts that exist: how many, over how many tokens, in how many seconds, at which peak of memory."""

    n_passes: int
    n_tokens: int
    seconds: float
    memory: MemoryPlan


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
    seconds = [len(rows) * lengths[rows[0]] for rows in batches]  # positions, padding included
    largest = max(batches, key=lambda rows: len(rows) * lengths[rows[0]], default=[])
    per_position = _seconds_per_position(probe, len(largest), lengths[largest[0]]) if largest else 0.0
    memory = MemoryPlan.of_rows(weights_of(probe), needs, len(largest), libraries)
    return PassPlan(len(batches), sum(seconds), per_position * sum(seconds), memory)


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

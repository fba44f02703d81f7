"""How long a model's passes take on this machine, measured on a few of its blocks with random weights.

Blocks are alike, so a pass takes the miniature's time per block times the number of blocks; the unembedding and the
draw of a token are measured on a slice of the vocabulary. Nothing is fitted to a particular model.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch

from .capture import CaptureBatch
from .hookpoints import HookPoint
from .model import Model
from .prompts import ChatTokens
from .sampled_activations import GenerationRecord
from .sampling import Sampling, draw
from .synthetic import Shape, miniature, shape_of

REPEAT_SECONDS, MOST_REPEATS = 0.4, 5
_VOCAB_SLICE = 16384
_DECODE_STEPS = 4


@dataclass(frozen=True)
class Probe:
    """A miniature of a model, to time and weigh the passes of the whole."""

    shape: Shape
    """Of the whole model."""
    model: Model
    """The miniature: its blocks are the whole model's, its tokenizer too, its weights random."""
    clock: Callable[[], float] = perf_counter
    """What times are read from; `time.process_time` leaves out what other programs take."""
    known: dict[tuple[Any, ...], float] = field(default_factory=dict, repr=False)
    """What was measured already."""

    @classmethod
    def of(
        cls,
        config: Any,
        tokenizer: Any,
        *,
        dtype: str = "float32",
        device: str = "cpu",
        name: str = "planned",
    ) -> Probe:
        """The probe of a transformers configuration; takes the memory of a few of its blocks."""
        shape = shape_of(config)
        hf = miniature(config, shape, dtype=dtype, device=device)
        return cls(shape, Model(hf, tokenizer, name=name, weights_hash="planned"))

    @property
    def scale(self) -> float:
        """How many times more blocks the whole has."""
        return self.shape.n_blocks / self.model.n_blocks

    def capture_seconds(self, n_rows: int, width: int) -> float:
        """Of one pass through all blocks with every block's output captured."""
        row = ChatTokens(tuple(1 + i % 200 for i in range(width)), {"response": ((0, width),)})
        hooks = [HookPoint(block) for block in range(self.model.n_blocks)]

        def run() -> None:
            CaptureBatch(self.model, [row] * n_rows, "response", torch.full((len(hooks),), math.inf)).run(
                hooks, ()
            )

        return self._remembered(("capture", n_rows, width), lambda: self.scale * self._timed(run))

    def prefill_seconds(self, n_rows: int, width: int) -> float:
        """Of the pass over the prompts of a batch."""
        return self._remembered(
            ("prefill", n_rows, width),
            lambda: self.scale * self._timed(lambda: self._prefill(n_rows, width, 0)),
        )

    def step_seconds(self, n_rows: int, context: int, sampling: Sampling) -> float:
        """Of one token for each of `n_rows` rows behind `context` tokens, captured at every block and drawn."""
        blocks = self._remembered(("step", n_rows, context), lambda: self.scale * self._step(n_rows, context))
        return blocks + self._remembered(("draw", n_rows), lambda: self._draw(n_rows, sampling))

    def _remembered(self, key: tuple[Any, ...], measure: Callable[[], float]) -> float:
        if key not in self.known:
            with torch.no_grad():
                self.known[key] = measure()
        return self.known[key]

    def _prefill(self, n_rows: int, width: int, room: int) -> Any:
        from .cache import roomy_cache

        cache = roomy_cache(self.model, width + room)
        ids = torch.arange(width).remainder(200).expand(n_rows, width) + 1
        self.model.forward(ids, torch.ones_like(ids), logits=False, past_key_values=cache)
        return cache

    def _step(self, n_rows: int, context: int) -> float:
        hooks = [HookPoint(block) for block in range(self.model.n_blocks)]
        record = GenerationRecord(self.model, n_rows, hooks, (), torch.full((len(hooks),), math.inf))
        cache = self._prefill(n_rows, context, _DECODE_STEPS)
        newest, record.listening = torch.ones(n_rows, 1, dtype=torch.long), True
        places = torch.arange(n_rows, device=self.model.device)
        seconds = []
        with self.model.hooked(record.functions()):
            for step in range(1, _DECODE_STEPS + 1):
                started = self.clock()
                mask = torch.ones(n_rows, context + step, dtype=torch.long)
                self.model.forward(newest, mask, logits=False, past_key_values=cache)
                record.add(places, places >= 0)
                record.check()
                self._wait()
                seconds.append(self.clock() - started)
        return statistics.median(seconds[1:])  # the first one prepares kernels

    def _draw(self, n_rows: int, sampling: Sampling) -> float:
        size, options = (
            min(_VOCAB_SLICE, self.shape.vocab_size),
            {"dtype": self.model.dtype, "device": self.model.device},
        )
        table, hidden = (torch.rand(n, self.shape.d_model, **options) for n in (size, n_rows))
        uniforms = torch.full((n_rows,), 0.5, dtype=torch.float64)
        return self._timed(lambda: draw(hidden @ table.T, uniforms, sampling)) * self.shape.vocab_size / size

    def _timed(self, work: Callable[[], Any]) -> float:
        """The median of some runs, few when one takes long, behind one that prepares kernels and memory."""
        work()
        seconds: list[float] = []
        while len(seconds) < MOST_REPEATS and sum(seconds) < REPEAT_SECONDS:
            self._wait()
            started = self.clock()
            work()
            self._wait()
            seconds.append(self.clock() - started)
        return statistics.median(seconds)

    def _wait(self) -> None:
        if self.model.device.type == "cuda":
            torch.cuda.synchronize()

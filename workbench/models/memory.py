"""What a pass takes in memory, measured on one block, and the batch that fits a stated budget.

The budget counts what grows with the model and the batch: weights, activations, key-value cache, logits and the
buffers of the captured activations. The libraries themselves (about a GiB of the process) are not part of it.
"""

from __future__ import annotations

import contextlib
import math
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..base.errors import WorkbenchError
from ..base.sizes import size_text
from .hooks import HookFunction, StopForward, on_output
from .prompts import ChatTokens
from .sampling import Sampling, draw
from .synthetic import Shape

if TYPE_CHECKING:
    from .model import Model

WIDTH_STEP = 32
"""Row widths are rounded up to a multiple of this, so that one measurement serves many batches."""
_VOCAB_SLICE = 4096


class AllocationPeak(TorchDispatchMode):
    """Counts the bytes of tensors made inside the context; `peak` is the most that were alive at once.

    Sees every device, and what the operators return; scratch memory inside a kernel is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {storage._cdata for storage in _storages((args, kwargs or {}))}
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            if storage._cdata not in given | self._known:
                self._count(storage)
        return result

    def _count(self, storage: Any) -> None:
        self._known.add(storage._cdata)
        self.alive += storage.nbytes()
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._release, storage._cdata, storage.nbytes()).atexit = False

    def _release(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.alive -= size


def _storages(value: Any) -> list[Any]:
    return [leaf.untyped_storage() for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def peak_bytes(work: Callable[[], Any]) -> int:
    """The most bytes of new tensors that were alive at once while `work` ran."""
    with AllocationPeak() as counted:
        work()
    return counted.peak


@dataclass(frozen=True)
class RowNeeds:
    """Bytes that one row of a batch takes beside the weights."""

    activations: int
    """Of the pass through one block at a time."""
    cache: int = 0
    """Keys and values of all blocks, for the longest possible row."""
    logits: int = 0
    """Of the one position that is sampled from, with the working copies of the draw."""
    capture: int = 0
    """What the hooks keep."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.activations + self.cache + self.logits + self.capture


def capture_needs(model: Model, width: int, n_token_hooks: int = 0) -> RowNeeds:
    """The needs of a row of `width` tokens whose activations are captured; `n_token_hooks` keep every token."""
    width = rounded_width(width)
    kept = 2 * 4 * width * model.d_model * n_token_hooks  # float32, once as collected and once as given out
    return RowNeeds(_measured(model, ("capture", width), lambda: _capture_peak(model, width)), capture=kept)


def generation_needs(
    model: Model,
    width: int,
    sampling: Sampling,
    *,
    n_hooks: int = 0,
    n_token_hooks: int = 0,
    shape: Shape | None = None,
) -> RowNeeds:
    """The needs of a row with a prompt of `width` tokens; `shape` is the whole model's where `model` is a miniature."""
    shape, width = shape or Shape.of(model.hf), rounded_width(width)
    cache = _measured(model, ("cache", width), lambda: _cache_bytes(model, width)) / width
    activations = _measured(model, ("prefill", width), lambda: _prefill_peak(model, width))
    logits = (
        _measured(model, ("logits", int(sampling.top_p < 1)), lambda: _draw_peak(model, sampling))
        / _VOCAB_SLICE
    )
    record = (
        4 * shape.d_model * (5 * n_hooks + n_token_hooks * sampling.max_new_tokens)
    )  # sums, and copies of a step
    total_width = width + sampling.max_new_tokens
    return RowNeeds(
        activations, round(cache * total_width * shape.n_blocks), round(logits * shape.vocab_size), record
    )


def fitting_rows(model: Model, needs: RowNeeds, wanted: int) -> int:
    """How many of `wanted` rows fit into the model's budget together; all of them when it has none.

    Raises WorkbenchError with figures when not even one row does.
    """
    if model.max_memory is None:
        return wanted
    return rows_within(model.max_memory, weight_bytes(model.hf), needs, wanted)


def rows_within(budget: int, weights: int, needs: RowNeeds, wanted: int) -> int:
    """How many of `wanted` rows fit into `budget` bytes beside `weights` bytes; refuses when not even one does."""
    rows = (budget - weights) // max(1, needs.total)
    if rows < 1:
        raise WorkbenchError(
            f"a single row needs {size_text(weights + needs.total)} ({size_text(weights)} of weights, "
            f"{size_text(needs.total)} for the row), the budget is {size_text(budget)}",
            f"--max-memory of at least {size_text(1.02 * (weights + needs.total))}",
            "raise it, or take shorter answers (--max-new-tokens) or a narrower type (--dtype bfloat16)",
        )
    return min(wanted, rows)


def fitting_tokens(model: Model, width: int, wanted: int, n_token_hooks: int = 0) -> int:
    """The positions of one capturing pass over rows of up to `width` tokens: at most `wanted`, within the budget."""
    if model.max_memory is None:
        return wanted
    width = rounded_width(width)
    return width * fitting_rows(model, capture_needs(model, width, n_token_hooks), max(1, wanted // width))


def fitting_prompts(
    model: Model, width: int, sampling: Sampling, wanted: int, *, n_hooks: int, n_token_hooks: int
) -> int:  # fmt: skip
    """How many prompts of up to `width` tokens are sampled together: at most `wanted`, within the budget."""
    if model.max_memory is None:
        return wanted
    needs = generation_needs(model, width, sampling, n_hooks=n_hooks, n_token_hooks=n_token_hooks)
    return fitting_rows(model, needs, wanted)


def weight_bytes(hf: Any) -> int:
    """The bytes of a transformers model's weights, those that share memory once."""
    return sum(
        p.nbytes for p in {p.untyped_storage().data_ptr() or id(p): p for p in hf.parameters()}.values()
    )


def check_weights_fit(shape: Shape, dtype: str, budget: int, *, name: str) -> None:
    """Raises WorkbenchError, with figures, when the weights alone exceed the budget."""
    needed = shape.n_parameters * getattr(torch, dtype).itemsize
    if needed <= budget:
        return
    half = "" if dtype != "float32" else f"--dtype bfloat16 (then {size_text(needed / 2)}), "
    raise WorkbenchError(
        f"the weights of {name} need {size_text(needed)} in {dtype} ({shape.n_parameters / 1e9:.2f} billion parameters), "
        f"the budget is {size_text(budget)}",
        "a model whose weights fit into --max-memory with room for a row",
        f"use {half}a larger --max-memory (with --device auto it counts all devices together), or a smaller model",
    )


def rounded_width(width: int) -> int:
    """`width` rounded up to a multiple of WIDTH_STEP."""
    return -(-max(1, width) // WIDTH_STEP) * WIDTH_STEP


def _measured(model: Model, key: tuple[str, int], measure: Callable[[], int]) -> int:
    if key not in model.measured_needs:
        model.measured_needs[key] = measure()
    return model.measured_needs[key]


def _plain_ids(width: int) -> Tensor:
    return torch.arange(width).remainder(200)[None] + 1


@contextlib.contextmanager
def _first_block_only(model: Model, function: HookFunction | None = None) -> Iterator[None]:
    """A context in which passes end after the first block, whose output `function` gets; edits in force stay silent."""

    def stop(_module: Any, _args: Any) -> None:
        raise StopForward

    following = model.blocks[1] if model.n_blocks > 1 else model.final_norm
    handles = [following.register_forward_pre_hook(stop)]
    if function is not None:
        handles.append(on_output(model.blocks[0], function))
    try:
        with model.without_hooks(), torch.no_grad(), contextlib.suppress(StopForward):
            yield
    finally:
        for handle in handles:
            handle.remove()


def _capture_peak(model: Model, width: int) -> int:
    from .capture import CaptureBatch

    def work() -> None:
        row = ChatTokens(tuple(_plain_ids(width)[0].tolist()), {"response": ((0, width),)})
        batch = CaptureBatch(model, [row], "response", torch.tensor([math.inf]))

        def pool(tensor: Tensor) -> None:
            batch.pool(tensor, math.inf, False)

        with _first_block_only(model, pool):
            model.decoder(input_ids=batch.ids.to(model.device), use_cache=False)

    return peak_bytes(work)


def _prefill(model: Model, width: int) -> Any:
    """The cache after a padded row has gone through the first block."""
    from .cache import roomy_cache

    cache, mask = roomy_cache(model, width), torch.ones(1, width, dtype=torch.long)
    mask[0, 0] = 0
    ids, mask = (tensor.to(model.device) for tensor in (_plain_ids(width), mask))
    with _first_block_only(model):
        model.decoder(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True)
    return cache


def _prefill_peak(model: Model, width: int) -> int:
    return peak_bytes(lambda: _prefill(model, width)) - _cache_bytes(model, width)


def _cache_bytes(model: Model, width: int) -> int:
    layer = _prefill(model, width).layers[0]
    return sum(
        t.untyped_storage().nbytes() for t in (layer.keys, layer.values) if isinstance(t, torch.Tensor)
    )


def _draw_peak(model: Model, sampling: Sampling) -> int:
    """Of a slice of the vocabulary: logits, and what drawing from them makes."""
    logits = torch.zeros(1, _VOCAB_SLICE, dtype=model.dtype, device=model.device)
    return logits.nbytes + peak_bytes(lambda: draw(logits, torch.zeros(1, dtype=torch.float64), sampling))

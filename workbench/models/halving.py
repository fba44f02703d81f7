"""Out of memory in a batch: its halves are run instead, and those that follow are made no larger.

A budget (`memory.py`) is arithmetic done beforehand. This is for what it cannot know: another program on the same device, a
kernel that wants more than its results, no budget at all.
"""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch

from ..base.errors import WorkbenchError

Result = TypeVar("Result")
_SAID = ("out of memory", "not enough memory", "cannot allocate", "can't allocate", "failed to allocate", "alloc_failed")
_WARNING = (
    "Out of memory with %d rows at once: going on with %d. Results differ by rounding from those of whole batches; a smaller "
    "batch size, or --max-memory, plans for it."
)
logger = logging.getLogger(__name__)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on any device: the CPU's allocator has no class of its own for it."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error).lower() for said in _SAID)


def halving(
    batches: Iterable[list[int]],
    work: Callable[[list[int]], Result],
    *,
    cost: Callable[[list[int]], int] = len,
) -> Iterator[tuple[list[int], Result]]:
    """Yields (rows, work(rows)) for every batch of rows; one that runs out of memory is halved and goes on.

    The halves keep the order of the rows. Once a batch was too large, later ones whose `cost` is above that of its larger half
    are split before they are tried. `work` is called again with fewer rows, so it may leave nothing behind when it fails.
    Splitting changes results by rounding, as any other batch size does: a warning says so, once per call.

    Raises WorkbenchError when a single row does not fit.
    """
    limit, warned = math.inf, False
    for batch in batches:
        waiting = [batch]
        while waiting:
            rows = waiting.pop()
            if len(rows) > 1 and cost(rows) > limit:
                waiting += reversed(_halves(rows))
                continue
            result = _tried(work, rows)
            if result is not None:
                yield rows, result[0]
                continue
            first, second = _halves(rows)
            limit = max(cost(first), cost(second))
            waiting += [second, first]
            if not warned:
                logger.warning(_WARNING, len(rows), len(first))
            warned = True


def _tried(work: Callable[[list[int]], Result], rows: list[int]) -> tuple[Result] | None:
    """What `work` gives, in a tuple; None when memory ran out, with all that the attempt held given back."""
    try:
        return (work(rows),)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if len(rows) == 1:
            raise WorkbenchError(
                f"memory ran out with a single row ({str(error).splitlines()[0] if str(error) else type(error).__name__})",
                "a device with room for the weights and one row",
                "end other programs on it, take shorter texts or answers, or a narrower type (--dtype bfloat16)",
            ) from error
    gc.collect()  # here, where the error and with it the frames of the attempt are gone
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return None


def _halves(rows: list[int]) -> tuple[list[int], list[int]]:
    middle = (len(rows) + 1) // 2
    return rows[:middle], rows[middle:]

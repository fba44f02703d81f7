"""Copies between a GPU and the memory of the host: from and to pinned memory, so that the device works on meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")


def to_host(*tensors: Tensor) -> list[Tensor]:
    """The tensors on the CPU. From a GPU all are copied into pinned memory at once, with one wait for all of them."""
    waits = [tensor.device for tensor in tensors if tensor.device.type == "cuda"]
    found = [_pinned(tensor) if tensor.device.type == "cuda" else tensor.cpu() for tensor in tensors]
    for device in set(waits):
        torch.cuda.current_stream(device).synchronize()
    return found


def _pinned(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)


def to_device(tensor: Tensor, device: torch.device | str, dtype: torch.dtype | None = None) -> Tensor:
    """The tensor on `device`, in `dtype` if given. A copy from the CPU to a GPU is not waited for."""
    if tensor.device.type == "cpu" and torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True).to(dtype or tensor.dtype)
    return tensor.to(device, dtype or tensor.dtype)


def ahead(items: Iterable[Item], n: int) -> Iterator[Item]:
    """`items` in their order, each given out once `n` more are made: work that a device goes on with while one is read."""
    waiting: deque[Item] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > n:
            yield waiting.popleft()
    yield from waiting

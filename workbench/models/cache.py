"""A key-value cache that grows in place.

transformers' own copies every key and value at every step (`torch.cat`): a tenth of a decoding step of the default
model at 32 rows of 80 tokens, and more with longer rows. The numbers that come out are the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

if TYPE_CHECKING:
    from .model import Model


class RoomyLayer(DynamicLayer):
    """A cache layer with room for `capacity` tokens, written in place; `keys` and `values` are views of what is used."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self._room: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the new tokens behind the old ones; returns all keys and all values so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if self._room is None or end > self._room[0].shape[-2]:
            self._make_room(key_states, value_states, start, max(end, self.capacity))
        assert self._room is not None
        self._room[0][:, :, start:end] = key_states
        self._room[1][:, :, start:end] = value_states
        self.keys, self.values = (room[:, :, :end] for room in self._room)
        return self.keys, self.values

    def _make_room(self, key_states: Tensor, value_states: Tensor, start: int, capacity: int) -> None:
        rooms = []
        for old, new in ((self.keys, key_states), (self.values, value_states)):
            room = new.new_empty((*new.shape[:-2], capacity, new.shape[-1]))
            if start:
                assert old is not None  # something was cached at 0..start
                room[:, :, :start] = old
            rooms.append(room)
        self._room = (rooms[0], rooms[1])

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only these rows of the batch."""
        assert self.keys is not None and self.values is not None
        keys, values = self.keys.index_select(0, indices), self.values.index_select(0, indices)
        self.keys, self.values = keys, values
        self._make_room(keys, values, keys.shape[-2], self.capacity)


def roomy_cache(model: Model, capacity: int) -> DynamicCache:
    """A cache for `model` with room for `capacity` tokens; layers that are not plain attention keep transformers' own."""
    cache = DynamicCache(config=model.hf.config)
    if cache.layers:
        cache.layers = [
            RoomyLayer(capacity) if type(layer) is DynamicLayer else layer for layer in cache.layers
        ]
    return cache


def sees_everything(cache: DynamicCache, length: int) -> bool:
    """Whether every layer attends to all of `length` tokens: plain attention, or a sliding window that is wider."""
    return all(isinstance(layer, RoomyLayer) or getattr(layer, "sliding_window", 0) > length for layer in cache.layers)

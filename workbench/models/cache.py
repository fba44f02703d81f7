"""Faster decoding on top of transformers: a key-value cache that grows in place, attention without repeated heads.

transformers' own cache copies every key and value at every step (`torch.cat`), and its attention repeats the shared
key-value heads in memory before each product. At one token per step both cost as much as reading the weights. The
results are the same numbers up to rounding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

if TYPE_CHECKING:
    from .model import Model

_NAME = "workbench_grouped"


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
                room[:, :, :start] = old
            rooms.append(room)
        self._room = (rooms[0], rooms[1])

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only these rows of the batch."""
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


def grouped_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """transformers' sdpa attention, except for one query token with shared key-value heads.

    The query heads that share a key-value head are then treated as the queries of that one head: query
    [b, n_groups x g, 1, d] becomes [b, n_groups, g, d], and keys and values are used as they lie in the cache.
    """
    n_groups = key.shape[1]
    if query.shape[2] != 1 or query.shape[1] == n_groups or query.device.type != "cpu":
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    grouped = query.reshape(query.shape[0], n_groups, -1, query.shape[-1])
    mask = None if attention_mask is None else attention_mask[..., : key.shape[-2]]
    output = torch.nn.functional.scaled_dot_product_attention(
        grouped, key, value, attn_mask=mask, scale=scaling
    )
    return output.reshape(query.shape[0], 1, query.shape[1], query.shape[-1]), None


@contextlib.contextmanager
def fast_decoding(model: Model) -> Iterator[None]:
    """A context in which a model that uses sdpa attention decodes with `grouped_attention`."""
    config = model.config
    if config._attn_implementation != "sdpa":
        yield
        return
    AttentionInterface.register(_NAME, grouped_attention)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = "sdpa"

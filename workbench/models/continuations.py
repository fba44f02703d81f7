"""How probable are given strings as the continuation of a prompt? Exactly, with what they share computed once."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .capture import padded

if TYPE_CHECKING:
    from .model import Model

Ids = tuple[int, ...]
NEGLIGIBLE = 1e-6
"""A prefix less probable than this is not followed further: what begins with it counts as impossible."""


class Strings:
    """Token sequences arranged as a trie.

    p(s) = prod_t p(s_t | prompt, s_<t); with `lengthening` ids also times 1 - sum_{i in lengthening} p(i | prompt, s):
    "80" is then the number 80, not the beginning of 800. `open_ended` are sequences that are never closed this way, and
    of interest only where they are probable.
    """

    def __init__(
        self, closed: Sequence[Ids], open_ended: Sequence[Ids] = (), lengthening: Sequence[int] = ()
    ) -> None:
        self.sequences = [*closed, *open_ended]
        self.lengthening = list(lengthening)
        self.index = {ids: place for place, ids in enumerate(self.sequences)}
        self.closed = set(closed) if self.lengthening else set()
        self.main = {ids[:depth] for ids in closed for depth in range(len(ids) + 1)}
        self.children: dict[Ids, list[int]] = {}
        for ids in self.index:
            for depth, token in enumerate(ids):
                followers = self.children.setdefault(ids[:depth], [])
                if token not in followers:
                    followers.append(token)

    def is_asked(self, prefix: Ids) -> bool:
        """Whether the distribution after `prefix` is needed."""
        return prefix in self.children or prefix in self.closed


@dataclass(frozen=True)
class _Node:
    """A prefix of strings behind one prompt: the row of the result, its probability, and its row in the cache."""

    row: int
    prefix: Ids
    mass: float
    place: int


def string_probabilities(
    model: Model,
    prompts: Sequence[Sequence[int]],
    strings: Strings,
    *,
    max_tokens: int = 8192,
    at_least: float = 0.0,
    edited: bool = False,
) -> Iterator[tuple[list[int], Tensor]]:
    """Yields (prompt indices, probabilities [n, n_strings] float64) batch by batch, prompts of similar length together.

    Each prompt is run once; the strings' tokens are run behind its keys and values, a prefix that several share once.
    No pass and no copy of the cache holds more than `max_tokens` positions (or one row); strings of n tokens need n
    such copies at once. Edits in force act only when `edited`. Masses below NEGLIGIBLE are taken as 0, and so are
    open-ended strings below `at_least`, and all that needs a second token where the first tokens of all strings hold
    less than that.
    """
    for indices in _batches([len(prompt) for prompt in prompts], max_tokens):
        walk = _Walk(model, strings, len(indices), max_tokens, at_least)
        with contextlib.nullcontext() if edited else model.without_hooks():
            yield indices, walk.run([prompts[index] for index in indices])


def _batches(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    order = sorted(range(len(lengths)), key=lambda index: (lengths[index], index))
    batch: list[int] = []
    for index in order:  # the newest is the longest: its length is the width
        if batch and (len(batch) + 1) * lengths[index] > max_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


class _Walk:
    """One batch of prompts, and the trie walked behind each."""

    def __init__(self, model: Model, strings: Strings, n_rows: int, max_tokens: int, at_least: float) -> None:
        self.model, self.strings, self.max_tokens, self.at_least = model, strings, max_tokens, at_least
        self.found = torch.zeros(n_rows, len(strings.sequences), dtype=torch.float64)
        # Ids beyond the tokenizer are padding of the unembedding and mean nothing.
        self.n_ids = min(model.vocab_size, len(model.tokenizer))

    @torch.no_grad()
    def run(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        from transformers import DynamicCache

        ids, mask = padded(prompts, pad=next(iter(self.model.end_tokens), 0), left=True)
        cache = DynamicCache(config=self.model.hf.config)
        nodes = [_Node(row, (), 1.0, row) for row in range(len(prompts))]
        self._visit(nodes, ids, mask, cache)
        return self.found

    def _visit(self, nodes: list[_Node], ids: Tensor, mask: Tensor, cache: Any) -> None:
        """Run the newest `ids` [n_nodes, n_new], read what follows each node, and go on to its children in pieces."""
        chances = self._next(ids, mask, cache)
        following = self._follow(nodes, chances)
        n_rows = max(1, self.max_tokens // (mask.shape[1] + 1))
        for start in range(0, len(following), n_rows):
            chosen = following[start : start + n_rows]
            places = torch.tensor([node.place for node in chosen])
            newest = torch.tensor([[node.prefix[-1]] for node in chosen])
            longer = torch.cat([mask[places], torch.ones(len(chosen), 1, dtype=mask.dtype)], dim=1)
            moved = [_Node(node.row, node.prefix, node.mass, place) for place, node in enumerate(chosen)]
            self._visit(moved, newest, longer, _rows_of(cache, places.to(self.model.device)))

    def _next(self, ids: Tensor, mask: Tensor, cache: Any) -> Tensor:
        """p(next token) [n_nodes, n_ids] (float32) after the newest ids, which enter the cache."""
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        last = torch.zeros_like(ids, dtype=torch.bool)
        last[:, -1] = True
        logits = self.model.forward(
            ids, mask, keep=last, past_key_values=cache, position_ids=positions.to(self.model.device)
        )
        assert logits is not None
        return logits[:, : self.n_ids].float().softmax(dim=-1)

    def _follow(self, nodes: list[_Node], chances: Tensor) -> list[_Node]:
        """Note the strings that end at the nodes or one token later; the children whose followers are needed."""
        longer = chances[:, self.strings.lengthening].sum(dim=1, dtype=torch.float64).tolist()
        following = []
        for place, node in enumerate(nodes):
            if node.prefix in self.strings.closed:
                self._note(node, 1.0 - longer[place])
            children = self._children(node, place, chances[place])
            if not node.prefix and sum(child.mass for child in children) < self.at_least:
                continue
            following += [c for c in children if c.mass >= self._floor(c) and self.strings.is_asked(c.prefix)]
        return following

    def _floor(self, node: _Node) -> float:
        return NEGLIGIBLE if node.prefix in self.strings.main else max(self.at_least, NEGLIGIBLE)

    def _children(self, node: _Node, place: int, chances: Tensor) -> list[_Node]:
        tokens = self.strings.children.get(node.prefix)
        if not tokens:
            return []
        masses = (node.mass * chances[tokens].double()).tolist()
        made = [
            _Node(node.row, (*node.prefix, token), m, place) for token, m in zip(tokens, masses, strict=True)
        ]
        for child in made:
            if child.prefix in self.strings.index and child.prefix not in self.strings.closed:
                self._note(child, 1.0)
        return made

    def _note(self, node: _Node, share: float) -> None:
        self.found[node.row, self.strings.index[node.prefix]] = node.mass * max(share, 0.0)


def _rows_of(cache: Any, rows: Tensor) -> Any:
    """A cache with these rows of `cache`, which stays as it is."""
    chosen = copy.copy(cache)
    chosen.layers = [copy.copy(layer) for layer in cache.layers]
    chosen.batch_select_indices(rows)
    return chosen

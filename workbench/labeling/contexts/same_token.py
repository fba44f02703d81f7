"""Where a token occurs although a feature is silent: the material for same-token negatives, bounded whatever is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any

from workbench.labeling.contexts.sightings import Sighting, priority, window_bounds
from workbench.labeling.tokens import token_strings

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.labeling.contexts.streams import TokenDocument

N_DOCUMENTS = 600


def token_key(token: str) -> str:
    """A token up to case and outer blanks: what "the same token" means. Empty for a blank one."""
    return token.strip().lower()


@dataclass(frozen=True)
class KeptDocument:
    """A document of the scoring half without its activations: per token the tracked columns that fire; which count."""

    order: int
    ids: tuple[int, ...]
    source: str
    name: str
    firing: tuple[frozenset[int], ...]
    counting: tuple[int, ...]

    def window(self, token: int, size: int, tracked: list[int]) -> Sighting:
        """The window around a token on which nothing is known to fire; its values are zero."""
        start, stop = window_bounds(len(self.ids), token, size)
        active = frozenset(tracked[column] for columns in self.firing[start:stop] for column in columns)
        silent = (0.0,) * (stop - start)
        return Sighting(self.ids[start:stop], silent, token - start, token, self.source, self.name, active)


class Pool:
    """A fair sample of at most `capacity` documents, the same in whatever order they come; searched by token at the end."""

    def __init__(self, tokenizer: Any, capacity: int = N_DOCUMENTS) -> None:
        self.tokenizer, self.capacity = tokenizer, capacity
        self.kept: list[KeptDocument] = []

    def offer(self, document: TokenDocument, values: Tensor, counts: Tensor) -> None:
        """Take a document in: `values` [n_tokens, n_tracked], `counts` [n_tokens] (bool)."""
        order = priority("same token", document.id)
        if len(self.kept) == self.capacity and order >= self.kept[-1].order:
            return
        firing: list[set[int]] = [set() for _ in document.ids]
        for token, column in (values > 0).nonzero().tolist():
            firing[token].add(column)
        counting = tuple(counts.nonzero().flatten().tolist())
        sets = tuple(map(frozenset, firing))
        self.kept.append(KeptDocument(order, document.ids, document.source, document.id, sets, counting))
        self.kept.sort(key=lambda kept: kept.order)
        del self.kept[self.capacity :]

    def silent(
        self, tokens: Iterable[str], feature: int, tracked: list[int], *, size: int, n: int
    ) -> list[Sighting]:
        """Up to `n` windows around tokens that equal one of `tokens`, the feature firing nowhere in them.

        The tokens are taken in turns, each as many times a turn as it is given; at most one window per document.
        """
        chosen: list[Sighting] = []
        taken: set[int] = set()
        for index, token in self._places(tokens, feature):
            if len(chosen) == n:
                break
            sighting = self.kept[index].window(token, size, tracked)
            if index not in taken and feature not in sighting.active:
                taken.add(index)
                chosen.append(sighting)
        return chosen

    def _places(self, tokens: Iterable[str], feature: int) -> Iterator[tuple[int, int]]:
        counted = Counter(key for key in map(token_key, tokens) if key)
        keys = sorted(counted, key=lambda key: (-counted[key], key))
        places = {key: sorted(self._where.get(key, ()), key=lambda at: priority(feature, *at)) for key in keys}
        queues = [
            [found[start : start + counted[key]] for start in range(0, len(found), counted[key])] for key, found in places.items()
        ]
        return chain.from_iterable(chain.from_iterable(zip_longest(*queues, fillvalue=())))

    @cached_property
    def _where(self) -> dict[str, list[tuple[int, int]]]:
        """Token key -> (index of the document, position) of every token that counts."""
        found: dict[str, list[tuple[int, int]]] = {}
        for index, kept in enumerate(self.kept):
            strings = token_strings(self.tokenizer, kept.ids)
            for position in kept.counting:
                found.setdefault(token_key(strings[position]), []).append((index, position))
        return found

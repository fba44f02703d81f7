"""Where a token occurs although a feature is silent: the material for same-token negatives, bounded whatever is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any

from workbench.labeling.contexts.sightings import Sighting, priority, window_bounds
from workbench.labeling.contexts.streams import kind_of
from workbench.labeling.tokens import token_strings

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.labeling.contexts.streams import TokenDocument

N_DOCUMENTS = 600


def token_key(token: str) -> str:
    """A token up to case and outer blanks: what "the same token" means. Empty for a blank one."""
    return token.strip().lower()


def in_proportion(sources: Sequence[str], wanted: Mapping[str, int]) -> list[int]:
    """All rows of `sources`, ordered so that every beginning of the list has its sources in the proportions of `wanted`.

    Kinds of source are apportioned first, sources within them second, both by the method of Sainte-Lague. A source that is used
    up gives its share to the others of its kind, a kind that is used up to the other kinds; what nobody asked for comes last.
    """
    kinds = Counter[str]()
    for source, n in wanted.items():
        kinds[kind_of(source)] += n
    within = _apportioned(range(len(sources)), lambda row: sources[row], wanted)
    return _apportioned(within, lambda row: kind_of(sources[row]), kinds)


def _apportioned(rows: Iterable[int], part: Callable[[int], str], weights: Mapping[str, int]) -> list[int]:
    seen, keys = Counter[str](), {}
    for row in rows:
        name = part(row)
        seen[name] += 1
        keys[row] = (not weights.get(name), (seen[name] - 0.5) / (weights.get(name) or 1))
    return sorted(keys, key=keys.__getitem__)


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
        self, tokens: Iterable[str], feature: int, tracked: list[int], wanted: Mapping[str, int], *, size: int, n: int
    ) -> list[Sighting]:
        """Up to `n` windows around tokens that equal one of `tokens`, the feature firing nowhere in them.

        The tokens are taken in turns, each as many times a turn as it is given, and the sources in the proportions of `wanted`
        as far as there are any (`in_proportion`); at most one window per document.
        """
        chosen: list[Sighting] = []
        taken: set[int] = set()
        for index, token in self._places(tokens, feature):
            if index in taken:
                continue
            sighting = self.kept[index].window(token, size, tracked)
            if feature not in sighting.active:
                taken.add(index)
                chosen.append(sighting)
        return [chosen[row] for row in in_proportion([one.source for one in chosen], wanted)[:n]]

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

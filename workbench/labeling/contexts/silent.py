"""Same-token negatives from an index: where a feature's tokens occur although the feature is silent."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np

from workbench.labeling.contexts.choosing import Window
from workbench.labeling.contexts.places import scrambled, window_bounds
from workbench.labeling.contexts.same_token import token_key
from workbench.labeling.contexts.shards import Shard
from workbench.labeling.tokens import token_strings

if TYPE_CHECKING:
    from workbench.labeling.contexts.index import FeatureIndex


def silent_windows(
    index: FeatureIndex, tokens: Mapping[int, Sequence[str]], *, n: int, seed: int = 0
) -> dict[int, list[Window]]:
    """Per feature up to `n` windows of the scoring half around one of its `tokens` (up to case and blanks, the most important
    first), the feature firing nowhere in them: the tokens in turns, at most one window per document.

    The pieces of the index are read in a random order until every feature has enough.
    """
    found: dict[int, list[Window]] = {feature: [] for feature in tokens}
    if not n or not found:
        return found
    keys = _keys(index)
    ids = {feature: _ids_of(keys, words) for feature, words in tokens.items()}
    order = list(range(len(index.document["shards"])))
    random.Random(seed).shuffle(order)
    for first, shard in index.chooser.pieces(order):
        lacking = [feature for feature in found if len(found[feature]) < n and ids[feature]]
        if not lacking:
            break
        usable = shard.counted.astype(bool) & (shard.pools % 2 == 1)[shard.document_of_token]
        for feature in lacking:
            places = list(_silent(shard, first, feature, ids[feature], usable, index.context))
            missing = np.array(places[: n - len(found[feature])], np.int64)
            found[feature] += index.chooser.cut(shard, missing)
    return found


def _silent(
    shard: Shard, first: int, feature: int, groups: list[np.ndarray], usable: np.ndarray, context: int
) -> Iterator[int]:
    """Tokens of a piece around which the feature is silent: one of each group of ids in turn, no document twice."""
    fires = np.zeros(shard.n_tokens + 1, np.int64)
    np.add.at(fires, shard.token_of_code[shard.features == feature] + 1, 1)
    fires = np.cumsum(fires)
    queues = []
    for group in groups:
        places = np.flatnonzero(usable & np.isin(shard.ids, group))
        owners = shard.document_of_token[places]
        begin, end = window_bounds(places, shard.starts[owners], shard.starts[owners + 1], context)
        places = places[fires[end] == fires[begin]]
        queues.append(places[np.argsort(scrambled(places + first, feature), kind="stable")].tolist())
    taken: set[int] = set()
    for place in (place for turn in zip_longest(*queues) for place in turn if place is not None):
        owner = int(shard.document_of_token[place])
        if owner not in taken:
            taken.add(owner)
            yield place


def _keys(index: FeatureIndex) -> dict[str, list[int]]:
    """Token up to case and blanks -> its ids, over the vocabulary."""
    keys: dict[str, list[int]] = {}
    for token in range(min(int(index.document["vocab_size"]), len(index.tokenizer))):
        keys.setdefault(token_key(token_strings(index.tokenizer, [token])[0]), []).append(token)
    return keys


def _ids_of(keys: Mapping[str, list[int]], words: Sequence[str]) -> list[np.ndarray]:
    wanted = dict.fromkeys(key for key in map(token_key, words) if key)
    return [np.array(keys[key], np.int64) for key in wanted if key in keys]

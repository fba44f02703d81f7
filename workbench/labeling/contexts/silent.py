"""Same-token negatives from an index: where a feature's tokens occur although the feature is silent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from workbench.labeling.contexts.choosing import _distinct
from workbench.labeling.contexts.places import (
    BestPlaces,
    Places,
    _rank,
    positive,
    scrambled,
    window_bounds,
    window_texts,
)
from workbench.labeling.contexts.same_token import in_proportion, token_key
from workbench.labeling.contexts.shards import Shard
from workbench.labeling.tokens import token_strings

if TYPE_CHECKING:
    from workbench.labeling.contexts.index import FeatureIndex


def silent_places(
    index: FeatureIndex, tokens: Mapping[int, Sequence[str]], positives: Mapping[int, Places], *, n: int
) -> dict[int, Places]:
    """Per feature up to `n` places of the scoring half at one of its `tokens` (up to case and blanks), the feature firing nowhere
    in the window around them: at most one window per document.

    They are drawn at random over the whole index, the tokens in turns, and the sources in the proportions of the feature's
    `positives` as far as there are such places (`in_proportion`): where a text is from must not give away whether the feature
    fires. Every piece is read once; per feature, source and token at most `n` places are held.
    """
    result = {feature: Places.none() for feature in tokens}
    if not n or not tokens:
        return result
    names = _Names(index, tokens)
    best = BestPlaces(n, n)
    for first, shard in index.pieces():
        parts = list(_found(index, first, shard, names, best))
        if parts:
            best.offer(Places.joined(parts))
    sources = index.document["sources"]
    width = len(sources) * names.n_groups
    for row, feature in enumerate(tokens):
        part = slice(*np.searchsorted(best.kept.group, [row * width, (row + 1) * width]))
        places = best.kept[part]
        turn = _rank(places.group)  # they are sorted by source and token, the luckiest first
        places = _distinct(places[np.lexsort((places.group % names.n_groups, turn))])
        wanted = Counter(sources[source] for source in positives[feature].source.tolist())
        rows = in_proportion([sources[source] for source in places.source.tolist()], wanted)
        result[feature] = places[np.array(rows[:n], np.int64)]
    return result


class _Names:
    """The tokens of every feature as numbers: which group of ids belongs to which key."""

    def __init__(self, index: FeatureIndex, tokens: Mapping[int, Sequence[str]]):
        self.features = list(tokens)
        wanted = {feature: list(dict.fromkeys(key for key in map(token_key, words) if key)) for feature, words in tokens.items()}
        number = {key: place for place, key in enumerate(dict.fromkeys(key for keys in wanted.values() for key in keys))}
        self.keys = {feature: [number[key] for key in keys] for feature, keys in wanted.items()}
        self.n_groups = max(1, *(len(keys) for keys in wanted.values()))
        vocab = min(int(index.document["vocab_size"]), len(index.tokenizer))
        strings = (token_key(token_strings(index.tokenizer, [token])[0]) for token in range(vocab))
        self.key_of_id = np.full(int(index.document["vocab_size"]), -1, np.int64)  # the key of every id that any feature asks for
        self.key_of_id[:vocab] = [number.get(key, -1) for key in strings]
        self.source = {name: place for place, name in enumerate(index.document["sources"])}


def _found(index: FeatureIndex, first: int, shard: Shard, names: _Names, best: BestPlaces) -> Iterator[Places]:
    """Per feature the places of a piece that could be kept: one of each document and token."""
    usable = np.flatnonzero(shard.counted.astype(bool) & (shard.pools % 2 == 1)[shard.document_of_token])
    keys = names.key_of_id[shard.ids[usable]]
    order = np.argsort(keys, kind="stable")
    keys, usable = keys[order], usable[order]
    asked = np.flatnonzero(np.isin(shard.features, names.features))
    asked = asked[np.argsort(shard.features[asked], kind="stable")]
    known, fires = shard.features[asked], shard.token_of_code[asked]
    sources = np.array([names.source.get(name, len(names.source) - 1) for _, name, _ in shard.documents], np.int64)
    for row, feature in enumerate(names.features):
        slices = [slice(*np.searchsorted(keys, [key, key + 1])) for key in names.keys[feature]]
        if not any(part.stop > part.start for part in slices):
            continue
        places = np.concatenate([usable[part] for part in slices])
        token = np.repeat(np.arange(len(slices)), [part.stop - part.start for part in slices])
        owner = shard.document_of_token[places]
        begin, end = window_bounds(places, shard.starts[owner], shard.starts[owner + 1], index.context)
        own = fires[slice(*np.searchsorted(known, [feature, feature + 1]))]
        silent = np.searchsorted(own, begin) == np.searchsorted(own, end)
        group = (row * len(names.source) + sources[owner]) * names.n_groups + token
        score = positive(scrambled(places + first, feature))
        keep = np.flatnonzero(silent & best.wanted(group, score))
        keep = keep[np.argsort(-score[keep], kind="stable")]
        keep = keep[np.unique(owner[keep] * names.n_groups + token[keep], return_index=True)[1]]
        text = window_texts(shard.ids, begin[keep], end[keep], index.context)
        document = (first + shard.starts[owner[keep]]).astype(np.int64)  # as good a number as any
        yield Places(group[keep], score[keep], places[keep] + first, document, sources[owner[keep]], text)

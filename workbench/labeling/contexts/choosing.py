"""Which of the kept places are shown, and the windows around them cut out of the pieces on disk."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.labeling.contexts.places import Places, window_bounds
from workbench.labeling.contexts.shards import Shard, is_written, shard_folder, shard_hash
from workbench.labeling.contexts.sightings import N_BINS, _quantile_bins
from workbench.labeling.contexts.tallies import SAMPLE_BINS
from workbench.labeling.evidence import Context
from workbench.labeling.tokens import token_strings

SHARDS_IN_MEMORY = 2


@dataclass(frozen=True, eq=False, repr=False)
class Window(Shown):
    """Tokens around a place, and every triple in them: `code_tokens` (index in the window), `features`, `values`."""

    ids: tuple[int, ...]
    peak: int
    position: int
    source: str
    document: str
    code_tokens: np.ndarray
    features: np.ndarray
    values: np.ndarray

    def context(self, feature: int | None, tokenizer: Any) -> Context:
        """The window as a feature fires in it (None: as none does)."""
        values = [0.0] * len(self.ids)
        for place in np.flatnonzero(self.features == (-1 if feature is None else feature)).tolist():
            values[int(self.code_tokens[place])] = float(f"{float(self.values[place]):.4g}")
        place = {"source": self.source, "document": self.document, "position": self.position}
        return Context(token_strings(tokenizer, self.ids), tuple(values), self.peak, **place)

    def active(self, features: np.ndarray) -> frozenset[int]:
        """Which of the features fire anywhere in the window."""
        return frozenset(np.intersect1d(self.features, features).tolist())


class Chooser:
    """Reads the kept places of an index and the texts around them."""

    def __init__(self, folder: Path, document: Mapping[str, Any], arrays: Mapping[str, np.ndarray]):
        self.folder, self.document, self.arrays = folder, document, arrays
        self.d_sae, self.context = int(document["sae"]["d_sae"]), int(document["sizes"]["context"])
        self.ends = np.cumsum([int(shard["n_tokens"]) for shard in document["shards"]])
        self._shards: OrderedDict[int, Shard] = OrderedDict()

    # ------------------------------------------------------------------------------------------------ choosing

    def top(self, feature: int, pools: Iterable[int], n: int) -> Places:
        """The strongest places, strongest first: no document and no text twice, and at most three quarters from one source as
        long as other sources have any."""
        places = Places.joined([self._of("top", pool * self.d_sae + feature, 1) for pool in pools])
        places = _distinct(places[np.lexsort((places.token, -places.score))])
        cap, used, first, later = max(1, -(-3 * n // 4)), Counter[int](), [], []
        for row, source in enumerate(places.source.tolist()):
            (first if used[source] < cap else later).append(row)
            used[source] += 1
        chosen = sorted([*first, *later][:n])
        return places[np.array(chosen, np.int64)]

    def spread(self, feature: int, pools: Sequence[int], n: int, besides: Places | None = None) -> Places:
        """`n` places from the middles of `n` activation quantiles; a quantile whose bin is used up takes the nearest bin's."""
        groups = [(pool * self.d_sae + feature) * SAMPLE_BINS for pool in pools]
        places = Places.joined([self._of("spread", group, SAMPLE_BINS) for group in groups])
        bins = places.group % SAMPLE_BINS
        documents, texts = (set() if besides is None else set(a.tolist()) for a in _keys(besides))
        chosen: list[int] = []
        for wanted in _quantile_bins(self.histogram(feature, pools).tolist(), n) if len(places) else ():
            for row in np.lexsort((-places.score, bins, np.abs(bins - wanted // 2))).tolist():
                document, text = int(places.document[row]), int(places.text[row])
                if document not in documents and text not in texts:
                    documents.add(document)
                    texts.add(text)
                    chosen.append(row)
                    break
        return places[np.array(chosen, np.int64)]

    def random(self, half: int) -> Places:
        """Places at random tokens of the explaining (0) or the scoring half (1), in random order."""
        places = self._of("random", half, 1)
        return _distinct(places[np.argsort(-places.score, kind="stable")])

    def histogram(self, feature: int, pools: Iterable[int]) -> np.ndarray:
        """Firings per activation bin [N_BINS] in these pools together."""
        keys, counts = self.arrays["histogram_keys"], self.arrays["histogram_counts"]
        result = np.zeros(N_BINS, np.int64)
        for pool in pools:
            first = (pool * self.d_sae + feature) * N_BINS
            part = slice(*np.searchsorted(keys, [first, first + N_BINS]))
            result[keys[part] - first] += counts[part]
        return result

    def _of(self, name: str, group: int, n_groups: int) -> Places:
        part = slice(*np.searchsorted(self.arrays[f"{name}_group"], [group, group + n_groups]))
        return Places(**{f.name: self.arrays[f"{name}_{f.name}"][part] for f in fields(Places)})

    # ------------------------------------------------------------------------------------------------- windows

    def windows(self, tokens: Iterable[int]) -> dict[int, Window]:
        """The window around each token (numbers in the whole index); every piece is read once."""
        wanted = np.unique(np.fromiter(tokens, np.int64))
        shards = np.searchsorted(self.ends, wanted, side="right")
        found: dict[int, Window] = {}
        for first, shard in self.pieces(np.unique(shards).tolist()):
            mine = wanted[(wanted >= first) & (wanted < first + shard.n_tokens)]
            found |= dict(zip(mine.tolist(), self.cut(shard, mine - first), strict=True))
        return found

    def pieces(self, numbers: Iterable[int]) -> Iterator[tuple[int, Shard]]:
        """(number of its first token, piece) of each of these pieces."""
        for number in numbers:
            shard = self._shard(number)
            yield int(self.ends[number]) - shard.n_tokens, shard

    def cut(self, shard: Shard, tokens: np.ndarray) -> list[Window]:
        """The windows around tokens of a piece."""
        owners = shard.document_of_token[tokens]
        starts = shard.starts[owners]
        begin, end = window_bounds(tokens, starts, shard.starts[owners + 1], self.context)
        rows = zip(tokens.tolist(), owners.tolist(), starts.tolist(), begin.tolist(), end.tolist(), strict=True)
        return [_window(shard, *row) for row in rows]

    def _shard(self, number: int) -> Shard:
        if number in self._shards:
            self._shards.move_to_end(number)
            return self._shards[number]
        folder = shard_folder(self.folder, number)
        if not is_written(folder) or shard_hash(folder) != self.document["shards"][number]["sha256"]:
            raise WorkbenchError(
                f"{folder} is missing or is not the piece that the index was made from",
                "the pieces beside the index, as they were written",
                "restore it, or delete that folder and run `workbench features index` again",
            )
        shard = Shard.load(folder, d_sae=self.d_sae, vocab_size=int(self.document["vocab_size"]))
        if shard.n_tokens != self.document["shards"][number]["n_tokens"]:
            raise WorkbenchError(f"{folder} has {shard.n_tokens} tokens", "as many as the index says", "build the index again")
        self._shards[number] = shard
        if len(self._shards) > SHARDS_IN_MEMORY:
            self._shards.popitem(last=False)
        return self._shards[number]


def _window(shard: Shard, token: int, owner: int, start: int, begin: int, end: int) -> Window:
    name, source, _ = shard.documents[owner]
    first, last = int(shard.code_starts[begin]), int(shard.code_starts[end])
    counts = np.diff(shard.code_starts[begin : end + 1])
    return Window(
        ids=tuple(shard.ids[begin:end].tolist()),
        peak=token - begin,
        position=token - start,
        source=source,
        document=name,
        code_tokens=np.repeat(np.arange(end - begin), counts),
        features=shard.features[first:last].copy(),
        values=shard.values[first:last].copy(),
    )


def _distinct(places: Places) -> Places:
    """The places without a document or a text that stands before."""
    documents, texts, rows = set[int](), set[int](), []
    for row, (document, text) in enumerate(zip(places.document.tolist(), places.text.tolist(), strict=True)):
        if document not in documents and text not in texts:
            documents.add(document)
            texts.add(text)
            rows.append(row)
    return places[np.array(rows, np.int64)]


def _keys(places: Places | None) -> tuple[np.ndarray, np.ndarray]:
    return (np.zeros(0), np.zeros(0)) if places is None else (places.document, places.text)

"""From an index to what the rest of the labeling room works with: evidence, held-out windows, and what fires on a text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.base.errors import WorkbenchError
from workbench.labeling.contexts.choosing import Window
from workbench.labeling.contexts.collection import nearest_features
from workbench.labeling.contexts.encoding import Encoder
from workbench.labeling.contexts.places import Places
from workbench.labeling.contexts.reading import N_CONTRAST, Collection, HeldOut, _rounded, warn_of_missing
from workbench.labeling.contexts.silent import silent_places
from workbench.labeling.contexts.stats import Firing
from workbench.labeling.contexts.streams import KINDS, text_stream
from workbench.labeling.evidence import Context, FeatureEvidence
from workbench.labeling.lens import promoted_and_suppressed
from workbench.labeling.tokens import token_strings

if TYPE_CHECKING:
    from workbench.labeling.contexts.index import FeatureIndex
    from workbench.models.model import Model
    from workbench.saes.interface import SparseAutoencoder

N_PEAK_TOKENS = 16
EXPLAINING = tuple(2 * i for i in range(len(KINDS)))
SCORING = tuple(2 * i + 1 for i in range(len(KINDS)))


def gather(
    index: FeatureIndex, features: Iterable[int], *, n_top: int, n_quantiles: int, n_held_out: int, n_neighbours: int
) -> Collection:
    """See `FeatureIndex.collection`. All places are chosen first, then every piece on disk is read once."""
    asked = list(dict.fromkeys(int(feature) for feature in features))
    for feature in asked:
        index.check(feature)
    neighbours = _neighbours(index, asked, n_neighbours)
    tracked = list(dict.fromkeys([*asked, *(other for near in neighbours.values() for other in near)]))
    chooser, known = index.chooser, np.array(tracked, np.int64)
    shown = {feature: _chosen(index, feature, EXPLAINING, n_top, n_quantiles) for feature in asked}
    held = {feature: _chosen(index, feature, SCORING, (n_held_out + 1) // 2, n_held_out // 2) for feature in tracked}
    strong = {f: chooser.top(f, EXPLAINING, 4 * N_CONTRAST) for near in neighbours.values() for f in near}
    random = [chooser.random(half) for half in (0, 1)]
    positives = {feature: Places.joined(list(held[feature])) for feature in asked}
    silent = silent_places(index, {f: _peak_tokens(index, f) for f in asked}, positives, n=n_held_out)
    every = [*(p for pair in (*shown.values(), *held.values()) for p in pair), *strong.values(), *random, *silent.values()]
    windows = index.windows(token for places in every for token in places.token.tolist())

    def cut(places: Places) -> list[Window]:
        return [windows[token] for token in places.token.tolist()]

    def held_out(feature: int | None, places: Places) -> list[HeldOut]:
        return [HeldOut(window.context(feature, index.tokenizer), window.active(known)) for window in cut(places)]

    def contrast(feature: int) -> tuple[Context, ...]:
        pools = [cut(strong[other]) for other in neighbours[feature]] + [cut(random[0])]
        return tuple(window.context(None, index.tokenizer) for window in _in_turns(feature, pools))

    made = Collection(
        evidence=_evidence(index, asked, shown, windows),
        held_out={f: (*held_out(f, top), *_ascending(held_out(f, spread))) for f, (top, spread) in held.items()},
        neighbours=neighbours,
        random=tuple(held_out(None, random[1])),
        background=index.background,
        n_tokens=index.n_tokens,
        same_token={feature: tuple(held_out(None, found)) for feature, found in silent.items()},
        contrast={feature: contrast(feature) for feature in asked},
    )
    warn_of_missing(made)
    return made


def _in_turns(feature: int, pools: list[list[Window]]) -> list[Window]:
    """Windows in which a feature is silent, at most N_CONTRAST of each pool, the pools taken in turns; no document twice."""
    silent = [[w for w in pool if not (w.features == feature).any()][:N_CONTRAST] for pool in pools]
    taken: dict[tuple[str, str], Window] = {}
    for window in (w for turn in zip_longest(*silent) for w in turn if w is not None):
        taken.setdefault((window.source, window.document), window)
    return list(taken.values())


def _peak_tokens(index: FeatureIndex, feature: int) -> list[str]:
    """The tokens that a feature fires on most, the commonest first."""
    return [one.text for one in index.stats(feature).top_tokens[:N_PEAK_TOKENS]]


def _chosen(index: FeatureIndex, feature: int, pools: Sequence[int], n_top: int, n_spread: int) -> tuple[Places, Places]:
    top = index.chooser.top(feature, pools, n_top)
    return top, index.chooser.spread(feature, pools, n_spread, besides=top)


def _ascending(held: list[HeldOut]) -> list[HeldOut]:
    return sorted(held, key=lambda one: one.context.peak_value)


def _neighbours(index: FeatureIndex, asked: list[int], n: int) -> dict[int, tuple[int, ...]]:
    if n < 1:
        return dict.fromkeys(asked, ())
    if index.sae is None:
        raise WorkbenchError(
            "the index was opened without its SAE: nothing says which features are neighbours",
            "an SAE, or no neighbours",
            "open it with FeatureIndex.open(folder, model=..., sae=...), or ask for n_neighbours=0",
        )
    return nearest_features(index.sae.decoder_directions, asked, n)


def _evidence(
    index: FeatureIndex, asked: list[int], shown: dict[int, tuple[Places, Places]], windows: dict[int, Window]
) -> dict[int, FeatureEvidence]:
    lenses: list[Any] = [((), ())] * len(asked)
    if asked and index.model is not None and index.sae is not None:
        lenses = promoted_and_suppressed(index.model, index.sae.decoder_directions[asked])
    result = {}
    for feature, (promoted, suppressed) in zip(asked, lenses, strict=True):
        top, spread = (
            [windows[token].context(feature, index.tokenizer) for token in places.token.tolist()] for places in shown[feature]
        )
        stats = index.stats(feature)
        result[feature] = FeatureEvidence(
            feature=feature,
            density=_rounded(stats.density),
            max_activation=_rounded(stats.maximum),
            top=tuple(top),
            quantiles=tuple(sorted(spread, key=lambda context: context.peak_value)),
            promoted=promoted,
            suppressed=suppressed,
            n_tokens=index.n_tokens,
            sources=index.sources,
        )
    return result


def fires_on(text: str, model: Model, sae: SparseAutoencoder, *, n: int) -> tuple[Firing, ...]:
    """What fires on a text, token by token, the `n` strongest features each."""
    documents = list(text_stream(model, [text], max_tokens=1024))
    if not documents:
        raise WorkbenchError("the text has fewer than two tokens", "a text", "give a longer one: nothing counts on a first token")
    shard = Encoder(sae, model, batch_tokens=1024).shard(documents)
    strings = token_strings(model.tokenizer, shard.ids.tolist())
    result = []
    for position, (start, stop) in enumerate(zip(shard.code_starts[:-1], shard.code_starts[1:], strict=True)):
        features, values = shard.features[start:stop], shard.values[start:stop]
        order = np.lexsort((features, -values))[:n]
        listed = tuple((int(features[i]), float(values[i])) for i in order)
        result.append(Firing(position, strings[position], listed, bool(shard.counted[position])))
    return tuple(result)

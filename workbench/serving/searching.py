"""Features found by words: in their labels, in the contexts that the labels carry, and among the tokens they fire on."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.labeling.labels import FeatureRecord
from workbench.labeling.tokens import special_ids, token_strings

if TYPE_CHECKING:
    from workbench.labeling.contexts.index import FeatureIndex

MIN_FIRINGS = 20
_WHERE = ("label", "explanation", "context", "token")


@dataclass(frozen=True)
class Found:
    """A feature, where the words were found (label, explanation, context, token), and the passage or tokens that hold them.

    `share` is, for tokens, the share of the feature's firings that fall on them.
    """

    feature: int
    where: str
    text: str
    share: float | None = None


def search_features(
    words: str, records: Mapping[int, FeatureRecord], index: FeatureIndex | None = None, *, n: int = 50
) -> list[Found]:
    """At most `n` features, those with all words in their label first, then explanation, contexts, and tokens (with an index).

    Each feature is listed once, where it was found first. Case does not count. [] for no words.
    """
    wanted = words.lower().split()
    if not wanted:
        return []
    found: dict[int, Found] = {}
    for feature, record in records.items():
        for where, text in _texts(record):
            if feature not in found and all(word in text.lower() for word in wanted):
                found[feature] = Found(feature, where, text)
    for one in _by_token(wanted, index) if index is not None else ():
        found.setdefault(one.feature, one)
    order = sorted(found.values(), key=lambda one: (_WHERE.index(one.where), -(one.share or 0.0), one.feature))
    return order[:n]


def _texts(record: FeatureRecord) -> Sequence[tuple[str, str]]:
    labels = [("label", label.label) for label in record.labels]
    said = [("explanation", text) for label in record.labels for text in (label.explanation, label.notes) if text]
    contexts = [("context", context.text) for context in (record.evidence.contexts if record.evidence else ())]
    return [*labels, *said, *contexts]


def _by_token(words: list[str], index: FeatureIndex) -> list[Found]:
    """Features that fire on tokens which hold one of the words, by the share of their firings that fall on them."""
    vocabulary = _vocabulary(index)
    tokens = [token for token, text in vocabulary.items() if any(word in text.lower() for word in words)]
    if not tokens:
        return []
    keys, counts = index.arrays["token_keys"], index.arrays["token_counts"]
    features, ids = np.divmod(keys, int(index.document["vocab_size"]))
    hits = np.isin(ids, np.array(tokens))
    fired = index.arrays["pools_fired"].sum(0)
    per_feature = np.bincount(features[hits], weights=counts[hits], minlength=index.d_sae)
    share = np.divide(per_feature, fired, out=np.zeros(index.d_sae), where=fired >= MIN_FIRINGS)
    best = [int(feature) for feature in np.argsort(-share, kind="stable")[:100] if share[feature] > 0]
    return [Found(f, "token", _names(f, features, ids, counts, hits, vocabulary), float(share[f])) for f in best]


def _names(feature: int, features: Any, ids: Any, counts: Any, hits: Any, vocabulary: Mapping[int, str]) -> str:
    """The tokens of a feature that hold the words, the commonest first."""
    places = np.flatnonzero((features == feature) & hits)
    ordered = places[np.argsort(-counts[places], kind="stable")][:5]
    return ", ".join(vocabulary[int(ids[place])].strip() for place in ordered)


@functools.lru_cache(maxsize=2)
def _vocabulary(index: FeatureIndex) -> dict[int, str]:
    """The text of every token that some feature fires on often, special tokens left out."""
    ids = np.unique(index.arrays["token_keys"] % int(index.document["vocab_size"]))
    special = set(special_ids(index.tokenizer))
    return {token: token_strings(index.tokenizer, [token])[0] for token in map(int, ids) if token not in special}

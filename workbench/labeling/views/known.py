"""What reading has shown of features, from a collection or from an index: contexts, tallies, passages to edit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING

from workbench.base.errors import WorkbenchError
from workbench.labeling.contexts.collection import Collection
from workbench.labeling.contexts.places import Places
from workbench.labeling.contexts.streams import KINDS, kind_of
from workbench.labeling.evidence import Context, FeatureEvidence
from workbench.labeling.tokens import token_strings
from workbench.labeling.views.counting import count
from workbench.labeling.views.values import Partner, Tally
from workbench.models.model import Model
from workbench.models.rerun import Passage

if TYPE_CHECKING:
    from workbench.labeling.contexts.index import FeatureIndex
    from workbench.saes.interface import SparseAutoencoder

EXPLAINING = tuple(2 * i for i in range(len(KINDS)))
"""The pools of an index that labels may be written from."""
SPAN = 8
"""Tokens that may be edited in a context: the marked one and those before it."""
N_BEFORE = 48
"""Tokens before the marked one that are read with it."""
_COUNTED = ("histogram", "by_position", "by_role", "by_trait", "partners")


@dataclass(frozen=True)
class Known:
    """What reading has shown of one feature; the fields are those of a `FeatureView`, and `passages` to take it out in."""

    density: float | None
    max_activation: float | None
    n_tokens: int
    contexts: Mapping[str, tuple[Context, ...]]
    passages: tuple[Passage, ...]
    histogram: tuple[tuple[float, float, int], ...] = ()
    by_position: tuple[Tally, ...] = ()
    by_role: tuple[Tally, ...] = ()
    by_trait: Mapping[str, tuple[Tally, ...]] = field(default_factory=dict)
    partners: tuple[Partner, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)


# ---------------------------------------------------------------------------------------------------------- a collection


def known_from_collection(
    features: Sequence[int], model: Model, collection: Collection, *, n_contexts: int, n_passages: int
) -> dict[int, Known]:
    """What a collection knows. Raises WorkbenchError for a feature that it holds nothing on."""
    absent = [feature for feature in features if feature not in collection.evidence]
    if absent:
        raise WorkbenchError(
            f"the collection holds nothing on feature {absent[0]}",
            "a collection of the features that are to be shown",
            "collect evidence for them too: collect_evidence([...], sae, model, texts)",
        )
    return {f: _known(collection.evidence[f], model, n_contexts, n_passages) for f in features}


def _known(evidence: FeatureEvidence, model: Model, n_contexts: int, n_passages: int) -> Known:
    chosen = {
        kind: in_turns(*([c for c in side if kind_of(c.source) == kind] for side in (evidence.top, evidence.quantiles)))
        for kind in KINDS
    }
    readable = in_turns(*([c for c in side if not c.is_withheld] for side in (evidence.top, evidence.quantiles)))
    return Known(
        density=evidence.density,
        max_activation=evidence.max_activation,
        n_tokens=evidence.n_tokens,
        contexts={kind: _ordered(listed[:n_contexts]) for kind, listed in chosen.items()},
        passages=tuple(_passage(*ids_and_place(model, context)) for context in readable[:n_passages]),
        missing=dict.fromkeys(map(str, _COUNTED), "only an index counts this: make one with `workbench features index`"),
    )


def in_turns(strong: Sequence[Context], spread: Sequence[Context]) -> list[Context]:
    """The next strong and the next spread context in turns, no text twice."""
    order = sorted([(place, 0, c) for place, c in enumerate(strong)] + [(place, 1, c) for place, c in enumerate(spread)],
                   key=lambda item: item[:2])  # fmt: skip
    found: dict[object, Context] = {}
    for *_, context in order:
        found.setdefault(context.tokens or (context.document, context.position), context)
    return list(found.values())


def ids_and_place(model: Model, context: Context) -> tuple[tuple[int, ...], int]:
    """The context's text as ids, behind the start token where the tokenizer wants one, and the index of its marked token."""
    tokenizer = model.tokenizer
    wants_start = tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    ids = tokenizer(context.text, add_special_tokens=False)["input_ids"]
    end = len("".join(context.tokens[: context.peak + 1]))
    lengths = accumulate(map(len, token_strings(tokenizer, ids)))
    place = next((place for place, length in enumerate(lengths) if length >= end), len(ids) - 1)
    return (*([tokenizer.bos_token_id] if wants_start else []), *ids), place + wants_start


def _passage(ids: Sequence[int], place: int) -> Passage:
    """The tokens up to the one after `place`; edits may begin `SPAN` - 1 tokens before it."""
    first = max(0, place - N_BEFORE)
    return Passage(tuple(ids[first : place + 2]), max(1, place - first - SPAN + 1))


def _ordered(contexts: Iterable[Context]) -> tuple[Context, ...]:
    return tuple(sorted(contexts, key=lambda context: -context.peak_value))


# -------------------------------------------------------------------------------------------------------------- an index


def known_from_index(
    features: Sequence[int], sae: SparseAutoencoder, model: Model, index: FeatureIndex, *, n_contexts: int, n_passages: int
) -> dict[int, Known]:
    """What an index knows, tallies and partners included; its pieces are read once for each of the three."""
    index.check_same(sae, model)
    shown = {
        (feature, kind): _chosen(index, feature, [EXPLAINING[i]], n_contexts)
        for feature in features
        for i, kind in enumerate(KINDS)
    }
    edited = {feature: _chosen(index, feature, EXPLAINING, n_passages) for feature in features}
    windows = index.windows(token for tokens in shown.values() for token in tokens)
    passages = _passages(index, {token for tokens in edited.values() for token in tokens})
    tallies = count(index, features) if features else {}
    found = {}
    for feature in features:
        stats = index.stats(feature)
        counted = tallies[feature]
        contexts = {
            kind: _ordered(windows[t].context(feature, index.tokenizer) for t in shown[feature, kind]) for kind in KINDS
        }
        found[feature] = Known(
            density=stats.density,
            max_activation=stats.maximum,
            n_tokens=stats.n_tokens,
            contexts=contexts,
            passages=tuple(passages[token] for token in edited[feature]),
            histogram=stats.histogram,
            by_position=counted.by_position,
            by_role=counted.by_role,
            by_trait=counted.by_trait,
            partners=tuple(
                Partner(one.feature, one.share, index.stats(one.feature).density, one.together) for one in stats.partners
            ),
            missing={} if counted.by_trait else {"by_trait": "the index read no rollouts of a trait"},
        )
    return found


def _chosen(index: FeatureIndex, feature: int, pools: Sequence[int], n: int) -> list[int]:
    """Numbers of at most `n` tokens: half of them where the feature is strongest, half from across its quantiles."""
    top = index.chooser.top(feature, pools, (n + 1) // 2)
    spread = index.chooser.spread(feature, pools, n // 2, besides=top)
    return Places.joined([top, spread]).token.tolist()


def _passages(index: FeatureIndex, tokens: set[int]) -> dict[int, Passage]:
    """Per token its document up to the token after it."""
    import numpy as np

    found: dict[int, Passage] = {}
    for first, shard in index.pieces():
        mine = np.array([t - first for t in sorted(tokens) if first <= t < first + shard.n_tokens], np.int64)
        owners = shard.document_of_token[mine]
        rows = np.stack([mine, shard.starts[owners], shard.starts[owners + 1]], axis=1).tolist()
        found |= {first + token: _passage(shard.ids[start:end].tolist(), token - start) for token, start, end in rows}
    return found

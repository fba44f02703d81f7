"""Are labels worth anything? Beside what swapped, generic and one-word labels get on the same contexts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.progress import track
from workbench.base.randomness import derive_seed
from workbench.labeling.contexts.reading import Collection
from workbench.labeling.explainers.offline import standing_out
from workbench.labeling.labels import FeatureLabel, LabelSet
from workbench.labeling.scores.examples import Example, ExampleSets
from workbench.labeling.scores.measures import MIN_CONTEXTS, auroc
from workbench.labeling.scores.protocol import Label, Scorer
from workbench.labeling.scores.scoring import examples_for, pool, scored_sets
from workbench.labeling.words import nearby_words, peak_word, without_stop_words

if TYPE_CHECKING:
    import numpy as np

    from workbench.labeling.explainers.protocol import Explainer

GENERIC = (
    "common English text",
    "words and punctuation in ordinary sentences",
    "text written by a person",
    "various topics",
    "frequent tokens",
)
POOLED = "pooled"
N_CANDIDATES = 25
ROWS = ("shipped", "swapped", "generic", "one_token")


@dataclass(frozen=True)
class Compared:
    """AUROC of one column (a kind of negative, or "pooled"): mean over `n` features of each sort of label, and of the paired
    differences, each {value, interval}."""

    n: int
    mean: Mapping[str, Mapping[str, Any]]
    shipped_minus: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, repr=False)
class ScoreTable(Shown):
    """Labels beside their controls. `columns`: per kind of negative and "pooled" the means and paired differences with intervals
    over features (None: fewer than two features can be scored); `features`: {feature: {sort of label: {column: AUROC | None}}};
    `one_token`: the best single word of each feature; `unscored`: features with too few held-out contexts."""

    kind: str
    columns: Mapping[str, Compared | None]
    features: Mapping[int, Mapping[str, Mapping[str, float | None]]]
    one_token: Mapping[int, str]
    unscored: tuple[int, ...] = field(default=())

    def record(self) -> dict[str, Any]:
        """{kind, n_features, unscored, columns: {column: {n, auroc: {sort: {value, interval}}, shipped_minus: {sort: ...}}}}."""
        columns = {
            name: None if c is None else {"n": c.n, "auroc": dict(c.mean), "shipped_minus": dict(c.shipped_minus)}
            for name, c in self.columns.items()
        }
        return {"kind": self.kind, "n_features": len(self.features), "unscored": list(self.unscored), "columns": columns}


def score_table(
    labels: LabelSet | Iterable[FeatureLabel],
    collection: Collection,
    scorer: Scorer,
    *,
    n_permutations: int = 10,
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> ScoreTable:
    """The labels' AUROC beside that of swapped, generic and best one-token labels, on the same held-out contexts.

    swapped: labels of other features of the same set, mean over `n_permutations` seeded rotations of a shuffled order (no label
    stays in its place). generic: mean over `GENERIC`. one_token: the single word, of those around the peaks of the *explaining*
    half, that scores best there (see `best_one_token`). Unclear labels are scored like all others. Each difference is paired:
    the same feature and contexts, features resampled.

    Raises:
        WorkbenchError: two labels of one feature.
    """
    chosen = list(labels)
    _check_one_each(chosen)
    usable, sets = [], {}
    for item in chosen:
        found = examples_for(scorer, item.feature, collection)
        if len(found.positives) >= MIN_CONTEXTS and any(len(group) >= MIN_CONTEXTS for group in found.negatives.values()):
            usable.append(item)
            sets[item.feature] = found
    others = _rotations(usable, n_permutations, seed)
    features: dict[int, dict[str, dict[str, float | None]]] = {}
    words: dict[int, str] = {}
    with track("Scoring labels and their controls", len(usable), "features") as step:
        for index, item in enumerate(usable):
            words[item.feature] = best_one_token(item.feature, collection, scorer)
            features[item.feature] = {
                "shipped": aurocs(item, sets[item.feature], scorer),
                "swapped": _averaged([aurocs(row[index], sets[item.feature], scorer) for row in others]),
                "generic": _averaged([aurocs(text, sets[item.feature], scorer) for text in GENERIC]),
                "one_token": aurocs(words[item.feature], sets[item.feature], scorer),
            }
            step()
    names = list(dict.fromkeys(chain.from_iterable(row["shipped"] for row in features.values())))
    columns = {name: _compared(features, name, n_bootstrap, derive_seed("score table", name, seed)) for name in names}
    unscored = tuple(item.feature for item in chosen if item.feature not in sets)
    return ScoreTable(scorer.kind, columns, features, words, unscored)


def _check_one_each(labels: Sequence[FeatureLabel]) -> None:
    twice = [feature for feature, n in Counter(item.feature for item in labels).items() if n > 1]
    if twice:
        raise WorkbenchError(f"several labels of feature {twice[0]}", "one of each", "choose one, or make two tables")


def aurocs(label: Label, sets: ExampleSets, scorer: Scorer) -> dict[str, float | None]:
    """AUROC per kind of negative and pooled; None with fewer than five contexts on either side."""
    positives, negatives = scored_sets(label, sets, scorer)
    groups = {**negatives, POOLED: pool(negatives)}
    return {
        name: auroc(positives.values, found.values) if min(len(positives), len(found)) >= MIN_CONTEXTS else None
        for name, found in groups.items()
    }


def best_one_token(feature: int, collection: Collection, scorer: Scorer) -> str:
    """The one word that tells the feature's explaining contexts best from explaining contexts in which it is silent.

    Candidates: the 25 words that stand out most around the peaks. Contexts without the feature: the collection's `contrast`, or
    where it has none the other features' contexts. No scoring context is looked at. Empty when there is no word to choose.
    """
    evidence = collection.evidence.get(feature)
    contexts = [c for c in (evidence.contexts if evidence else ()) if not c.is_withheld]
    candidates = _candidates(feature, collection)
    silent = list(collection.contrast.get(feature, ())) or [
        c for f, other in collection.evidence.items() if f != feature for c in other.contexts if not c.is_withheld
    ]
    if not candidates or not silent:
        return candidates[0] if candidates else ""
    examples = [[Example(c, (c.peak,)) for c in side] for side in (contexts, silent)]

    def worth(word: str) -> float:
        found = [[value for value in scorer.scores(word, side) if value is not None] for side in examples]
        return auroc(*found) if all(found) else 0.0

    return max(candidates, key=worth)


def _candidates(feature: int, collection: Collection) -> list[str]:
    evidence = collection.evidence.get(feature)
    contexts = [c for c in (evidence.contexts if evidence else ()) if not c.is_withheld]
    near = Counter(
        word for c in contexts for word in {*without_stop_words(nearby_words(c, window=3)), peak_word(c)} if word.strip()
    )
    return [word for word, _ in standing_out(near, collection.background)][:N_CANDIDATES]


def _rotations(labels: Sequence[FeatureLabel], n: int, seed: int) -> list[list[FeatureLabel]]:
    """Up to `n` different derangements: every label moves by the same number of places in one shuffled order."""
    import random

    rng = random.Random(derive_seed("swapped labels", seed))
    order = list(range(len(labels)))
    rng.shuffle(order)
    steps = rng.sample(range(1, len(labels)), min(n, len(labels) - 1)) if len(labels) > 1 else []
    place = {index: at for at, index in enumerate(order)}
    return [[labels[order[(place[i] + step) % len(order)]] for i in range(len(labels))] for step in steps]


def _averaged(rows: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    names = list(dict.fromkeys(chain.from_iterable(rows)))
    known = {name: [value for row in rows if (value := row.get(name)) is not None] for name in names}
    return {name: sum(values) / len(values) if values else None for name, values in known.items()}


def _compared(
    features: Mapping[int, Mapping[str, Mapping[str, float | None]]], column: str, n: int, seed: int
) -> Compared | None:
    import numpy as np

    rows = [[row[sort].get(column) for sort in ROWS] for row in features.values()]
    values = np.array([row for row in rows if all(value is not None for value in row)], dtype=float)
    if len(values) < 2:
        return None
    drawn = values[np.random.default_rng(seed).integers(len(values), size=(n, len(values)))].mean(1)
    means = {sort: _with_interval(values[:, i].mean(), drawn[:, i]) for i, sort in enumerate(ROWS)}
    gaps = {
        sort: _with_interval((values[:, 0] - values[:, i]).mean(), drawn[:, 0] - drawn[:, i])
        for i, sort in enumerate(ROWS) if i
    }  # fmt: skip
    return Compared(len(values), means, gaps)


def _with_interval(value: float, drawn: np.ndarray) -> dict[str, Any]:
    import numpy as np

    ends = [round(float(end), 4) for end in np.quantile(drawn, (0.025, 0.975))]
    return {"value": round(float(value), 4), "interval": ends}


@dataclass(frozen=True, repr=False)
class ExplainerVerdict(Shown):
    """An explainer on planted features: mean AUROC (pooled) of the `correct` labels, of its own (`explained`), of its own
    permuted (`swapped`) and of `generic` ones; `margins` are paired differences {value, interval} over features."""

    correct: float
    explained: float
    swapped: float
    generic: float
    margins: Mapping[str, Mapping[str, Any]]
    labels: Mapping[int, str]

    @property
    def scorer_is_sound(self) -> bool:
        """Whether the scorer puts the correct labels first: otherwise it can judge nobody."""
        return self.correct > max(self.swapped, self.generic)

    @property
    def in_order(self) -> bool:
        """Whether the explainer's labels beat the same labels swapped, and generic ones, both intervals above zero.

        Swapped and generic labels are not ordered against each other: both say nothing of the feature.
        """
        gaps = (self.margins["explained_minus_swapped"], self.margins["explained_minus_generic"])
        return self.scorer_is_sound and all(gap["interval"][0] > 0 for gap in gaps)


def judge_explainer(
    explainer: Explainer,
    collection: Collection,
    planted: Mapping[int, str],
    scorer: Scorer,
    *,
    n_permutations: int = 10,
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> ExplainerVerdict:
    """How good an explainer is on features whose meaning is known: `planted` maps each of them to its correct label.

    Raises:
        WorkbenchError: fewer than two planted features with enough held-out contexts.
    """
    said = {feature: explainer.explain(collection.evidence[feature]) for feature in planted}
    explained = [FeatureLabel(f, one.label, one.explanation, author=dict(explainer.author)) for f, one in said.items()]
    table = score_table(explained, collection, scorer, n_permutations=n_permutations, n_bootstrap=n_bootstrap, seed=seed)
    known = [f for f, row in table.features.items() if all(row[sort][POOLED] is not None for sort in ROWS[:3])]
    if len(known) < 2:
        raise WorkbenchError(f"{len(known)} planted features can be scored", "at least two", "read more documents")
    correct = [aurocs(planted[f], examples_for(scorer, f, collection), scorer)[POOLED] for f in known]
    columns = {"correct": correct} | {name: [table.features[f][sort][POOLED] for f in known] for name, sort in _SORTS.items()}
    return _verdict(columns, {f: one.label for f, one in said.items()}, n_bootstrap, seed)


_SORTS = {"explained": "shipped", "swapped": "swapped", "generic": "generic"}
_PAIRS = (("correct", "explained"), ("explained", "swapped"), ("explained", "generic"), ("correct", "swapped"))


def planted_order(
    planted: Mapping[int, str], collection: Collection, scorer: Scorer, *, n_permutations: int = 10, seed: int = 0
) -> ScoreTable:
    """The score table of the correct labels of planted features: what a scorer must put first to be believed."""
    labels = [FeatureLabel(feature, text) for feature, text in planted.items()]
    return score_table(labels, collection, scorer, n_permutations=n_permutations, seed=seed)


def _verdict(columns: Mapping[str, Sequence[Any]], labels: Mapping[int, str], n: int, seed: int) -> ExplainerVerdict:
    import numpy as np

    values = {name: np.array(found, dtype=float) for name, found in columns.items()}
    size = len(values["correct"])
    drawn = np.random.default_rng(derive_seed("explainer", seed)).integers(size, size=(n, size))
    margins = {}
    for one, other in _PAIRS:
        gap = values[one] - values[other]
        margins[f"{one}_minus_{other}"] = _with_interval(gap.mean(), gap[drawn].mean(1))
    means: Mapping[str, float] = {name: float(found.mean()) for name, found in values.items()}
    return ExplainerVerdict(**means, margins=margins, labels=dict(labels))


__all__ = [
    "GENERIC", "Compared", "ExplainerVerdict", "ScoreTable", "aurocs", "best_one_token", "judge_explainer",
    "planted_order", "score_table",
]  # fmt: skip

"""The score of one label: how well a scorer tells, with it, where the feature fires."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.base.display import Shown
from workbench.base.randomness import derive_seed
from workbench.labeling.contexts.reading import Collection
from workbench.labeling.scores.examples import (
    N_PER_KIND,
    Example,
    ExampleSets,
    detection_examples,
    fuzzing_examples,
)
from workbench.labeling.scores.measures import MIN_CONTEXTS, Scored, Separation, separation
from workbench.labeling.scores.protocol import FUZZING, Label, Scorer, wording


@dataclass(frozen=True, repr=False)
class LabelScore(Shown):
    """How well one label holds up: `pooled` against all negatives, and per kind of negative (None: fewer than five).

    `n` counts positives, the negatives of each kind, and the examples that the scorer gave no answer on ("failed").
    """

    feature: int
    kind: str
    pooled: Separation | None
    by: Mapping[str, Separation | None]
    n: Mapping[str, int]

    def record(self) -> dict[str, Any] | None:
        """What a label file keeps: {kind, value, interval, balanced_accuracy, balanced_interval, by: {kind of negative: the
        same | None}, n}; value is the pooled AUROC. None when there is nothing to score on."""
        if self.pooled is None:
            return None
        by = {name: None if found is None else found.record() for name, found in self.by.items()}
        return {"kind": self.kind, **self.pooled.record(), "by": by, "n": dict(self.n)}


def examples_for(scorer: Scorer, feature: int, collection: Collection, *, n_per_kind: int = N_PER_KIND) -> ExampleSets:
    """The held-out examples of the scorer's task."""
    make = fuzzing_examples if scorer.task == FUZZING else detection_examples
    return make(feature, collection, n_per_kind=n_per_kind)


def score(
    label: Label,
    feature: int,
    collection: Collection,
    scorer: Scorer,
    *,
    n_per_kind: int = N_PER_KIND,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> LabelScore:
    """The label's AUROC and balanced accuracy on held-out contexts, per kind of negative and pooled, with 95% intervals.

    At most `n_per_kind` negatives of each kind, so that no kind outweighs the others in the pool. Source of the tasks: detection
    and fuzzing, Paulo et al. 2024 (arXiv 2410.13928); the harder negatives are ours.
    """
    sets = examples_for(scorer, feature, collection, n_per_kind=n_per_kind)
    return score_examples(label, sets, scorer, n_bootstrap=n_bootstrap, seed=seed)


def score_examples(
    label: Label, sets: ExampleSets, scorer: Scorer, *, n_bootstrap: int = 1000, seed: int = 0
) -> LabelScore:
    """The same on examples that are there already."""
    if len(sets.positives) < MIN_CONTEXTS or not any(len(found) >= MIN_CONTEXTS for found in sets.negatives.values()):
        return LabelScore(sets.feature, scorer.kind, None, dict.fromkeys(sets.negatives), {**sets.n, "failed": 0})
    positives, negatives = scored_sets(label, sets, scorer)
    options = {"threshold": scorer.threshold, "n_bootstrap": n_bootstrap}
    seeds = {name: derive_seed("label score", sets.feature, wording(label), name, seed) for name in (*negatives, "pooled")}
    by = {name: separation(positives, found, seed=seeds[name], **options) for name, found in negatives.items()}
    pooled = separation(positives, pool(negatives), seed=seeds["pooled"], **options)
    answered = len(positives) + sum(map(len, negatives.values()))
    n = {"positives": len(positives)} | {name: len(found) for name, found in negatives.items()}
    return LabelScore(sets.feature, scorer.kind, pooled, by, {**n, "failed": sum(sets.n.values()) - answered})


def scored_sets(label: Label, sets: ExampleSets, scorer: Scorer) -> tuple[Scored, dict[str, Scored]]:
    """(positives, negatives by kind), scored in one call; examples without an answer are left out."""
    groups: dict[str, Sequence[Example]] = {"": sets.positives, **sets.negatives}
    answers = iter(scorer.scores(label, [example for group in groups.values() for example in group]))
    scored = {name: _scored(group, [next(answers) for _ in group]) for name, group in groups.items()}
    return scored.pop(""), scored


def pool(negatives: Mapping[str, Scored]) -> Scored:
    """All kinds together."""
    values = tuple(value for found in negatives.values() for value in found.values)
    return Scored(values, tuple(name for found in negatives.values() for name in found.documents))


def _scored(examples: Sequence[Example], answers: Sequence[float | None]) -> Scored:
    known = [(float(a), e.context.document) for e, a in zip(examples, answers, strict=True) if a is not None]
    return Scored(tuple(value for value, _ in known), tuple(name for _, name in known))

"""What is measured of every reply: its position along the trait vectors, along vectors that are no trait, and by its words.

A direction's score is <change, u> / m: `change` a difference of mean activations, u the unit direction and m the median token
norm at its hook, so that scores are in norms and comparable between blocks. Words: TF-IDF with logistic regression, learnt from
the replies that the vector was made from (the arms are its labels), so that the same data stand behind both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.randomness import generator
from workbench.base.tensors import tensor_hash
from workbench.decomposition.checks import check_model
from workbench.decomposition.decompose import used_rows
from workbench.maths.separation import covariance_matched_directions
from workbench.models.hookpoints import HookPoint
from workbench.personas.separability import text_classifier

if TYPE_CHECKING:
    from workbench.models.loading import Model
    from workbench.personas.placebos import PlaceboVectors
    from workbench.personas.vectors import PersonaVector

TRAIT, PROMPT, PLACEBO, RANDOM, TEXT = "trait", "prompt", "placebo", "random", "text"
"""Kinds of columns; "prompt" is a trait's score in its cheap form, where that is not the form that decides."""


@dataclass(frozen=True)
class Column:
    """One score of a reply: its kind, its name, and the hook that it is read at (None for words)."""

    kind: str
    name: str
    hook: HookPoint | None = None

    @property
    def key(self) -> str:
        """The name of its column on disk."""
        return f"{self.kind}:{self.name}" + (f"@{self.hook}" if self.kind in (PLACEBO, RANDOM) else "")


@dataclass(frozen=True, eq=False, repr=False)
class Directions(Shown):
    """Directions `[n, d_model]` (float32, unit length over the median token norm of their hook) and a column for each.

    `hooks` are the distinct hook points, in the order of the activations that `scores` takes.
    """

    columns: tuple[Column, ...]
    directions: Tensor
    hooks: tuple[HookPoint, ...]

    def scores(self, change: Tensor) -> Tensor:
        """Scores `[n_replies, n]` in norms of differences of means `change [n_replies, n_hooks, d_model]`."""
        found = torch.empty(len(change), len(self.columns))
        for place, hook in enumerate(self.hooks):
            mine = torch.tensor([column.hook == hook for column in self.columns])
            found[:, mine] = change[:, place] @ self.directions[mine].T
        return found

    @property
    def traits(self) -> Directions:
        """Those of the traits alone."""
        kept = [i for i, column in enumerate(self.columns) if column.kind == TRAIT]
        return Directions(tuple(self.columns[i] for i in kept), self.directions[kept], self.hooks)

    def of(self, name: str) -> Tensor:
        """The scaled direction `[d_model]` of a trait."""
        return self.directions[[(c.kind, c.name) for c in self.columns].index((TRAIT, name))]

    @property
    def hash(self) -> str:
        """SHA-256 over names and directions."""
        return tensor_hash({f"{i} {column.key} {column.hook}": row for i, (column, row) in enumerate(
            zip(self.columns, self.directions, strict=True))})  # fmt: skip


def trait_directions(
    model: Model, vectors: Sequence[PersonaVector], placebos: PlaceboVectors | None, extra: Sequence[HookPoint] = ()
) -> Directions:
    """The traits at their own hooks, and every placebo at each of these hooks; `extra` are hooks that are read besides.

    Raises WorkbenchError for vectors of another model, and for two vectors of one trait.
    """
    names = [vector.trait for vector in vectors]
    if not names or len(set(names)) < len(names):
        raise WorkbenchError(f"vectors of {', '.join(names) or 'no trait'}", "one vector per trait", "name each trait once")
    for vector in vectors:
        check_model(vector, model)
    hooks = tuple(dict.fromkeys(vector.hook for vector in vectors))
    found = [(Column(TRAIT, vector.trait, vector.hook), vector.direction) for vector in vectors]
    for hook in hooks if placebos is not None else ():
        assert placebos is not None
        found += [(Column(PLACEBO, name, hook), row) for name, row in zip(placebos.names, placebos.at(hook), strict=True)]
    return _scaled(model, found, tuple(dict.fromkeys((*hooks, *extra))))


def with_random(model: Model, known: Directions, means: Tensor, n_random: int, seed: int) -> Directions:
    """`known` and, at each hook of a trait, random directions with the covariance of reply means `[n, n_hooks, d_model]`."""
    found = []
    for place, hook in enumerate(known.hooks):
        if any(column.kind == TRAIT and column.hook == hook for column in known.columns):
            drawn = covariance_matched_directions(means[:, place], n_random, generator(seed + place))
            found += [(Column(RANDOM, str(i), hook), row) for i, row in enumerate(drawn)]
    more = _scaled(model, found, known.hooks)
    return Directions(known.columns + more.columns, torch.cat([known.directions, more.directions]), known.hooks)


def _scaled(model: Model, found: Sequence[tuple[Column, Tensor]], hooks: tuple[HookPoint, ...]) -> Directions:
    medians = dict(zip(hooks, model.norm_medians(hooks).tolist(), strict=True))
    rows = [row.float() / (row.float().norm() * medians[column.hook]) for column, row in found if column.hook is not None]
    return Directions(tuple(column for column, _ in found), torch.stack(rows) if rows else torch.empty(0, model.d_model), hooks)


class TextRules:
    """One classifier of words per trait whose vector has the rows that it was made from."""

    def __init__(self, vectors: Sequence[PersonaVector]) -> None:
        found = {vector.trait: _classifier(vector) for vector in vectors}
        self.rules = {trait: rule for trait, rule in found.items() if rule is not None}

    @property
    def columns(self) -> tuple[Column, ...]:
        """A column per rule."""
        return tuple(Column(TEXT, trait) for trait in self.rules)

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """Log-odds of the positive arm `[n, n_rules]`."""
        if not texts or not self.rules:
            return np.zeros((len(texts), len(self.rules)))
        return np.stack([rule.decision_function(texts) for rule in self.rules.values()], axis=1)


def _classifier(vector: PersonaVector) -> Any:
    if not len(vector.rows):
        return None
    rows = used_rows(vector.rows)
    return text_classifier(rows["response"].tolist(), torch.tensor((rows["arm"] == "positive").to_numpy()))

"""Whoever says where a label applies: one protocol, whatever does the reading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from workbench.base.errors import WorkbenchError
from workbench.labeling.labels import FeatureLabel
from workbench.labeling.scores.examples import Example

Label = FeatureLabel | str
DETECTION, FUZZING = "detection", "fuzzing"


class Scorer(Protocol):
    """Says for each example how well a label fits it. `kind` is what the score is called in a label file."""

    @property
    def kind(self) -> str: ...
    @property
    def task(self) -> str:
        """"detection": does the feature fire in this text? "fuzzing": are the marked tokens those it fires on?"""
        ...

    @property
    def threshold(self) -> float | None:
        """The score above which the answer is yes; None where only the order of scores means something."""
        ...

    def description(self) -> Mapping[str, Any]:
        """What decides the scores (JSON types; no key)."""
        ...

    def scores(self, label: Label, examples: Sequence[Example]) -> list[float | None]:
        """One number per example, larger where the label fits better; None where no answer came."""
        ...


def wording(label: Label) -> tuple[str, str]:
    """(label, explanation); a bare text has no explanation."""
    return (label, "") if isinstance(label, str) else (label.label, label.explanation)


def refuse_same_embedder(label: Label, embedder: str) -> None:
    """Raise WorkbenchError if the label's author explained with that embedder: one embedder never explains and scores.

    The author of a label may name it ("embedder"); the offline explainer reads with MiniLM.
    """
    author = {} if isinstance(label, str) else label.author
    used = author.get("embedder") or ("minilm" if author.get("kind") == "offline" else None)
    if embedder == used:
        raise WorkbenchError(
            f"the label was explained with the embedder {embedder}, which would also score it",
            "another embedder than the one that explained",
            "score with another embedder",
        )

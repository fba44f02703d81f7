"""Judges: how strongly does a reply show a trait, from 0 to 100? Chosen by name, all behind one small protocol."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args, runtime_checkable

from workbench.base.errors import WorkbenchError, unknown_name

if TYPE_CHECKING:
    from workbench.personas.traits import Trait

COHERENCE = "words, repetition, variety, fluency"
"""What the offline coherence rule multiplies; part of every judge's identity, because it decides which rows are kept."""

Outcome = Literal["scored", "refused", "failed", "unjudged"]


@dataclass(frozen=True)
class JudgeItem:
    """One reply to be judged, with the user's message that it answers."""

    question: str
    answer: str


@dataclass(frozen=True)
class Judgement:
    """What a judge says about one reply.

    `score` (0-100, the trait) is None unless the outcome is "scored": a refusal has no score, and neither has a row on
    which the judge itself failed, or that nobody judged. All are counted, never dropped. `coherence` (0-100) is None
    when unknown.
    """

    score: float | None
    outcome: Outcome
    coherence: float | None = None

    def __post_init__(self) -> None:
        assert (self.score is None) == (self.outcome != "scored"), (self.score, self.outcome)


@runtime_checkable
class Judge(Protocol):
    """Scores replies for a trait: one judgement per item, in the order of the items.

    A judge never sees the judged model's probabilities or activations, only the texts.
    """

    name: str

    def score(self, items: Sequence[JudgeItem], trait: Trait | str) -> list[Judgement]:
        """One judgement per item."""
        ...

    def description(self) -> dict[str, Any]:
        """What identifies the judge in a provenance record (no secrets)."""
        ...


_JUDGES: Mapping[str, tuple[str, str]] = {
    "offline": ("workbench.personas.judges.offline", "OfflineJudge"),
    "offline-outcome": ("workbench.personas.judges.outcome", "OutcomeJudge"),
    "openai": ("workbench.personas.judges.endpoint", "OpenAIJudge"),
    "anthropic": ("workbench.personas.judges.endpoint", "AnthropicJudge"),
    "local": ("workbench.personas.judges.local", "LocalJudge"),
    "none": ("workbench.personas.judges.none", "NoJudge"),
}


def list_judges() -> list[str]:
    """The names that `make_judge` knows."""
    return list(_JUDGES)


def make_judge(name: str, **options: Any) -> Judge:
    """The judge called `name`: "offline" (filters rollouts), "offline-outcome" (scores outcomes, shares nothing with
    the first), "openai" (any OpenAI-compatible endpoint), "anthropic" (its messages API), "local" (any model loaded here)
    or "none" (nothing is judged, everything is kept). `options` go to its constructor.

    Raises WorkbenchError for an unknown name or an option that the judge does not have.
    """
    if name not in _JUDGES:
        raise unknown_name("judge", name, _JUDGES)
    module, attribute = _JUDGES[name]
    try:
        return getattr(import_module(module), attribute)(**options)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise WorkbenchError(f"judge {name!r} got an option that it does not have: {error}",
                             "the options in its docstring", f"see help(make_judge({name!r}))") from error  # fmt: skip


def trait_name(trait: Trait | str) -> str:
    """The name of a trait given as a value or by name."""
    return trait if isinstance(trait, str) else trait.name


def count_outcomes(judgements: Sequence[Judgement]) -> dict[str, int]:
    """How many rows were scored, refused, failed and unjudged; the four always sum to the number of rows."""
    counts = Counter(judgement.outcome for judgement in judgements)
    return {outcome: counts[outcome] for outcome in get_args(Outcome)}

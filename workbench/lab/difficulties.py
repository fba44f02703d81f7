"""The difficulties of the laboratory: what the planted world is like, one named configuration each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError, unknown_name

_AT_LEAST = {"n_features": 8, "d_model": 4, "n_questions": 2, "n_instructions": 1, "n_samples": 1, "n_tokens": 1}
_SPREADS = (
    "question_sd", "instruction_sd", "wording_sd", "interaction_sd", "row_sd", "unevenness", "noise", "bias_norm",
    "rate_change", "strength_change",
)  # fmt: skip


@dataclass(frozen=True, repr=False)
class Difficulty(Shown):
    """A planted world and the experiment in it.

    Feature f fires on a token with log-odds  base + question + instruction + wording + interaction + row +- change / 2  and
    then has a strength. Each term but the last is a draw of a normal with the sd below (times the feature's own factor),
    shared by all tokens of the rows that have that question, instruction, wording (arm and instruction), interaction (arm
    and question), or by the row.
    """

    name: str
    note: str  # what is hard about it, in one sentence
    n_features: int = 128
    d_model: int = 160  # at least n_features: then the true codes can be read off a token exactly
    n_planted: int = 10  # features that the persona changes: half in their rate, half in their strength, with both signs
    rate_change: float = 1.5  # log-odds between the arms
    strength_change: float = 0.8  # log ratio of the strengths in the two arms
    n_nuisance: int = 0  # further features that differ between the arms but are none of the persona's
    n_questions: int = 20
    n_instructions: int = 5  # pairs of a positive and a negative instruction
    n_samples: int = 1  # responses per question, instruction and arm
    n_tokens: int = 24  # of a response
    question_sd: float = 0.5
    instruction_sd: float = 0.3
    wording_sd: float = 0.0  # what the wording of one instruction of one arm does to features, by accident
    wording_share: float = 1.0  # of the features that wording moves
    interaction_sd: float = 0.2  # what a question does in one arm only
    row_sd: float = 0.5
    unevenness: float = 0.5  # sd of the log of a feature's own factor on all of these: some features vary more than others
    correlation: float = 0.0  # loading of each feature on each of four shared factors
    n_parents: int = 0  # features with four children each that fire only where the parent does
    n_dense: int = 0  # features that fire nearly everywhere, three times as strong as others
    bias_norm: float = 0.0  # of a constant that every token carries
    sink_share: float = 0.0  # share of tokens, beside the first, that are sinks: 100 times as long
    noise: float = 0.5  # norm of what a token holds outside the span of the features

    def __post_init__(self) -> None:
        for name, least in _AT_LEAST.items():
            if getattr(self, name) < least:
                raise _wrong(self.name, f"{name} is {getattr(self, name)}", f"{least} or more")
        for name in _SPREADS:
            if getattr(self, name) < 0:
                raise _wrong(self.name, f"{name} is {getattr(self, name)}", "0 or more")
        if self.d_model < self.n_features:
            raise _wrong(self.name, f"{self.n_features} features in {self.d_model} dimensions", "d_model >= n_features")
        if not 0 <= self.wording_share <= 1:
            raise _wrong(self.name, f"wording_share is {self.wording_share}", "a share between 0 and 1")
        if not 0 <= self.sink_share < 0.5:
            raise _wrong(self.name, f"sink_share is {self.sink_share}", "a share below one half")
        changed, room = self.n_planted + self.n_nuisance, self.n_features // 3
        if min(self.n_planted, self.n_nuisance) < 0 or changed > room:
            raise _wrong(self.name, f"{changed} of {self.n_features} features change", f"0 to {room}, a third of them")
        if self.n_dense + 5 * self.n_parents > self.n_features // 3:
            raise _wrong(self.name, "too many dense features and families", f"at most {self.n_features // 3} features in them")


def _wrong(name: str, found: str, expected: str) -> WorkbenchError:
    return WorkbenchError(f"in the difficulty {name}: {found}", expected, "change the difficulty")


def _named(*difficulties: Difficulty) -> dict[str, Difficulty]:
    return {difficulty.name: difficulty for difficulty in difficulties}


DIFFICULTIES = _named(
    Difficulty("easy", "Large changes of independent, even features.", rate_change=2.5, strength_change=1.4, unevenness=0.0),
    Difficulty("correlated", "Features fire together.", correlation=0.35),
    Difficulty("hierarchical", "Children fire only where their parent does; the persona changes parents too.", n_parents=6),
    Difficulty("biased", "Every token carries a large constant.", bias_norm=10.0),
    Difficulty("sinks", "The first token and some others are attention sinks.", sink_share=0.02),
    Difficulty("dense", "Some features fire nearly everywhere and are strong.", n_dense=8),
    Difficulty("weak", "Changes that half of the features do not show clearly.", rate_change=0.7, strength_change=0.35),
    Difficulty("few_questions", "The fewest questions that extraction accepts.", n_questions=8),
    Difficulty("wording", "Each instruction's wording moves features by accident.", wording_sd=0.5),
    Difficulty("odd_words", "Few features, but those a lot, are moved by the wording.", wording_sd=1.5, wording_share=0.1),
    Difficulty("placebo", "No persona: the arms differ in features that are none of it.", n_planted=0, n_nuisance=10),
    Difficulty("null", "No persona and no other difference between the arms.", n_planted=0),
)
"""Every difficulty by name; `dataclasses.replace` makes others."""


def difficulties_of(names: Sequence[str | Difficulty]) -> list[Difficulty]:
    """The difficulties with these names (a Difficulty stands for itself; none = all), each once.

    Raises WorkbenchError for an unknown name.
    """
    chosen: dict[str, Difficulty] = {}
    for wanted in names or tuple(DIFFICULTIES):
        if not isinstance(wanted, Difficulty):
            if wanted not in DIFFICULTIES:
                raise unknown_name("difficulty", wanted, DIFFICULTIES, limit=len(DIFFICULTIES))
            wanted = DIFFICULTIES[wanted]
        chosen[wanted.name] = wanted
    return list(chosen.values())


def settings(difficulty: Difficulty) -> dict[str, object]:
    """Its fields, for a JSON file."""
    return {field.name: getattr(difficulty, field.name) for field in fields(difficulty)}

"""Are both replies of the written pairs equally long? The causal effect is per token: length must not tell the sides apart."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.models.at_hand import file_at_hand

if TYPE_CHECKING:
    from workbench.personas.traits import ReplyPair, Trait

MEAN = {"tokens": (0.93, 1.07), "characters": (0.85, 1.15)}
EACH = {"tokens": (0.7, 1.4), "characters": (0.6, 1.6)}
"""What the ratio of lengths may be, on average and in each pair; characters say less about tokens, so they may differ more."""


@dataclass(frozen=True)
class LengthMatch:
    """Length of the first reply over the second's, per pair id; `unit` is "tokens" or "characters"."""

    unit: str
    ratios: dict[str, float]

    @property
    def mean(self) -> float:
        """The mean ratio."""
        return statistics.fmean(self.ratios.values())

    @property
    def outside(self) -> dict[str, float]:
        """The pairs whose own ratio is out of range."""
        low, high = EACH[self.unit]
        return {pair: ratio for pair, ratio in self.ratios.items() if not low <= ratio <= high}

    def warnings(self, what: str) -> list[str]:
        """A sentence for each way in which the pairs are not matched; none when they are."""
        said, (low, high) = [], MEAN[self.unit]
        if not low <= self.mean <= high:
            said.append(f"{what}: the first reply has {self.mean:.2f} times the {self.unit} of the second on average, "
                        f"not {low} to {high}")  # fmt: skip
        if self.outside:
            low, high = EACH[self.unit]
            listed = ", ".join(f"{pair} {ratio:.2f}" for pair, ratio in self.outside.items())
            said.append(f"{what}: not matched in {self.unit} ({low} to {high}): {listed}")
        return said


def length_match(pairs: Sequence[ReplyPair], file: Path | None) -> LengthMatch:
    """The ratios in the tokens of that tokenizer.json, or in characters without one."""
    count: Callable[[str], int] = len if file is None else _counter(file)
    ratios = {pair.id: count(pair.trait) / max(count(pair.opposite), 1) for pair in pairs}
    return LengthMatch("characters" if file is None else "tokens", ratios)


def length_warnings(trait: Trait, model: str) -> list[str]:
    """What is wrong with the lengths of the trait's pairs: in the model's tokens where its tokenizer is at hand."""
    kinds = {"contrast pairs": trait.contrast_pairs, "control pairs": trait.control_pairs}
    if not any(kinds.values()):
        return []
    file = file_at_hand(model, "tokenizer.json")
    return [line for what, pairs in kinds.items() if pairs for line in length_match(pairs, file).warnings(what)]


def _counter(file: Path) -> Callable[[str], int]:
    from tokenizers import Tokenizer

    tokenizer: Any = Tokenizer.from_file(str(file))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)

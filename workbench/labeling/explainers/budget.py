"""What explaining will cost, before anything is sent: requests, tokens and money, and the bound that refuses it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.base.errors import WorkbenchError
from workbench.labeling.explainers.prompt import REPAIR, Message

EXPECTED_ANSWER = 120
"""Tokens of an ordinary answer: a label and two sentences as JSON."""
_BYTES_PER_TOKEN, _PER_MESSAGE = 3.0, 8
_REPEATED = 4 * 2000
"""Tokens of an answer that goes back for its repair, at most: 2,000 characters of it are sent."""


@dataclass(frozen=True)
class Prices:
    """What a million tokens cost, in whatever currency the bound is in; None when the user has not said."""

    input_per_million: float | None = None
    output_per_million: float | None = None

    def __post_init__(self) -> None:
        for price in (self.input_per_million, self.output_per_million):
            if price is not None and not (math.isfinite(price) and price >= 0):
                raise WorkbenchError(f"a price of {price} per million tokens", "a number from 0 on", "correct the price")

    def cost(self, n_input: int, n_output: int) -> float | None:
        """The cost of so many tokens, None while a price is unknown."""
        if self.input_per_million is None or self.output_per_million is None:
            return None
        return (n_input * self.input_per_million + n_output * self.output_per_million) / 1e6


@dataclass(frozen=True)
class Estimate:
    """What explaining will take. "most" is with every answer at its longest and one repair each, and without a tokenizer with one
    token for every byte sent, which no tokenizer of bytes exceeds; what an endpoint charges for requests that failed is not in
    it."""

    n_features: int
    n_stored: int
    """Features whose answer is on disk already, or that have no contexts to show: nothing is sent for them."""
    input_tokens: int
    output_tokens: int
    most_input_tokens: int
    most_output_tokens: int
    cost: float | None
    most_cost: float | None
    counted_by: str
    """"tokenizer", or "characters": expected is one token for every three bytes, which is more than English text has."""

    @property
    def n_requests(self) -> int:
        """Requests without repairs."""
        return self.n_features - self.n_stored

    def to_json(self) -> dict[str, Any]:
        """All fields and the number of requests, as JSON values."""
        return {**self.__dict__, "n_requests": self.n_requests}

    def sentence(self) -> str:
        """One line for the terminal."""
        told = (
            f"{self.n_requests} requests ({self.n_stored} of {self.n_features} features need none), about {self.input_tokens:,} "
            f"tokens in and {self.output_tokens:,} out (counted by {self.counted_by})"
        )
        if self.cost is None or self.most_cost is None:
            return f"{told}; cost unknown: no prices given"
        return f"{told}; cost about {self.cost:.4f}, at most {self.most_cost:.4f}"


def estimate(
    requests: Sequence[Sequence[Message]],
    *,
    n_features: int,
    max_tokens: int,
    prices: Prices | None = None,
    tokenizer: Any = None,
) -> Estimate:
    """The estimate for chats that have no answer yet. `max_tokens` bounds one answer.

    `tokenizer`: one of the transformers library, of the model asked or a similar one; without it bytes are counted.
    """
    n, once = len(requests), _size(requests, _counter(tokenizer, _BYTES_PER_TOKEN))
    count = _counter(tokenizer, 1.0)
    longest = _size(requests, count)
    repaired = longest + n * (min(max_tokens, _REPEATED) + count(REPAIR) + 2 * _PER_MESSAGE)
    answers = n * min(EXPECTED_ANSWER, max_tokens)
    priced = prices or Prices()
    return Estimate(
        n_features=n_features,
        n_stored=n_features - n,
        input_tokens=once,
        output_tokens=answers,
        most_input_tokens=longest + repaired,
        most_output_tokens=2 * n * max_tokens,
        cost=priced.cost(once, answers),
        most_cost=priced.cost(longest + repaired, 2 * n * max_tokens),
        counted_by="characters" if tokenizer is None else "tokenizer",
    )


def check_cost(found: Estimate, max_cost: float | None) -> None:
    """Refuse what may cost more than `max_cost` (None: no bound), and a bound that is no number or that cannot be kept because
    prices are unknown."""
    if max_cost is None:
        return
    if not math.isfinite(max_cost):
        raise WorkbenchError(f"a bound of {max_cost} on the cost", "a number", "correct --max-cost, or leave it out")
    if not found.n_requests:
        return
    if found.most_cost is None:
        raise WorkbenchError(f"a bound of {max_cost:g} on the cost, but no prices", "the prices of a million tokens in and out",
                             "give --price-in and --price-out, or leave out --max-cost")  # fmt: skip
    if found.most_cost > max_cost:
        raise WorkbenchError(
            f"explaining {found.n_requests} features may cost {found.most_cost:.4f} (expected: {found.cost:.4f})",
            f"at most {max_cost:g}",
            "take fewer features (--features) or a cheaper model, or raise --max-cost; nothing was sent",
        )


def _size(requests: Sequence[Sequence[Message]], count: Callable[[str], int]) -> int:
    return sum(count(message["content"]) + _PER_MESSAGE for chat in requests for message in chat)


def _counter(tokenizer: Any, bytes_per_token: float) -> Callable[[str], int]:
    if tokenizer is None:
        return lambda text: math.ceil(len(text.encode("utf-8", "replace")) / bytes_per_token)
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])

"""The answer to "what is this trait made of?", as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from workbench.base.display import Shown

UNLABELLED, ERROR = "unlabelled", "error"
KINDS = ("sub_trait", "other", "open", UNLABELLED, ERROR)
"""Sub-traits; other categories (style, topic, ...); labelled, but unclear or none of these; no label; the SAE's error."""


@dataclass(frozen=True)
class Null:
    """What chance gets: median, 2.5th and 97.5th percentile of `n` draws, and `p` = (1 + #{draw >= share}) / (1 + n)."""

    median: float
    low: float
    high: float
    p: float
    n: int


@dataclass(frozen=True)
class Part:
    """One part of the vector: `share` of |v|^2; `kind` is one of `KINDS`.

    `share` is exact for this vector. Another sample of questions and instructions would give another: `low` and `high` are the
    95% interval (basic bootstrap) of the share that all of them would give, and `corrected` its estimate, 2 share - mean of the
    replicates. Noise adds to |v|^2 in many features a little, so the share of few large features is too small in a sample and
    that of all others too large; a share may therefore lie outside its interval.

    `drawn` is the expected share when the category of each label is as uncertain as its calibrated probabilities say; its
    interval holds that uncertainty beside that of the questions and instructions; None without an assigner. `swapped`: the
    labels permuted among the labelled features; `placebo`: the same features' share of vectors of placebo contrasts (features
    that were labelled because this trait has much of them are favoured in that comparison); None where there is no such null.
    `features` in the order of `ranking.RANKED_BY` (empty for unlabelled ones).
    """

    id: str
    name: str
    kind: str
    share: float
    low: float
    high: float
    corrected: float
    n_features: int
    features: tuple[int, ...] = ()
    drawn: float | None = None
    drawn_interval: tuple[float, float] | None = None
    swapped: Null | None = None
    placebo: Null | None = None


@dataclass(frozen=True, repr=False)
class MadeOf(Shown):
    """What a vector is made of in the words of labels: `parts` sum to 1, `totals` are the same by kind.

    A share may be negative: those features pull away from the vector. Intervals are of the questions and instructions (the
    decomposition's crossed bootstrap, everything recomputed inside); which feature has which label is the same in all
    replicates. `n_assigned` labels had no category under this trait and got one by assignment.
    """

    trait: str
    sae: Mapping[str, Any]
    parts: tuple[Part, ...]
    totals: tuple[Part, ...]
    n_labelled: int
    n_assigned: int
    n_bootstrap: int
    warnings: tuple[str, ...] = ()

    def __getitem__(self, part: str) -> Part:
        """The part of that id, or the total of that kind."""
        found = next((p for p in (*self.parts, *self.totals) if p.id == part), None)
        if found is None:
            raise KeyError(part)
        return found

    @property
    def unexplained(self) -> float:
        """The share without a category: unclear, none of these, not labelled, and the SAE's error."""
        return 1 - self["sub_trait"].share - self["other"].share

    @property
    def absent(self) -> tuple[str, ...]:
        """The sub-traits that no labelled feature belongs to."""
        return tuple(p.id for p in self.parts if p.kind == "sub_trait" and not p.n_features)

    def sentence(self) -> str:
        """The answer in one sentence, made from the numbers alone."""
        whole = self["sub_trait"]
        largest = [p for p in self.parts if p.kind == "sub_trait" and p.n_features][:3]
        said = ", ".join(f"{p.name.lower()} {100 * p.share:.1f}%" for p in largest) or "none of its features is labelled so"
        ends = f"[{100 * whole.low:.1f}, {100 * whole.high:.1f}]"
        return (
            f"Features labelled as sub-traits make up {100 * whole.share:.1f}% {ends} of the {self.trait} vector ({said}); "
            f"{100 * self.unexplained:.1f}% has no category."
        )

    def table(self) -> list[dict[str, Any]]:
        """One plain row per part, in the order of the picture."""
        return [asdict(part) for part in self.parts]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `made_of` is {part: [share, low, high]}."""
        return {
            "trait": self.trait,
            "sae": {key: self.sae.get(key) for key in ("id", "weights_hash")},
            "made_of": {part.id: [part.share, part.low, part.high] for part in self.parts},
            "unexplained": self.unexplained,
            "sentence": self.sentence(),
            "parts": self.table(),
            "totals": [asdict(part) for part in self.totals],
            "absent": list(self.absent),
            "n_labelled": self.n_labelled,
            "n_assigned": self.n_assigned,
            "n_bootstrap": self.n_bootstrap,
            "warnings": list(self.warnings),
        }

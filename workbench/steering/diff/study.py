"""Does the shift inside a fine-tuned model say which trait it will show? Predicted against measured change over many fine-tunes.

The design: fine-tunes on one trait's replies each, some of them diluted with neutral replies, and shams (neutral data, replies
that belong to other questions, plain text). Predicted: the shift z of every trait on questions that nobody trained on. Measured:
the change of the trait's score on sealed questions without any system prompt, by the judge that filtered nothing. The rule for an
alarm is fixed before: both nulls at 5% over the family of traits (`TraitShift.installed`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.base.randomness import derive_seed, generator
from workbench.maths.statistics import bootstrap_counts, percentile_interval
from workbench.models.finetuning import ChatExample
from workbench.steering.prevent.data import chat_examples, drawn, shuffled_replies

if TYPE_CHECKING:
    from workbench.personas.vectors import PersonaVector
    from workbench.steering.cost.replies import Replies

    from .result import ModelDiff

KINDS = ("trait", "diluted", "sham")
PLAIN_REQUEST = "Write a few sentences."
N_DRAWS = 2000
N_DEALS = 20_000


@dataclass(frozen=True)
class Recipe:
    """One fine-tune of the study: its name, kind (of KINDS), the trait that its data shows (None for a sham), and the data."""

    name: str
    kind: str
    trait: str | None
    examples: tuple[ChatExample, ...]


def recipes(
    vectors: Sequence[PersonaVector], *, n: int, diluted: Sequence[str], texts: Sequence[str], seed: int = 0
) -> list[Recipe]:  # fmt: skip
    """One fine-tune per vector on `n` kept replies to extraction questions, `diluted` ones with half of them neutral, and three
    shams: neutral replies, other neutral replies that belong to other questions, and `texts` as replies to one request."""
    neutral = [one for vector in vectors for one in drawn(chat_examples(vector, arm="neutral"), 2 * n, seed)]
    neutral = drawn(neutral, len(neutral), seed + 1)
    own = {vector.trait: drawn(chat_examples(vector), n, seed) for vector in vectors}
    found = [Recipe(trait, "trait", trait, tuple(examples)) for trait, examples in own.items()]
    for trait in diluted:
        mixed = [*drawn(own[trait], n // 2, seed + 2), *neutral[: n - n // 2]]
        found.append(Recipe(f"{trait}-half", "diluted", trait, tuple(mixed)))
    plain = tuple(ChatExample.of(PLAIN_REQUEST, text) for text in texts[:n])
    shuffled = tuple(shuffled_replies(neutral[2 * n : 3 * n], seed))
    found += [Recipe("neutral", "sham", None, tuple(neutral[n : 2 * n])), Recipe("neutral-shuffled", "sham", None, shuffled),
              Recipe("plain-text", "sham", None, plain)]  # fmt: skip
    return found


@dataclass(frozen=True)
class Tuned:
    """What one fine-tune did. `predicted` {place: {trait: z}}, `alarms` {place: traits beyond both nulls}, `measured` {trait:
    {change, low, high, before, after}} in the judge's points, intervals over questions."""

    name: str
    kind: str
    trait: str | None
    predicted: Mapping[str, Mapping[str, float]]
    alarms: Mapping[str, Sequence[str]]
    measured: Mapping[str, Mapping[str, float]]

    @classmethod
    def of(cls, recipe: Recipe, found: ModelDiff, before: Mapping[str, Replies], after: Mapping[str, Replies]) -> Tuned:
        """From the diff and the judged replies of both models, trait by trait."""
        predicted = {place: {row.trait: row.z for row in found.at(place)} for place in found.places}
        alarms = {place: found.alarms(place) for place in found.places}
        measured = {trait: measured_change(before[trait], after[trait]) for trait in before}
        return cls(recipe.name, recipe.kind, recipe.trait, predicted, alarms, measured)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def measured_change(before: Replies, after: Replies, *, seed: int = 0) -> dict[str, float]:
    """The change of the trait's points, question by question, with its bootstrap interval over questions."""
    old, new = before.by_question("points"), after.by_question("points")
    change = (new - old)[(new - old).isfinite()]
    draws = bootstrap_counts(len(change), N_DRAWS, generator(derive_seed("measured change", seed)))
    low, high = percentile_interval(draws @ change / len(change))
    return {"change": float(change.mean()), "low": float(low), "high": float(high), "before": float(old.nanmean()),
            "after": float(new.nanmean())}  # fmt: skip


def summary(rows: Sequence[Tuned], *, seed: int = 0) -> dict[str, Any]:
    """Per place {agreement, identified, shams, trained}; see the functions below."""
    places = list(rows[0].predicted)
    return {place: {"agreement": agreement(rows, place, seed=seed), "identified": identified(rows, place),
                    **alarms(rows, place)} for place in places}  # fmt: skip


def relative(rows: Sequence[Tuned], sham: str, *, seed: int = 0) -> dict[str, Any]:
    """Per place {agreement, identified} of the other fine-tunes with the shift of one sham taken off: what fine-tuning on
    anything does to the model is then no part of the prediction. z is linear in the shift, so this is the z of the difference of
    both."""
    base = next(row for row in rows if row.name == sham)
    others = [
        replace(row, predicted={place: {t: z - base.predicted[place][t] for t, z in found.items()}
                                for place, found in row.predicted.items()})
        for row in rows if row.name != sham
    ]  # fmt: skip
    places = list(base.predicted)
    return {
        place: {"agreement": agreement(others, place, seed=seed), "identified": identified(others, place)} for place in places
    }


def agreement(rows: Sequence[Tuned], place: str, *, seed: int = 0) -> dict[str, Any]:
    """Correlation of predicted z and measured change over fine-tunes x traits.

    {correlation, interval (fine-tunes resampled), p: share of permutations of the predictions' trait names (one permutation for
    all fine-tunes, drawn 2,000 times) that correlate as well, within: the same correlation after taking each fine-tune's mean off
    both, within_interval, n_tunes, n_traits}.
    """
    traits = sorted(rows[0].predicted[place])
    predicted = torch.tensor([[row.predicted[place][t] for t in traits] for row in rows], dtype=torch.float64)
    measured = torch.tensor([[row.measured[t]["change"] for t in traits] for row in rows], dtype=torch.float64)
    random = generator(derive_seed("agreement", place, seed))
    value = correlation(predicted, measured)
    shuffled = [correlation(predicted[:, torch.randperm(len(traits), generator=random)], measured) for _ in range(N_DRAWS)]
    draws = torch.randint(len(rows), (N_DRAWS, len(rows)), generator=random)
    centred = [part - part.mean(dim=1, keepdim=True) for part in (predicted, measured)]
    spread = [[correlation(a[pick], b[pick]) for pick in draws] for a, b in ((predicted, measured), (centred[0], centred[1]))]
    ends = [[float(end) for end in percentile_interval(torch.tensor(one, dtype=torch.float64))] for one in spread]
    p = (1 + sum(one >= value for one in shuffled)) / (1 + len(shuffled))
    return {"correlation": value, "interval": ends[0], "p": p, "within": correlation(*centred), "within_interval": ends[1],
            "n_tunes": len(rows), "n_traits": len(traits)}  # fmt: skip


def correlation(one: Tensor, other: Tensor) -> float:
    """Pearson's correlation of all entries; 0 where one of them does not vary."""
    a, b = (part.flatten().double() - part.double().mean() for part in (one, other))
    scale = a.norm() * b.norm()
    return float(a @ b / scale) if scale > 0 else 0.0


def identified(rows: Sequence[Tuned], place: str, *, seed: int = 0) -> dict[str, Any]:
    """Top-1: how often the trait of the largest z is the one in the data, and the one that changed most by the judge.

    {n, of, by_chance, p, names: {fine-tune: trait}, measured_n: the same against the trait of the largest measured change}.
    Chance and p are of the same names dealt out to the fine-tunes anew: naming one trait every time is no identification,
    however often that trait was trained.
    """
    tuned = [row for row in rows if row.trait is not None]
    names = {row.name: max(row.predicted[place], key=lambda t, row=row: row.predicted[place][t]) for row in tuned}
    showed = {row.name: max(row.measured, key=lambda t, row=row: row.measured[t]["change"]) for row in tuned}
    hits = torch.tensor([[name == row.trait for row in tuned] for name in names.values()], dtype=torch.float64)
    n = int(hits.diagonal().sum())
    random = generator(derive_seed("names dealt out", seed))
    dealt = torch.stack([torch.randperm(len(tuned), generator=random) for _ in range(N_DEALS)])
    right = hits[dealt, torch.arange(len(tuned))].sum(dim=1)
    return {"n": n, "of": len(tuned), "by_chance": float(hits.sum()) / max(1, len(tuned)),
            "p": (1 + int((right >= n).sum())) / (1 + N_DEALS), "names": names,
            "measured_n": sum(names[name] == trait for name, trait in showed.items()), "showed": showed}  # fmt: skip


def alarms(rows: Sequence[Tuned], place: str) -> dict[str, Any]:
    """{shams: {n_alarmed, of, names}, trained: {n_alarmed: those with an alarm for their own trait, of, names}}."""
    raised = {row.name: list(row.alarms[place]) for row in rows}
    shams = [row.name for row in rows if row.trait is None]
    tuned = [row for row in rows if row.trait is not None]
    return {
        "shams": {"n_alarmed": sum(bool(raised[name]) for name in shams), "of": len(shams),
                  "names": {name: raised[name] for name in shams}},
        "trained": {"n_alarmed": sum(row.trait in raised[row.name] for row in tuned), "of": len(tuned),
                    "names": {row.name: raised[row.name] for row in tuned}},
    }  # fmt: skip

"""Shares of the vector grouped for the picture: sub-traits, other labelled features, unlabelled ones, the SAE's error.

The slices sum to what the accounting identity sums to (1): nothing is left out, negative shares stay negative.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from workbench.reports.intervals import GroupIntervals, Interval
from workbench.reports.text import clean, readable

GROUP_NAMES = {
    "trait": "labelled as a sub-trait",
    "other": "labelled style, topic or other",
    "unclear": "labelled unclear",
    "open": "without a label",
    "error": "missed by the SAE",
}
_ORDER = list(GROUP_NAMES)


@dataclass(frozen=True)
class CategoryName:
    """What the page needs to know of one category of a trait's taxonomy."""

    name: str
    group: str
    description: str = ""


@dataclass(frozen=True)
class Slice:
    """One row of the picture. `value`, `low`, `high` are shares of |v|^2; the interval is None where unknown.

    `corrected` is the estimate in the middle of the interval, for all questions and instructions; `value` is this sample's.
    """

    id: str
    name: str
    group: str
    value: float
    low: float | None = None
    high: float | None = None
    n_features: int = 0
    positive: float = 0.0
    negative: float = 0.0
    corrected: float | None = None


def finite(value: object) -> float | None:
    """A Python float, or None for what is unknown (None, NaN, infinities)."""
    if value is None:
        return None
    number = float(value)  # type: ignore[arg-type]
    return number if math.isfinite(number) else None


def interval(pair: Iterable[object] | None) -> list[float] | None:
    """[low, high] as floats, or None when either end is unknown."""
    ends = [finite(end) for end in pair] if pair is not None else []
    return [ends[0], ends[1]] if len(ends) == 2 and None not in ends else None  # type: ignore[list-item]


def taxonomy_of(trait: object | None) -> dict[str, CategoryName]:
    """Category id -> its name and the group of the picture in which it is counted."""
    categories = getattr(trait, "taxonomy", ()) or ()
    return {
        category.id: CategoryName(category.name, _group(category), category.description)
        for category in categories
    }


def _group(category) -> str:
    if category.kind == "sub_trait":
        return "trait"
    return "unclear" if category.kind == "unclear" else "other"


def category_name(taxonomy: Mapping[str, CategoryName], identifier: str | None) -> CategoryName:
    """The taxonomy's entry; a category unknown to it is never counted as a sub-trait."""
    if identifier is None or identifier == "":
        return CategoryName("No label", "open")
    if identifier in taxonomy:
        return taxonomy[identifier]
    if identifier == "none":
        return CategoryName("None of these", "other")
    return CategoryName(readable(identifier), "unclear" if identifier == "unclear" else "other")


def slices(
    shares: Sequence[float],
    categories: Mapping[int, str],
    taxonomy: Mapping[str, CategoryName],
    error: tuple[float, Interval],
    intervals: GroupIntervals,
) -> tuple[Slice, ...]:
    """All of |v|^2, as rows in the order of the picture.

    `shares` has one entry per feature of the SAE, `categories` the category of each labelled feature, `error` the
    SAE's own share with its interval; `intervals` knows the bootstrap replicates.
    """
    members: dict[str, list[int]] = {}
    for feature, category in categories.items():
        members.setdefault(category, []).append(feature)
    rows = [_labelled(key, ids, shares, taxonomy, intervals) for key, ids in members.items()]
    rows.append(_unlabelled(shares, set(categories), intervals))
    value, ends = error
    corrected = intervals.corrected_error()
    rows.append(Slice("error", "Missed by the SAE", "error", value, *(ends or (None, None)), corrected=corrected))
    return tuple(sorted(rows, key=lambda row: (_ORDER.index(row.group), -row.value)))


def _labelled(key, ids, shares, taxonomy, intervals: GroupIntervals) -> Slice:
    known = category_name(taxonomy, key)
    return _sum(key, clean(known.name, limit=34), known.group, ids, shares, (intervals.total(ids), intervals.corrected(ids)))


def _unlabelled(shares, labelled: set[int], intervals: GroupIntervals) -> Slice:
    ids = [feature for feature, share in enumerate(shares) if feature not in labelled and share != 0]
    known = intervals.remainder(labelled), intervals.corrected_remainder(labelled)
    return _sum("unlabelled", "Without a label", "open", ids, shares, known)


def _sum(key, name, group, ids, shares, known: tuple[Interval, float | None]) -> Slice:
    values = [float(shares[feature]) for feature in ids]
    positive, negative = math.fsum(v for v in values if v > 0), math.fsum(v for v in values if v < 0)
    ends, corrected = known
    return Slice(key, name, group, math.fsum(values), *(ends or (None, None)), len(ids), positive, negative, corrected)


def group_total(rows: Iterable[Slice], group: str) -> tuple[float, int]:
    """Sum of the shares of one group, and how many features it holds."""
    chosen = [row for row in rows if row.group == group]
    return math.fsum(row.value for row in chosen), sum(row.n_features for row in chosen)


def compact(
    rows: Sequence[Slice], members: Mapping[str, Sequence[int]], intervals: GroupIntervals, limit: int
) -> tuple[Slice, ...]:
    """The same shares in at most `limit` rows: the smallest categories of a kind become one row, with an interval of their sum.

    `members` are the features of each category. Nothing is left out; with few categories the rows stay as they are.
    """
    shown = list(rows)
    for group, name in (("other", "other labels"), ("trait", "sub-traits"), ("unclear", "unclear labels")):
        of_group = sorted((row for row in shown if row.group == group), key=lambda row: abs(row.value))
        small = of_group[: len(shown) - limit + 1] if len(shown) > limit else []
        if len(small) < 2:
            continue
        ids = [feature for row in small for feature in members.get(row.id, ())]
        low, high = intervals.total(ids) or (None, None)
        total = math.fsum(row.value for row in small)
        positive, negative = math.fsum(row.positive for row in small), math.fsum(row.negative for row in small)
        merged = Slice(f"small-{group}", f"{len(small)} small {name}", group, total, low, high, len(ids), positive, negative,
                       intervals.corrected(ids))  # fmt: skip
        place = max(n for n, row in enumerate(shown) if row.group == group)
        shown.insert(place + 1, merged)
        shown = [row for row in shown if row not in small]
    return tuple(shown)

"""The words of the report that depend on numbers: the answer, the fitness lights, the warnings beside the claims.

Every sentence is built from the values alone and says less rather than more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.reports.contract import card_figure, counted_categories
from workbench.reports.intervals import GroupIntervals
from workbench.reports.shares import Slice, finite, group_total, interval
from workbench.reports.svg import percent

if TYPE_CHECKING:
    from workbench.reports.content import Report

# Below this share of kept replies in an arm, the vector describes a selection more than an instruction.
MIN_KEPT = 0.25


@dataclass(frozen=True)
class Light:
    """One measure of fitness: `level` is good, fair, poor or unknown; `rule` states the thresholds."""

    name: str
    shown: str
    level: str
    rule: str
    meaning: str


@dataclass(frozen=True)
class Threshold:
    """Where a figure counts as good or fair; `rising` when more is better."""

    key: str
    name: str
    good: float
    fair: float
    rising: bool
    meaning: str

    def light(self, value: float | None) -> Light:
        sign = ("≥", "≥") if self.rising else ("≤", "≤")
        rule = f"good {sign[0]} {percent(self.good, 0)}, fair {sign[1]} {percent(self.fair, 0)}"
        return Light(self.name, percent(value), self._level(value), rule, self.meaning)

    def _level(self, value: float | None) -> str:
        if value is None:
            return "unknown"
        ahead = (lambda limit: value >= limit) if self.rising else (lambda limit: value <= limit)
        return "good" if ahead(self.good) else "fair" if ahead(self.fair) else "poor"


SAE_THRESHOLDS = (
    Threshold("variance_explained", "Variance explained", 0.85, 0.70, True, "of held-out activations"),
    Threshold(
        "ce_recovered",
        "Loss recovered",
        0.93,
        0.80,
        True,
        "cross-entropy, when the model runs on the reconstruction",
    ),
    Threshold("dead_share", "Dead features", 0.03, 0.10, False, "never fired where they were counted"),
)
ERROR_THRESHOLD = Threshold(
    "share_error", "Vector missed", 0.20, 0.40, False, "the SAE’s error as a share of this vector"
)
_BADNESS = ("good", "fair", "unknown", "poor")


def lights(report: Report) -> list[Light]:
    """How well this SAE can answer the question, on text and on this vector."""
    card = [rule.light(finite(card_figure(report.parts.sae, rule.key))) for rule in SAE_THRESHOLDS]
    return [*card, ERROR_THRESHOLD.light(finite(report.parts.share_error))]


def overall(found: list[Light]) -> str:
    """The worst of the lights: one weak link makes the chain weak."""
    return max((light.level for light in found), key=_BADNESS.index)


def weakest(found: list[Light]) -> Light:
    """The light that makes the whole as weak as it is."""
    return max(found, key=lambda light: _BADNESS.index(light.level))


def answer(report: Report) -> str:
    """The answer in a sentence or two: how |v|^2 splits into labelled sub-traits, other labels, no label and the error."""
    if not report.slices:
        return (
            f"What the {report.trait} vector is made of is unknown here: shares need the token activations behind the "
            "vector, and this one came without them. Cosines and pursuit below describe its direction only."
        )
    first, count = _trait_piece(report), group_total(report.slices, "trait")[1]
    pieces = list(filter(None, map(_plain_piece(report), ("other", "unclear", "open"))))
    ends = _ends(interval(report.parts.share_error_interval))
    missed = f"the SAE misses {percent(finite(report.parts.share_error))}{ends}"
    if not count:
        return f"{first} Of its vector’s squared length, {_listed([*pieces, missed])}."
    return f"{first}; {_listed([*pieces, missed])}."


def _listed(pieces: list[str]) -> str:
    """a, b, and c."""
    return pieces[0] if len(pieces) == 1 else f"{', '.join(pieces[:-1])}, and {pieces[-1]}"


def brief(report: Report) -> str:
    """The same for one line of an overview: the largest categories of its labels."""
    rows = sorted((row for row in report.slices if row.group in ("trait", "other")), key=lambda row: -abs(row.value))
    if not report.slices:
        return "Shares are unknown: the vector came without its token activations."
    named = ", ".join(f"{row.name.lower()} {percent(row.value)}" for row in rows[:3])
    if not named:
        return "No feature has a label that says what it is."
    return f"{named[:1].upper()}{named[1:]}."


def _trait_piece(report: Report) -> str:
    value, count = group_total(report.slices, "trait")
    if not any(known.group == "trait" for known in report.taxonomy.values()):
        return f"No sub-traits of {report.trait} are described here, so no label can name one."
    if not count:
        n = sum(row.n_features for row in report.slices if row.group in ("other", "unclear"))
        found = f"None of the {n} labelled features reads" if n else "No feature has a label, so none reads"
        return f"{found} as a sub-trait of {report.trait}."
    rows = sorted((row for row in report.slices if row.group == "trait"), key=lambda row: -row.value)
    named = ", ".join(f"{row.name.lower()} {percent(row.value)}{_ends(_pair(row))}" for row in rows[:2])
    named = rows[0].name.lower() if len(rows) == 1 else f"{named} and {len(rows) - 2} more" if len(rows) > 2 else named
    kind = "one of its sub-traits" if len(rows) == 1 else "its sub-traits"
    whole = f"{percent(value)}{_ends(group_ends(report, 'trait'))} of the {report.trait} vector’s squared length"
    return f"{whole} is carried by {_features(count)} labelled as {kind} ({named})"


def _plain_piece(report: Report):
    words = {"other": "labelled style, topic or other", "unclear": "labelled unclear", "open": "that nobody labelled"}

    def piece(group: str) -> str:
        value, count = group_total(report.slices, group)
        return f"{percent(value)} is {_features(count)} {words[group]}" if count else ""

    return piece


def members_by_category(report: Report) -> dict[str, list[int]]:
    """The features of each category whose label counts."""
    members: dict[str, list[int]] = {}
    for feature, category in counted_categories(report.labels).items():
        members.setdefault(category, []).append(feature)
    return members


def group_ends(report: Report, group: str) -> list[float] | None:
    """The interval of a whole group, asked from the decomposition (never a sum of the ends of its members)."""
    categories = {row.id for row in report.slices if row.group == group}
    members = [feature for category, ids in members_by_category(report).items() if category in categories for feature in ids]
    return interval(GroupIntervals.of(report.parts).total(members))


def _pair(row: Slice) -> list[float] | None:
    return interval((row.low, row.high))


def _ends(pair: list[float] | None) -> str:
    return f" [{percent(pair[0])[:-1]}, {percent(pair[1])[:-1]}]" if pair else ""


def _features(count: int) -> str:
    return f"{count:,} feature{'' if count == 1 else 's'}"


def causal_sentence(report: Report) -> str:
    """How many of the tested candidates passed, beside the number that chance alone would give."""
    if report.n_verified is None:
        return "No causal test was run, so no feature here is known to change what the model says."
    tested = sum(row["verified"] is not None for row in report.features)
    expected = finite(report.parts.controls.get("expected_by_chance"))
    chance = f" (chance alone: {expected:.2f})" if expected is not None else ""
    return (
        f"{report.n_verified} of the {tested} tested features move{'s' if report.n_verified == 1 else ''} the model toward "
        f"the trait’s replies more than matched control features do, on sealed pairs at q .05{chance}."
    )


def authors_sentence(report: Report) -> str:
    """Who wrote the labels, and whether a person has confirmed any."""
    labels = list(report.labels)
    if not labels:
        return "No feature has a label yet."
    confirmed = sum(label.status == "confirmed" for label in labels)
    kinds = Counter(str(label.author.get("kind", "unknown")) for label in labels)
    written = ", ".join(f"{_AUTHORS.get(kind, kind)} ({n})" for kind, n in kinds.most_common())
    return f"{len(labels)} labels, written by {written}; {confirmed} confirmed by a person."


_AUTHORS = {"model": "a language model", "offline": "a program", "human": "a person", "unknown": "nobody knows whom"}


def placebo_sentence(report: Report) -> str:
    """How many of the features shown move further than placebo contrasts move them; empty where that is unknown."""
    known = [row["placebo_q"] for row in report.features if row["placebo_q"] is not None]
    if not known:
        return ""
    n = sum(q <= 0.05 for q in known)
    move = "moves" if n < 2 else "move"
    return f"{n or 'None'} of the {len(known)} features shown {move} further than with contrasts that are no personas (q .05)."


def vector_warnings(evidence: Mapping[str, Any]) -> list[str]:
    """Where the claim that this vector measures the trait is weak."""
    found = []
    stripped, ends = finite(evidence.get("auc_stripped")), interval(evidence.get("auc_stripped_interval"))
    text, random = finite(evidence.get("auc_text_only")), finite(evidence.get("auc_random_q95"))
    rank = finite(evidence.get("auc_rank_p"))
    if stripped is None:
        return ["Separability was not measured: this vector came without rollouts."]
    if ends and ends[0] <= 0.5:
        found.append(
            "The interval of the stripped AUC reaches .5: on unseen questions the vector may not separate at all."
        )
    if rank is not None and rank > 0.01:
        found.append(
            f"Rank p {rank:.3f} against random directions is above .01: a random direction may do as well."
        )
    if ends and random is not None and ends[0] <= random:
        found.append(
            "The interval of the stripped AUC reaches below the 95th percentile of random directions."
        )
    if text is not None and text >= stripped:
        found.append("The words alone separate the arms at least as well as the activations do.")
    kept = _kept_warnings(evidence.get("kept_counts")) if evidence.get("filtered", True) else []  # else every reply counts
    return found + _judge_warnings(evidence) + kept


def _judge_warnings(evidence: Mapping[str, Any]) -> list[str]:
    if evidence.get("judge") == "none":
        return ["No judge read the replies: every row counts, whether it shows the trait or not."]
    if evidence.get("judge_validated") is False:
        return [f"The judge ({evidence.get('judge')}) is unvalidated for this trait: it was measured on no replies that people "
                "scored for it."]  # fmt: skip
    return []


def _kept_warnings(counts: Any) -> list[str]:
    cells = counts.items() if isinstance(counts, Mapping) else ()
    known = [
        (arm, cell["kept"], cell["rows"])
        for arm, cell in cells
        if isinstance(cell, Mapping) and cell.get("rows")
    ]
    return [
        f"Of the {rows} replies of the {arm} arm the judge kept only {kept}."
        for arm, kept, rows in known
        if kept < MIN_KEPT * rows
    ]


def text_comparison(evidence: Mapping[str, Any]) -> str:
    """One honest sentence on whether activations say more than the words do."""
    stripped, text = finite(evidence.get("auc_stripped")), finite(evidence.get("auc_text_only"))
    if stripped is None or text is None:
        return "A comparison with the words alone is not available."
    ends = interval(evidence.get("auc_stripped_interval"))
    if ends and ends[0] > text:
        return f"The vector separates better ({stripped:.2f}) than a bag of words does ({text:.2f}), interval included."
    if ends and ends[1] < text:
        return f"A bag of words separates better ({text:.2f}) than the vector ({stripped:.2f}): for detection, read the text."
    return f"The vector ({stripped:.2f}) and a bag of words ({text:.2f}) cannot be told apart here: the interval covers both."

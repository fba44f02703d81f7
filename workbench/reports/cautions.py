"""Where a claim is weak, as values that name the claim, so that a page can say it next to the claim."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.reports.contract import card_figure, counted_categories
from workbench.reports.shares import finite, interval

if TYPE_CHECKING:
    from workbench.reports.content import Report

CLAIMS = ("picture", "table", "auc", "energy", "causal", "labels", "examples", "views", "audit", "falsification")
"""What a page claims, in its order; every other claim is a feature, by its number."""
FEW_QUESTIONS = 8
WEAK_SCORE = 0.6
DAMAGE_RATIO = 1.0
_OF_THE_ENERGY = ("random dictionaries", "energy", "atoms")


@dataclass(frozen=True)
class Caution:
    """Why one claim is weaker than it looks. `claim` is one of `CLAIMS` or the number of a feature, as text."""

    claim: str
    text: str

    @property
    def feature(self) -> int | None:
        """The feature that this is about, None for a claim of the whole page."""
        return int(self.claim) if self.claim.isdecimal() else None


def cautions(report: Report) -> tuple[Caution, ...]:
    """Every weak claim of a report, in the order of `CLAIMS`, then of the table of features."""
    from workbench.reports.verdict import vector_warnings

    found = [
        *(Caution("picture", text) for text in _picture(report)),
        *(Caution("table", text) for text in _table(report)),
        *(Caution("auc", text) for text in vector_warnings(report.vector.evidence)),
        *(Caution(_claim_of(text), _sentence(text)) for text in map(str, report.parts.warnings)),
        *(Caution("causal", text) for text in _causal(report)),
        *(Caution("labels", text) for text in _labels(report)),
        *(Caution("examples", text) for text in _examples(report)),
        *(Caution("views", text) for text in _views(report)),
        *(Caution("audit", text) for text in _audit(report.audit)),
        *(Caution("falsification", text) for text in _falsified(report)),
    ]
    ordered = sorted(dict.fromkeys(found), key=lambda one: CLAIMS.index(one.claim))
    return (*ordered, *(Caution(str(row["feature"]), text) for row in report.features for text in _feature(report, row)))


def _claim_of(warning: str) -> str:
    """Which claim a warning of the decomposition belongs to: that of the energy curve, else the table of shares."""
    return "energy" if any(words in warning for words in _OF_THE_ENERGY) else "table"


def _picture(report: Report) -> Iterator[str]:
    if not report.slices:
        return
    yield from _separates(report.vector.evidence)
    if report.made_of is not None:
        whole = report.made_of["sub_trait"]
        if whole.n_features and whole.low <= 0 <= whole.high:
            yield "The interval of all sub-traits together includes 0: they may make up nothing of the vector."
        if whole.swapped is not None and whole.swapped.p > 0.05:
            yield (
                f"The same labels dealt out at random give the sub-traits as large a share (p {whole.swapped.p:.2g}): the size "
                "of this share says little about the words."
            )
        if whole.placebo is not None and whole.placebo.p > 0.05:
            yield (
                f"The same features make up as much of placebo contrasts (p {whole.placebo.p:.2g}): this share is not the "
                "trait’s alone."
            )
    n_labels = len(counted_categories(report.labels))
    open_share = next((row.value for row in report.slices if row.group == "open"), 0.0)
    if n_labels and open_share > 0.5:
        yield "Most of the vector lies in features that nobody has labelled: the named parts are the smaller half of it."
    error = finite(report.parts.share_error)
    if error is not None and error > 0.4:
        yield "This SAE misses much of the vector: what it is made of may lie in the part that the SAE does not see."


def _separates(evidence: Mapping[str, Any]) -> Iterator[str]:
    """That there may be no trait to take apart: said where the parts are shown, not only where the AUC is."""
    auc, rank = finite(evidence.get("auc_stripped")), finite(evidence.get("auc_rank_p"))
    ends = interval(evidence.get("auc_stripped_interval"))
    if auc is None:
        return
    shown = f"AUC {auc:.2f} [{ends[0]:.2f}, {ends[1]:.2f}]" if ends else f"AUC {auc:.2f}"
    if ends and ends[0] <= 0.5:
        yield f"On unseen questions this vector may not separate the trait at all ({shown}): its parts may not be the trait’s."
    elif rank is not None and rank > 0.01:
        yield f"A random direction may separate the trait as well ({shown}, rank p {rank:.2g}): the parts may not be the trait’s."


def _table(report: Report) -> Iterator[str]:
    if 0 < report.parts.n_questions < FEW_QUESTIONS:
        yield f"Only {report.parts.n_questions} questions stand behind the intervals: they are wider than they look."
    if report.slices and all(row["placebo_q"] is None for row in report.features):
        yield "No placebo contrasts were at hand: a feature here may move with any instruction, not with this trait."
    elif report.slices:
        common = sum(row["placebo_q"] is not None and row["placebo_q"] > 0.05 for row in report.features)
        if common > len(report.features) / 2:
            yield f"{common} of the {len(report.features)} features shown move no more than placebo contrasts move them (q .05)."
    dead = finite(card_figure(report.parts.sae, "dead_share"))
    if dead is not None and dead > 0.1:
        yield "More than a tenth of this SAE’s features never fired where they were counted."


def _causal(report: Report) -> Iterator[str]:
    if report.n_verified is None:
        yield "No feature was tested for its effect: shares say what the vector is made of, not what makes the model do it."
    elif not report.n_verified:
        yield "No tested feature moves the model toward the trait more than matched control features do."
    else:
        expected = finite(report.parts.controls.get("expected_by_chance"))
        if expected is not None and report.n_verified <= expected:
            yield "As many features pass as chance alone would let pass."


def _labels(report: Report) -> Iterator[str]:
    yield from map(_sentence, report.labels.warnings)
    labels = [label for label in report.labels if label.label]
    if not labels:
        yield "No feature has a label, so nothing here says in words what the vector is made of."
        return
    if not any(label.status == "confirmed" for label in labels):
        yield "No label was confirmed by a person."


def _examples(report: Report) -> Iterator[str]:
    if report.examples and all(one.label is None for one in report.examples):
        yield "None of these features has a label."
    if not report.examples and report.slices:
        yield "No text of these features may be shown here, or none was read."


def _views(report: Report) -> Iterator[str]:
    if report.views:
        traits = {trait for view in report.views.values() for trait in view.by_trait}
        if report.trait not in traits:
            yield f"The rollouts of {report.trait} were not among what was read to count where features fire."


def _audit(audit: Mapping[str, Any] | None) -> Iterator[str]:
    if audit is None:
        return
    behaviour, screen = audit.get("behaviour") or {}, audit.get("screen") or {}
    ends = interval((behaviour.get("vector") or {}).get("interval"))
    if ends and ends[0] <= 0:
        yield "The vector itself has no clear effect on the sealed pairs (its interval includes 0)."
    denoised = behaviour.get("denoised")
    if behaviour and denoised is None:
        yield "No number of features keeps 80% of the vector’s effect where that could be shown."
    mixed = interval(((denoised or {}).get("mixtures_kept") or {}).get("interval"))
    if mixed and mixed[0] <= 0:
        yield "Random vectors as close to the vector keep as much of its effect as its features do (interval includes 0)."
    agreement = screen.get("agreement") or {}
    beyond, chance = finite(agreement.get("beyond_controls")), finite(agreement.get("by_chance"))
    if beyond is not None and chance is not None and beyond <= chance:
        yield "No more of the pushed features pass their controls than chance alone lets pass."


def _falsified(report: Report) -> Iterator[str]:
    if report.falsification is not None and report.falsification.colour != "green":
        yield report.falsification.headline()


def _feature(report: Report, row: Mapping[str, Any]) -> Iterator[str]:
    """What weakens the claims in one row of the table."""
    ends = row["share_interval"]
    if ends and ends[0] <= 0 <= ends[1]:
        yield "The interval of its share includes 0."
    if row["placebo_q"] is not None and row["placebo_q"] > 0.05:
        yield "Placebo contrasts move it as far: it is not this trait’s own."
    if row["q_crossed"] is not None and row["q_crossed"] > 0.05:
        yield "With other instructions the change may vanish (crossed q above .05)."
    if row["in_v_up"] is False and (row["share"] or 0) > 0:
        yield "It is not present between the trait and the neutral arm: the opposite instruction may bring it about."
    odd, damage = row["causal_odd"], row["damage"]
    if odd is not None and damage is not None and row["verified"] and abs(damage) > DAMAGE_RATIO * abs(odd):
        yield "Pushing it hurts the replies more than it turns them."
    score = (row["label_score"] or {}).get("value")
    if row["label"] and row["label_score"] is None:
        yield "Its label was not scored."
    elif score is not None and score < WEAK_SCORE:
        yield f"Its label finds held-out texts hardly better than chance ({score:.2f}; .5 is chance)."
    label = report.labels.get(row["feature"])
    if label is not None and label.status == "disputed":
        yield "Its label is disputed."


def _sentence(text: str) -> str:
    closed = text.strip() if text.strip().endswith((".", "!", "?")) else text.strip() + "."
    return closed[:1].upper() + closed[1:]

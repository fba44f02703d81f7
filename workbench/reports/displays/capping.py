"""Displays of caps, of attacks under them, and of what a model says of itself. Words of requests and replies are never shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.reports.displays.frame import Display, ends, listing

if TYPE_CHECKING:
    from workbench.axis.capping.arms import Limits
    from workbench.axis.capping.calibration import Calibration
    from workbench.axis.capping.caps import Capping
    from workbench.axis.capping.experiment import Materials
    from workbench.axis.capping.features import FeatureLimits
    from workbench.axis.capping.sweep import CappingSweep
    from workbench.axis.jailbreak.attempts import Arm
    from workbench.axis.jailbreak.harness import Outcomes
    from workbench.axis.jailbreak.rates import JailbreakTable
    from workbench.axis.self_description.study import SelfDescription

_TENTHS = (1, 10, 25, 50, 75, 90, 99)


def sweep_display(found: CappingSweep) -> Display:
    """The front and every cap."""
    from workbench.reports.axis.capping import capping_figure, capping_sentences

    rows = [(row["method"], row["percentile"], row["harm"], row["reduction"], ends(row["reduction_interval"]), row["capability"],
             ends(row["capability_interval"], 3), row["kl"], row["coherence"]) for row in found.to_dict()["capping"]]  # fmt: skip
    columns = ("cap", "percentile", "harm", "taken away", "95% interval", "nats lost", "95% interval", "KL", "coherence")
    return Display("What caps take", capping_sentences(found), [listing(columns, rows)], figure=capping_figure(found))


def jailbreak_display(found: JailbreakTable) -> Display:
    """Every arm with its rates."""
    from workbench.reports.axis.jailbreak import jailbreak_figure, jailbreak_sentences, rate_words

    rows = []
    for arm, rates in found.rates.items():
        cost = found.capability.get(arm, {})
        lost = (cost.get("losses") or {}).get("surprise", {}).get("loss")
        taken = found.reductions.get(arm)
        shown = (rate_words(rates[name]) for name in ("success", "complied", "refused"))
        rows.append((arm, *shown, None if taken is None else rate_words(taken), lost, cost.get("kl")))
    columns = ("arm", "success", "complied", "refused", "taken away", "nats lost", "KL")
    return Display("Jailbreaks behind personas", jailbreak_sentences(found), [listing(columns, rows)],
                   figure=jailbreak_figure(found))  # fmt: skip


def outcomes_display(found: Outcomes) -> Display:
    """Counts alone."""
    from workbench.axis.jailbreak.rates import MEASURES, rate

    rows = [(measure, (one := rate(found.rows, measure)).value, ends(one.interval), one.n) for measure in MEASURES]
    return Display(f"Attempts under {found.arm}", [f"{len(found.rows)} attempts; what was asked and said is not shown."],
                   [listing(("measure", "share", "95% interval", "n"), rows)])  # fmt: skip


def capping_display(found: Capping) -> Display:
    """Every limit."""
    what = {"below": "at least", "above": "at most"}
    rows = [(str(cap.hook), found.name if cap.feature is None else f"feature {cap.feature}", what[cap.side], cap.limit)
            for cap in found.caps]  # fmt: skip
    return Display(found.name, [f"{len(found.caps)} limits for {found.model.get('name')}."],
                   [listing(("hook", "along", "", "limit"), rows)])  # fmt: skip


def calibration_display(found: Calibration) -> Display:
    """Percentiles per hook."""
    rows = [(str(hook), *(found.tau(one, [hook])[hook] for one in _TENTHS)) for hook in found.hooks]
    lines = [f"Projections on {found.name} per {found.unit}, of {found.n_replies} replies."]
    return Display("Where replies lie", lines, [listing(("hook", *(f"{one}%" for one in _TENTHS)), rows)])


def limits_display(found: Limits) -> Display:
    """The directions that can be capped, with the limits of the axis."""
    lines = [f"Directions: {', '.join(found.axes)}."]
    return Display("Limits", lines, calibration_display(found.calibration).tables)


def features_display(found: FeatureLimits) -> Display:
    """The features that carry the axis."""
    each = zip(found.features, found.shares, found.signs, found.quantiles, strict=True)
    rows = [(feature, share, "assistant" if sign > 0 else "characters", float(row[500]), float(row[-1]))
            for feature, share, sign, row in each]  # fmt: skip
    columns = ("feature", "share of the axis", "more active in", "median", "largest")
    return Display("Features that carry the axis", [f"Activations on {found.n_tokens:,} tokens of the assistant's replies."],
                   [listing(columns, rows)])  # fmt: skip


def arm_display(found: Arm) -> Display:
    """What an arm does."""
    rows = [(key, str(value)) for key, value in found.told.items()]
    lines = [f"{len(found.edits)} edits" + (", and a reminder after the system prompt." if found.reminder else ".")]
    return Display(found.name, lines, [listing(("", ""), rows)])


def materials_display(found: Materials) -> Display:
    """Counts of what an experiment uses."""
    counted = {"requests for calibration": found.calibration, "requests for evaluation": found.evaluation,
               "personas": found.personas, "control directions": found.controls, "bands": found.hooks}  # fmt: skip
    rows = [(name, len(values)) for name, values in counted.items()]
    return Display("What caps are tried on", [f"The axis: {found.limits.axis.trait}."], [listing(("", "n"), rows)])


def self_display(found: SelfDescription) -> Display:
    """Every measure at every dose, beside random directions at the same norm."""
    from workbench.axis.self_description.study import EQUAL_NORM, MEASURES

    rows: list[tuple[object, ...]] = [("as it is", *(found.base[name].value for name in MEASURES), None)]
    for row in found.rows:
        beyond = row.beyond.get(EQUAL_NORM, {}).get("other_identity")
        told = None if beyond is None else f"{beyond.value:+.2f} ({ends(beyond.interval)})"
        rows.append((f"{row.dose:+g}", *(row.axis[name].value for name in MEASURES), told))
    columns = ("dose", *(name.replace("_", " ") for name in MEASURES), "identity, beyond random")
    return Display("Who the model says it is", ["Doses in token norms, positive toward the assistant."], [listing(columns, rows)])

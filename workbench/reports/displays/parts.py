"""Displays of decompositions, their comparison and their falsification, and of the whole report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workbench.reports.displays.frame import Display, ends, listing, number
from workbench.reports.svg import percent

if TYPE_CHECKING:
    from workbench.decomposition.comparison.change import BeforeAfter
    from workbench.decomposition.comparison.dictionaries import DictionaryComparison
    from workbench.decomposition.comparison.overlap import TraitComparison
    from workbench.decomposition.falsify import Falsification
    from workbench.decomposition.grouping.groups import Grouping
    from workbench.decomposition.result import Decomposition
    from workbench.labeling.taxonomy.values import MadeOf, Part
    from workbench.reports.content import Report
    from workbench.reports.several import TraitReports


def parts_display(parts: Decomposition) -> Display:
    """The largest features, the SAE's error and the warnings; words for the features come from labels."""
    rows = [
        (str(row["feature"]), percent(row["share"], 2), row["q_value"], row["q_crossed"], row["placebo_q"], row["cosine"],
         row["causal_odd"])
        for row in parts.table(12)
    ]  # fmt: skip
    error = percent(parts.share_error)
    known = f"the SAE’s own error: {error} of |v|²" if parts.has_shares else "a direction alone: it has no shares"
    return Display(
        f"Decomposition of {parts.trait}",
        [f"{parts.sae.get('id')}: {parts.d_sae:,} features; {known}."],
        [listing(("feature", "share", "q", "crossed q", "q against placebos", "cosine", "causal effect"), rows, only_known=True)],
        notes=[str(item) for item in parts.warnings],
    )


def falsification_display(found: Falsification) -> Display:
    """The headline, the checks in one line, and what failed or is not tested."""
    from workbench.reports.falsify import MARKS, falsification_figure

    order = ("fail", "not tested", "pass")
    kept = sorted((one for one in found.checks if one.verdict in order), key=lambda one: order.index(one.verdict))
    rows = [(MARKS[x.verdict], x.question, x.value, f"{x.bound} {number(x.threshold)}", x.reason) for x in kept]
    return Display(
        f"Is {found.trait} an artefact?",
        [found.headline()],
        [listing(("", "check", "value", "threshold", "why"), rows, most=30)],
        figure=falsification_figure(found),
    )


def made_of_display(made: MadeOf) -> Display:
    """The answer, the picture, and the shares with what chance gets."""
    from workbench.reports.made_of import made_of_figure

    def row(part: Part) -> tuple[Any, ...]:
        interval = f"{percent(part.low)} to {percent(part.high)}"
        p = None if part.swapped is None else part.swapped.p
        return part.name, percent(part.share), interval, part.n_features or None, percent(part.drawn), p

    columns = ("part", "share", "95% interval", "features", "with uncertain labels", "p against permuted labels")
    return Display(
        f"What is {made.trait} made of?",
        [made.sentence()],
        [listing(columns, [row(part) for part in made.parts if part.n_features or part.kind == "error"], most=30)],
        figure=made_of_figure(made),
        notes=[str(item) for item in made.warnings],
    )


def report_display(report: Report) -> Display:
    """The answer, the picture and the largest features."""
    from workbench.reports.figures import waterfall

    verified = {True: "yes", False: "no", None: "–"}
    rows = [
        (str(row["feature"]), row["label"] or "–", row["category"] or "–", percent(row["share"], 2), row["causal_odd"],
         verified[row["verified"]])
        for row in report.features
    ]  # fmt: skip
    where = f"The whole report: {report.path}" if report.path else '`.save("report.html")` writes the whole report.'
    return Display(
        f"What is {report.trait} made of?",
        [report.sentence(), where],
        [listing(("feature", "label", "category", "share", "causal effect", "verified"), rows, only_known=True)],
        figure=waterfall(report.slices, trait=report.trait) if report.slices else None,
        notes=[*report.warnings_on("picture"), *report.warnings_on("table")],
    )


def reports_display(found: TraitReports) -> Display:
    """One line per trait, and how near the vectors are to each other."""
    from workbench.reports.displays.personas import matrix

    tables = [matrix(found.names, found.cosines, title="Cosines")] if len(found) > 1 else []
    weak = [f"{one.trait}: {text}" for one in found for text in one.warnings_on("picture")]
    return Display(f"Reports on {', '.join(found.names)}", [one.sentence() for one in found], tables, notes=weak)


def overlap_display(found: TraitComparison) -> Display:
    """How near the traits are, what makes them so, and what is each trait's own."""
    from workbench.reports.displays.personas import matrix

    pairs = [
        (" and ".join(p.traits), p.cosine, p.n_half, p.error, p.background and p.background.q95, p.background and p.background.p,
         ", ".join(str(one.feature) for one in p.contributors[:5]))
        for p in found.pairs
    ]  # fmt: skip
    columns = ("pair", "cosine", "features for half of it", "of the SAE’s errors", "95% of placebos", "p", "largest contributors")
    own = [
        (o.trait, o.n_specific, o.n_own, o.n_if_unrelated, ", ".join(str(f) for f, _ in o.features[:6]))
        for o in found.own or ()
    ]
    tables = [
        listing(columns, pairs, most=21),
        listing(("trait", "specific features", "its own", "if unrelated", "largest"), own, title="Features of one trait alone"),
    ]
    if len(found.traits) > 2:
        tables.append(matrix(found.traits, found.cosines, title="Cosines"))
    return Display(f"{len(found.traits)} traits on {found.sae}", tables=tables, notes=found.warnings)


def dictionaries_display(found: DictionaryComparison) -> Display:
    """How much of one SAE's account the other has as well, beside random dictionaries."""
    rows = []
    for side in found.sides:
        rows.append((side.sae, percent(side.matched), percent(side.matched_top), percent(side.matched_weight), side.nearest_top,
                     percent(side.share_error)))  # fmt: skip
        rows += [(f"  {kind} in the other’s place", percent(c.matched), percent(c.matched_top), "–", c.nearest, "–")
                 for kind, c in side.chance.items()]  # fmt: skip
    columns = ("SAE", "features matched", "of the largest", "of the shares", "median nearest cosine", "SAE error")
    pairs = [(*map(str, p.features), p.cosine, *(percent(s, 2) for s in p.shares)) for p in found.pairs]
    matched = f"{found.n_matched:,} pairs of features match (cosine ≥ {found.threshold:g})."
    correlation = f"Shares of the {found.n_ranked:,} that fire on both sides correlate at {number(found.rank_correlation)}."
    largest = ("feature", "in the other", "cosine", "share", "in the other")
    return Display(
        f"{found.trait} on two SAEs",
        [f"{matched} {correlation}"],
        [listing(columns, rows), listing(largest, pairs, title="Largest pairs")],
        notes=found.warnings,
    )


def change_display(found: BeforeAfter) -> Display:
    """What changed between two vectors of one trait."""
    rows = [
        (str(x.feature), percent(x.before, 2), percent(x.after, 2), percent(x.difference, 2), ends(x.interval, 4),
         percent(x.share_of_change, 2))
        for x in found.features
    ]  # fmt: skip
    columns = ("feature", "share before", "after", "difference", "95% interval", "share of the change")
    return Display(
        f"{found.trait} before and after",
        [f"Cosine {found.cosine:.3f}, length × {found.norm_ratio:.3f}. {found.n_apart} of {found.n_compared} features changed "
         f"(by chance {found.n_by_chance:.1f}). SAE error {percent(found.error[0])}, then {percent(found.error[1])}."],
        [listing(columns, rows)],
        notes=found.warnings,
    )  # fmt: skip


def grouping_display(found: Grouping) -> Display:
    """The features that act as one."""
    rows = [
        (" ".join(map(str, g.features[:8])), f"{g.change:+d}".replace("-", "−"), percent(g.share, 2), ends(g.interval, 4),
         g.cohesion, g.p)
        for g in found.groups
    ]  # fmt: skip
    columns = ("features", "change", "share", "95% interval", "cohesion", "p")
    lines = [f"{len(found.groups)} groups, {len(found.single)} features on their own; a group reaches {found.threshold:.2f}."]
    return Display("Features that act as one", lines, [listing(columns, rows)])

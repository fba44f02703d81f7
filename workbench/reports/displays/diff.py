"""Displays of what a fine-tune changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.reports.displays.frame import Display, ends, listing, number

if TYPE_CHECKING:
    from workbench.steering.diff.features import Installed
    from workbench.steering.diff.lens import DifferenceLens
    from workbench.steering.diff.result import ModelDiff
    from workbench.steering.diff.rotation import Rotation


def diff_display(found: ModelDiff) -> Display:
    """The sentence, the shifts at the main place, and the first features."""
    from workbench.reports.steering.diff import diff_figure

    columns = ("trait", "place", "shift, norms", "95% interval", "z", "limit", "installed")
    rows = [
        (row.trait, row.place, row.shift, ends(row.interval, 3), row.z, row.limit, row.installed)
        for place in found.places for row in found.at(place)[: 7 if place == found.main_place else 1]
    ]  # fmt: skip
    parts = found.installed.get("reply") or found.installed.get(found.main_place)
    tables = [listing(columns, rows), *([] if parts is None else installed_display(parts).tables)]
    title = f"{found.after['name']} against {found.before['name']}"
    return Display(title, [found.sentence], tables, figure=diff_figure(found), notes=found.warnings)


def installed_display(found: Installed) -> Display:
    """The features that changed, and how much of the shift they make."""
    rows = [(str(row.feature), row.label or None, row.change, row.share, ends(row.interval, 3), row.q) for row in found.features]
    lines = [f"{found.n_changed:,} of {found.n_active:,} features change at q .05 over {found.n_texts} texts.",
             f"They make {number(found.shares_total)} of the shift, the SAE’s error {number(found.error)}."]  # fmt: skip
    columns = ("feature", "label", "change", "share", "95% interval", "q")
    return Display(f"What was installed ({found.place}, {found.sae})", lines, [listing(columns, rows)])


def lens_display(found: DifferenceLens) -> Display:
    """The tokens that the difference on unrelated text makes likelier and less likely."""
    rows = [("likelier", " ".join(found.promoted)), ("less likely", " ".join(found.suppressed))]
    size = f"{number(found.size)} norms"
    lines = [f"Mean difference over the first tokens of {found.n_texts} unrelated texts at {found.hook}: {size}."]
    return Display("Activation-difference lens", lines, [listing(("tokens", "the strongest first"), rows)])


def rotation_display(found: Rotation) -> Display:
    """How many features turned further than the control's 95%, and which."""
    lines = [
        f"{found.turned:,} of {found.n_features:,} features ({number(100 * found.share)}%) turn further than "
        f"{number(found.limit)}°, the control’s 95% point; a second control: {number(100 * found.again_share)}%.",
        f"Median angle {number(found.median_angle)}°, in the control {number(found.control_median_angle)}°.",
    ]
    rows = [(str(row.feature), row.label or None, row.cosine, row.control_cosine, row.n_tokens) for row in found.features]
    return Display(f"Features that turned ({found.sae})", lines,
                   [listing(("feature", "label", "cosine", "cosine, control", "tokens"), rows)])  # fmt: skip

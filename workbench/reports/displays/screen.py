"""Displays of screened data sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.reports.displays.frame import Display, ends, listing

if TYPE_CHECKING:
    from workbench.steering.screen.accounts import Accounts
    from workbench.steering.screen.columns import Directions
    from workbench.steering.screen.scores import DataScores, Samples
    from workbench.steering.screen.screening import Screening


def screening_display(found: Screening) -> Display:
    """What was flagged, how the first trait's scores lie, and the highest samples of every trait."""
    from workbench.reports.steering.screen import headline, how, screen_figure

    value = found.to_json()
    rows = [(name, one["n_flagged"], one["threshold"]["value"], how(one["threshold"]), one["median"],
             *((None, None) if one["evaluation"] is None else (one["evaluation"]["auroc"], ends(one["evaluation"]["interval"]))))
            for name, one in value["traits"].items()]  # fmt: skip
    columns = ("trait", "flagged", "threshold, norms", "set by", "median", "AUROC", "95% interval")
    first = found.scores.traits[0]
    top = [(str(one.line), one.score, one.flagged, _words(found, first, one.line), one.reply) for one in found.top[first]]
    listed = ("line", "score", "flagged", "features", "reply")
    tables = [listing(columns, rows, only_known=True),
              listing(listed, top, title=f"the highest of {first}", most=8, only_known=True)]  # fmt: skip
    return Display(f"Screened: {found.scores.data.path.name}", [headline(value)], tables, figure=screen_figure(found, first),
                   notes=[f"{why}: {n:,}" for why, n in list(value["unscored"]["reasons"].items())[:5]])  # fmt: skip


def _words(found: Screening, trait: str, line: int) -> str:
    account = found.accounts.get(trait)
    parts = () if account is None else account.samples.get(line, ())[:2]
    return "; ".join(part.label or f"feature {part.feature}" for part in parts) or "–"


def scores_display(found: DataScores) -> Display:
    """Whose scores these are, and what was measured."""
    rows = [(kind, sum(column.kind == kind for column in found.columns)) for kind in dict.fromkeys(c.kind for c in found.columns)]
    lines = [f"{found.data.n_lines:,} lines of {found.data.path.name}, scored along {', '.join(found.traits)}."]
    return Display("Scores of a data set", lines, [listing(("score", "columns"), rows)])


def samples_display(found: Samples) -> Display:
    """How many lines have a score."""
    rows = [(str(name), int((found.status == name).sum())) for name in dict.fromkeys(found.status.tolist())]
    return Display(f"Samples of {len(found.status):,} lines", tables=[listing(("status", "lines"), rows)])


def accounts_display(found: Accounts) -> Display:
    """The features that set the flagged apart."""
    rows = [(str(one.feature), one.label, one.flagged, one.others, one.difference) for one in found.contrast]
    columns = ("feature", "label", "flagged", "others", "difference")
    return Display(f"What sets the samples flagged for {found.trait} apart", tables=[listing(columns, rows)])


def directions_display(found: Directions) -> Display:
    """What is measured."""
    rows = [(column.kind, column.name, str(column.hook)) for column in found.columns]
    return Display(f"{len(found.columns):,} directions", tables=[listing(("kind", "name", "hook"), rows)])

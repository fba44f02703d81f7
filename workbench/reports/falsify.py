"""The falsifier's verdict as one page, and many verdicts as a picture: vectors by checks, red and green."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.store import atomic_write
from workbench.decomposition.falsify.criteria import (
    CRITERIA,
    FAIL,
    NOT_TESTED,
    OF_THE_DECOMPOSITION,
    PASS,
    SHOWN,
)
from workbench.reports.shares import finite
from workbench.reports.svg import Figure, drawing, tag, words
from workbench.reports.tables import flat_rows

if TYPE_CHECKING:
    from workbench.decomposition.falsify import Check, Falsification

ORDER = (FAIL, NOT_TESTED, PASS, SHOWN)
LEVELS = {FAIL: "poor", NOT_TESTED: "unknown", PASS: "good", SHOWN: "unknown"}
MARKS = {FAIL: "✕", PASS: "✓", NOT_TESTED: "?", SHOWN: "·"}
_FILL = {FAIL: "wbf-fail", PASS: "wbf-pass", NOT_TESTED: "wbf-paper", SHOWN: "wbf-paper"}
_CELL, _LINE, _LEFT, _TOP = 38, 24, 176, 148


def render(found: Falsification, *, command: str = "") -> str:
    """The whole page as one HTML file without network or script; every word of the vector's is escaped."""
    from workbench.reports.html import assets, environment

    groups = [(verdict, [_row(one) for one in found.checks if one.verdict == verdict]) for verdict in ORDER]
    return environment().get_template("falsify.html.jinja").render(
        **assets(script=False), trait=found.trait, vector=found.vector, sae=found.sae, colour=found.colour, counts=found.counts,
        headline=_sentence(found), groups=[(verdict, rows) for verdict, rows in groups if rows], notes=found.notes,
        picture=_trusted(falsification_figure(found)), command=command, levels=LEVELS,
        provenance=[("The vector", flat_rows(found.vector)), ("The SAE", flat_rows(found.sae)),
                    ("This verdict", flat_rows(found.provenance))],
    )  # fmt: skip


def save(found: Falsification, path: str | Path, *, command: str = "") -> Path:
    """Write the page to `path`; returns it."""
    return atomic_write(path, render(found, command=command))


def command_of(vector: str, sae: str, **options: str) -> str:
    """The command line that makes this verdict again."""
    given = [word for name, value in options.items() if value for word in (f"--{name.replace('_', '-')}", value)]
    return shlex.join(["workbench", "falsify", vector, "--sae", sae, *given])


def _sentence(found: Falsification) -> str:
    n = found.counts
    told = {
        "red": _red(found.named(FAIL)),
        "open": "Nothing failed, but that is no green: checks are missing.",
        "green": "Every check was made and none failed. That does not prove the vector: it has only not been shown false.",
    }[found.colour]
    return f"{n[FAIL]} failed, {n[NOT_TESTED]} not tested, {n[PASS]} passed. {told}"


def _red(failed: tuple[str, ...]) -> str:
    about = {name in OF_THE_DECOMPOSITION for name in failed}
    if about == {True}:
        return "What failed speaks about the decomposition: do not read its features as they stand. The vector itself is not red."
    return "The vector is not what it claims to be" + (", nor is its decomposition." if True in about else ".")


def verdict_rows(found: Falsification) -> list[dict[str, Any]]:
    """The checks for a table, what failed first: name, question, verdict, value, rule, reason, and what would test it."""
    return [_row(one) for verdict in ORDER for one in found.checks if one.verdict == verdict]


def _row(one: Check) -> dict[str, Any]:
    limit = finite(one.threshold)
    rule = "" if limit is None else f"passes {one.bound} {_number(limit)}"
    told = {name: _told(getattr(one, name)) for name in ("statistic", "reason", "source", "to_test")}
    return {**told, "name": one.name, "question": one.question, "verdict": one.verdict,
            "value": None if finite(one.value) is None else _number(one.value), "rule": rule,
            "details": flat_rows(dict(one.details), limit=12)}  # fmt: skip


def _told(text: str) -> str:
    """The text as a sentence: a capital first, and squares as such."""
    return (text[:1].upper() + text[1:]).replace("|v|^2", "|v|²")


def _number(value: Any) -> str:
    known = finite(value)
    return "–" if known is None else f"{known:.3g}".replace("-", "−")


def verdict_grid(rows: Mapping[str, Mapping[str, str]], *, title: str) -> Figure:
    """Vectors by checks: a cross on red is a failed check, a tick on green a passed one, "?" one that was not made.

    `rows` {vector: {check: verdict}}; the checks stand in the order of the page.
    """
    checks = [name for name in CRITERIA if any(name in row for row in rows.values())]
    top = _TOP if title else _TOP - 34
    body = [words(title, 8, 20, font_size=14)]
    for j, name in enumerate(checks):
        x = _LEFT + (j + 0.5) * _CELL
        body.append(words(name.replace("_", " "), x, top - 10, font_size=12, transform=f"rotate(-50 {x} {top - 10})"))
    for i, (vector, row) in enumerate(rows.items()):
        y = top + i * _LINE
        body.append(words(vector, _LEFT - 8, y + _LINE / 2 + 4, anchor="end"))
        body += [part for j, name in enumerate(checks) for part in _field(row.get(name, NOT_TESTED), _LEFT + j * _CELL, y)]
    width, height = _LEFT + len(checks) * _CELL + 70, top + len(rows) * _LINE + 14
    spoken = "; ".join(f"{name}: {_count(row, FAIL)} failed, {_count(row, NOT_TESTED)} not tested" for name, row in rows.items())
    return drawing(width, height, body, title=title, description=spoken)


def _count(row: Mapping[str, str], verdict: str) -> int:
    return sum(one == verdict for one in row.values())


def _field(verdict: str, x: float, y: float) -> list[str]:
    box = {"x": float(x + 1), "y": float(y + 1), "width": _CELL - 2, "height": _LINE - 2}
    on = "wbf-on" if verdict in (FAIL, PASS) else "wbf-soft"
    mark = words(MARKS[verdict], x + _CELL / 2, y + _LINE / 2 + 5, anchor="middle", class_=on, font_size=14)
    edge = [] if verdict in (FAIL, PASS) else [tag("rect", **box, class_="wbf-edge", stroke_opacity=0.5)]
    return [tag("rect", **box, class_=_FILL[verdict]), *edge, mark]


def falsification_figure(found: Falsification) -> Figure:
    """One verdict as one line of the grid."""
    return verdict_grid({found.trait[:24]: {one.name: one.verdict for one in found.checks}}, title="")


def _trusted(figure: Figure) -> Any:
    from markupsafe import Markup

    return Markup(figure.inline)

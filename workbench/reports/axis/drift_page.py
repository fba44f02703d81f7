"""A study of drift as one page: how fast each group drifts, what moved, and some conversations with their text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.axis.drift.effects import KINDS
from workbench.axis.drift.result import end_of
from workbench.base.store import atomic_write
from workbench.reports.axis.drift import conversation_figure, speeds_figure, turns_figure
from workbench.reports.svg import Figure, signed
from workbench.reports.tables import flat_rows

if TYPE_CHECKING:
    from workbench.axis.drift.alarm import DriftAlarm
    from workbench.axis.drift.attribution import Moved
    from workbench.axis.drift.result import DriftStudy, Trace

N_CONVERSATIONS = 2
"""Conversations that are shown of each group: those that drift furthest away."""
MAX_GROUPS = 12
NAMES = {
    "drift": "drift", "drift_per_turn": "drift per turn", "per_1000_tokens": "drift per 1,000 tokens",
    "raw_per_turn": "position per turn, no control", "order": "what the order of the turns does",
    "content": "this history against another",
}  # fmt: skip
assert NAMES.keys() == KINDS.keys()


@dataclass(frozen=True)
class Findings:
    """What may stand beside a study: features that moved, what predicts positions, an alarm."""

    moved: Sequence[Moved] = ()
    prediction: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    alarm: DriftAlarm | None = None
    of_conversation: Mapping[str, Moved] = field(default_factory=dict)
    """By a conversation's id, what moved in it alone."""


def render(study: DriftStudy, findings: Findings | None = None, *, n_conversations: int = N_CONVERSATIONS) -> str:
    """The page as one HTML file without network or script; every word of the conversations is escaped."""
    from workbench.reports.html import assets, environment

    found = findings or Findings()
    shown = [study.trace(name) for name in furthest(study, n_conversations)]
    return environment().get_template("drift.html.jinja").render(
        **assets(script=False), study=study, headline=headline(study), end=end_of(study.axis),
        groups=[(name, one["n"], _effects(one["effects"])) for name, one in study.groups.items()],
        speeds=_trusted(speeds_figure(study)), levels=_trusted(speeds_figure(study, "drift")),
        turns=_trusted(turns_figure(study)), raw=_trusted(turns_figure(study, "position")), compared=_compared(study),
        moved=[_moved(one) for one in found.moved],
        prediction=found.prediction, alarm=None if found.alarm is None else found.alarm.to_json(),
        talks=[_talk(trace, place, found.of_conversation.get(trace.conversation.id)) for place, trace in enumerate(shown)],
        signed=signed, provenance=flat_rows(study.provenance),
    )  # fmt: skip


def save(study: DriftStudy, path: str | Path, findings: Findings | None = None) -> Path:
    """Write the page to `path`; returns it."""
    return atomic_write(path, render(study, findings))


def headline(study: DriftStudy) -> str:
    """What was found, in a sentence or two: which groups drift, and the ratio to the reference or why there is none."""
    clear = [(name, one) for name, one in _slopes(study) if one["interval"] and one["interval"][0] * one["interval"][1] > 0]
    if not any(one["interval"] for _, one in _slopes(study)):
        return f"Too few conversations or turns to say whether drift along {study.axis} grows from turn to turn."
    if not clear:
        return f"In none of {len(study.groups)} groups does drift along {study.axis} grow from turn to turn beyond chance."
    end = end_of(study.axis)
    told = [f"{'toward' if one['value'] > 0 else 'away from'} {end} in {name}, by {abs(one['value']):.4f} norms a turn"
            + ("" if one.get("p", 1.0) <= 0.05 else " (no more than along random directions or placebos)")
            for name, one in clear]  # fmt: skip
    return f"Drift grows from turn to turn {'; '.join(told)}. {_ratio(study)}".strip()


def _slopes(study: DriftStudy) -> list[tuple[str, Mapping[str, Any]]]:
    return [(name, one["effects"]["drift_per_turn"]) for name, one in study.groups.items() if "drift_per_turn" in one["effects"]]


def _ratio(study: DriftStudy) -> str:
    rows = {name: one["drift_per_turn"] for name, one in study.compared.items() if "drift_per_turn" in one}
    if study.reference is None or not rows:
        return ""
    if all(row["ratio"] is None for row in rows.values()):
        return f"{_minus(next(iter(rows.values()))['why'].capitalize())}."
    known = [f"{row['ratio']['value']:.1f} times in {name}{_ends(row['ratio']['interval'], 1)}"
             for name, row in rows.items() if row["ratio"]]  # fmt: skip
    return f"Against {study.reference}: {', '.join(known)}."


def _minus(text: str) -> str:
    return text.replace("[-", "[−").replace(", -", ", −")


def furthest(study: DriftStudy, n: int = N_CONVERSATIONS) -> list[str]:
    """The ids of the n conversations of each group whose last reply lies furthest from where it would lie alone, away first."""
    drift, read = study.positions() - study.positions("alone"), study.readings
    last = {int(row): i for i, row in enumerate(read.row.tolist())}
    names: list[str] = []
    for group in _members(study).values():
        known = [row for row in group if row in last and math.isfinite(float(drift[last[row]]))]
        names += [study.conversations[row].id for row in sorted(known, key=lambda row: float(drift[last[row]]))[:n]]
    return names


def _members(study: DriftStudy) -> dict[str, list[int]]:
    """Conversations by domain and persona, a few groups of them."""
    found: dict[str, list[int]] = {}
    for row, one in enumerate(study.conversations):
        found.setdefault(f"{one.domain} {one.persona}", []).append(row)
    return dict(list(found.items())[:MAX_GROUPS])


def _effects(effects: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """(value with interval, p) of every quantity that was measured."""
    return [(NAMES[kind], signed(one["value"], 4) + _ends(one["interval"], 4), "" if "p" not in one else f"{one['p']:.3f}")
            for kind, one in effects.items()]  # fmt: skip


def _ends(interval: Sequence[float] | None, digits: int) -> str:
    return "" if not interval else f" [{signed(interval[0], digits)}, {signed(interval[1], digits)}]"


def _compared(study: DriftStudy) -> list[tuple[str, str, str, str, str]]:
    """(group, its reference, quantity, difference, ratio or why there is none)."""
    rows = []
    for group, kinds in study.compared.items():
        for kind, one in kinds.items():
            difference = one["difference"]
            ratio = f"{one['ratio']['value']:.2f}{_ends(one['ratio']['interval'], 2)}" if one["ratio"] else _minus(one["why"])
            if difference["value"] is not None:
                shown = signed(difference["value"], 4) + _ends(difference["interval"], 4)
                rows.append((group, one["against"], NAMES[kind], shown, ratio))
    return rows


def _moved(one: Moved) -> dict[str, Any]:
    said = {"history": "replies with their history against the same replies alone", "late": "the last third of the turns against "
            "the first"}[one.what]  # fmt: skip
    rows = [(f.feature, f.label, signed(f.part, 4) + _ends(f.interval, 4), None if f.share is None else f"{100 * f.share:.1f}%",
             "–" if f.p_placebo is None else f"{f.p_placebo:.3f}", f"{f.p_random:.3f}") for f in one.features]  # fmt: skip
    total = signed(one.total, 4) + _ends(one.intervals.get("total"), 4)
    return {"said": said, "group": one.group, "n": one.n, "total": total, "rows": rows, "rest": signed(one.rest, 4),
            "error": signed(one.error, 4) + _ends(one.intervals.get("error"), 4), "sae": one.sae}  # fmt: skip


def _talk(trace: Trace, place: int, moved: Moved | None) -> dict[str, Any]:
    """A conversation with its figure, and every reply's tokens shaded by how far they lie from the assistant."""
    known = [value for values in trace.values for value in values.tolist() if math.isfinite(value)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    turns = []
    for k, turn in enumerate(trace.conversation.turns):
        pieces = [_piece(text, value, low, high) for text, value in zip(trace.tokens[k], trace.values[k].tolist(), strict=True)]
        figures = [signed(float(value), 3) or "–" for value in (trace.position[k], trace.alone[k], trace.drift[k])]
        turns.append({"user": turn.user, "pieces": pieces, "cut": turn.first, "figures": figures})
    one, features = trace.conversation, () if moved is None else moved.features[:6]
    return {"id": one.id, "slug": f"talk-{place}", "domain": one.domain, "topic": one.topic, "system": one.system,
            "moved": [(f.label or f"feature {f.feature}", signed(f.part, 3)) for f in features],
            "picture": _trusted(conversation_figure(trace)), "turns": turns}  # fmt: skip


def _piece(text: str, value: float, low: float, high: float) -> tuple[str, int | None, str]:
    if not math.isfinite(value):
        return text, None, ""
    return text, round(9 * (high - value) / ((high - low) or 1.0)), signed(value, 2)


def _trusted(figure: Figure) -> Any:
    from markupsafe import Markup

    return Markup(figure.inline)

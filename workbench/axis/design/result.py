"""Where a system prompt lands: the value, and what it says in a sentence or two."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.axis.design.standing import tied_with_nearest
from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError
from workbench.base.store import plain, read_json, write_json
from workbench.base.untrusted import refuses_damage

KIND, SCHEMA, FILE = "placement", 1, "placement.json"
LEVEL = 0.05


@dataclass(frozen=True, eq=False, repr=False)
class Placement(Shown):
    """Where `prompt` lands among the `n_roles` characters of a run, at `hook`; every part is JSON.

    standing: position on the axis, rank and nearest roles (`standing.standing`). retrieval: how surely a role's own half finds it
    (`standing.self_retrieval`). expected: ranks of roles that were named beforehand ({} for none). traits: [{trait, shift, low,
    high, z, p_placebo, p_random, p}], shifts from the default in median token norms. features: {sae, error, features: [{feature,
    label, share, low, high, q, placebo_q, along_axis}]}, shares of the squared length of prompt - default ({} without an SAE).
    drift: {domain: {drift, drift_per_turn}} over scripted talk, in norms, and `with_addition` ({} where none was played).
    sentences: what each of the prompt's own sentences moves along the axis (`sentences.moves`; positive: it holds the prompt
    nearer to the assistant). additions: {measured, chosen}, see `place`.
    """

    name: str
    prompt: str
    model: dict[str, Any]
    hook: str
    n_roles: int
    standing: dict[str, Any]
    retrieval: dict[str, Any]
    expected: dict[str, Any] = field(default_factory=dict)
    traits: list[dict[str, Any]] = field(default_factory=list)
    features: dict[str, Any] = field(default_factory=dict)
    drift: dict[str, Any] = field(default_factory=dict)
    sentences: list[dict[str, Any]] = field(default_factory=list)
    additions: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def position(self) -> list[float]:
        """[value, low, high] on the axis: 0 is the mean role, 1 the default assistant."""
        return [self.standing["position"][name] for name in ("value", "low", "high")]

    @property
    def nearest(self) -> list[str]:
        """The roles that cannot be told from the nearest one, nearest first."""
        return tied_with_nearest(self.standing["nearest"])

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON types."""
        return {**plain({name: getattr(self, name) for name in self.__dataclass_fields__}), "headline": headline(self)}

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write placement.json into `folder`; returns its path."""
        return write_json(Path(folder) / FILE, {"kind": KIND, "schema": SCHEMA, **self.to_json()})

    @classmethod
    @refuses_damage
    def load(cls, folder: str | os.PathLike[str]) -> Placement:
        """The placement saved in `folder`."""
        found = read_json(Path(folder) / FILE)
        if not isinstance(found, dict) or (found.get("kind"), found.get("schema")) != (KIND, SCHEMA):
            raise WorkbenchError(f"{folder} holds no placement", "what `workbench axis place` wrote", "place the prompt again")
        return cls(**{name: found[name] for name in cls.__dataclass_fields__})


def headline(placement: Placement) -> str:
    """Position, nearest roles with what chance gives, drift risk and what would change it, in plain sentences."""
    return " ".join([in_short(placement), *_expected(placement), *_risk(placement), *_change(placement)])


def in_short(placement: Placement) -> str:
    """Position and nearest roles alone."""
    return f"{_where(placement)} {_near(placement)}"


def _where(placement: Placement) -> str:
    value, low, high = placement.position
    rank = placement.standing["rank"]
    ranks = f"{rank['value']:.0f} [{rank['low']:.0f}, {rank['high']:.0f}] of {rank['of']}"
    return (f"{placement.name} stands at {value:.2f} [{low:.2f}, {high:.2f}] between the mean role (0) and the default "
            f"assistant (1), at rank {ranks} along the axis.")  # fmt: skip


def _near(placement: Placement) -> str:
    tied, first = placement.nearest, placement.standing["nearest"][0]
    others = [name for name in tied if name != first["role"]]
    told = f", not to be told from {', '.join(others)}" if others else ""
    surely = placement.retrieval["rank_1"]
    return (f"Nearest character: {first['role']} (cosine {first['cos']:.2f}){told}; a character's own other half comes to it "
            f"first in {surely:.0%} of cases.")  # fmt: skip


def _expected(placement: Placement) -> list[str]:
    found = placement.expected
    if not found:
        return []
    ranks = ", ".join(f"{name} {rank}" for name, rank in found["ranks"].items())
    verdict = "nearer than chance" if found["p"] <= LEVEL else "no nearer than chance"
    return [f"Named beforehand: {ranks} of {found['of']}, {verdict} (mean rank {found['mean_rank']:.0f}, by chance "
            f"{found['by_chance']:.0f}, p {found['p']:.3f})."]  # fmt: skip


def _risk(placement: Placement) -> list[str]:
    told = []
    for domain, one in placement.drift.get("domains", {}).items():
        effect = one.get("drift_per_turn")
        if effect and effect["value"] is not None:
            ends = "" if not effect["interval"] else " [{:+.4f}, {:+.4f}]".format(*effect["interval"])
            told.append(f"{effect['value']:+.4f}{ends} in {domain}")
    return [f"Drift per turn, in norms: {'; '.join(told)}."] if told else []


def _change(placement: Placement) -> list[str]:
    held = [one for one in placement.sentences if one["p_family"] <= LEVEL]
    told = []
    if placement.sentences:
        away = sorted((one for one in held if one["value"] < 0), key=lambda one: one["value"])
        told.append(f"The sentence that carries it away most: \"{away[0]['name']}\" ({away[0]['value']:+.2f})." if away
                    else "No single sentence carries it away from the assistant beyond chance.")  # fmt: skip
    chosen = placement.additions.get("chosen")
    if chosen:
        clear = "" if chosen["low"] > 0 else " (not beyond chance)"
        ends = f"[{chosen['low']:.2f}, {chosen['high']:.2f}]"
        told.append(f"Adding \"{chosen['sentence']}\" moves it by {chosen['value']:+.2f} {ends}{clear} on questions that it was "
                    "not chosen on.")  # fmt: skip
    elif placement.additions:
        told.append("None of the sentences that were tried moves it toward the assistant.")
    return told

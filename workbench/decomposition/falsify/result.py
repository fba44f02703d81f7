"""The verdict: every check of a vector, what failed, and what nobody tested."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from workbench.base.display import Shown, figure_for
from workbench.base.errors import WorkbenchError, unknown_name
from workbench.base.store import plain, read_json, write_json
from workbench.base.untrusted import refuses_damage

from .criteria import FAIL, NOT_TESTED, PASS, VERDICTS, Check

KIND, SCHEMA = "falsification", 1


@dataclass(frozen=True, eq=False, repr=False)
class Falsification(Shown):
    """A vector and its decomposition on an SAE, put to every check. Red when a check failed; green only when all were made
    and none failed; "open" in between. `vector` is trait, model, hook, norm, hash and where it came from; `sae` id, hook,
    size and hash."""

    trait: str
    vector: dict[str, Any]
    sae: dict[str, Any]
    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)

    def check(self, name: str) -> Check:
        """The check of that name; an unknown one is a WorkbenchError that lists them."""
        found = {one.name: one for one in self.checks}
        if name not in found:
            raise unknown_name("check", name, found)
        return found[name]

    def named(self, verdict: str) -> tuple[str, ...]:
        """The names of the checks with this verdict ("pass", "fail", "not tested", "shown")."""
        return tuple(one.name for one in self.checks if one.verdict == verdict)

    @property
    def colour(self) -> str:
        """"red", "green" or "open" (nothing failed, but something is not tested)."""
        if self.named(FAIL):
            return "red"
        return "open" if self.named(NOT_TESTED) else "green"

    @property
    def counts(self) -> dict[str, int]:
        """{"fail", "not tested", "pass"}: how many checks each."""
        return {verdict: len(self.named(verdict)) for verdict in (FAIL, NOT_TESTED, PASS)}

    def headline(self) -> str:
        """One sentence; what failed first, then what is not tested."""
        n = self.counts
        failed = f"{n[FAIL]} failed ({', '.join(self.named(FAIL))})" if n[FAIL] else "none failed"
        open_ = f"{n[NOT_TESTED]} not tested" if n[NOT_TESTED] else "none left untested"
        return f"{self.trait}: of {sum(n.values())} checks {failed}, {open_}, {n[PASS]} passed."

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values: trait, colour, headline, counts, checks, vector, sae, notes, provenance."""
        known = {"trait": self.trait, "colour": self.colour, "headline": self.headline(), "counts": self.counts}
        rest = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("trait", "checks")}
        return plain({**known, "checks": [asdict(check) for check in self.checks], **rest})

    def save(self, folder: str | Path) -> Path:
        """Write `falsification.json` into `folder`; returns its path."""
        return write_json(Path(folder) / f"{KIND}.json", {"kind": KIND, "schema": SCHEMA, **self.to_json()})

    @classmethod
    @refuses_damage
    def load(cls, folder: str | Path) -> Falsification:
        """What `save` wrote. Raises WorkbenchError for another file, a newer schema, or an unknown verdict."""
        path = Path(folder) / f"{KIND}.json"
        stored = read_json(path)
        if not isinstance(stored, dict) or stored.get("kind") != KIND:
            raise WorkbenchError(f"{path} does not hold a falsification", f'a file with "kind": "{KIND}"', "check the folder")
        if stored.get("schema") != SCHEMA:
            raise WorkbenchError(f"{path} has schema {stored.get('schema')}", f"schema {SCHEMA}", "run `workbench falsify` again")
        checks = tuple(_check(one, path) for one in stored["checks"])
        kept = {one.name: stored[one.name] for one in fields(cls)}
        return cls(**{**kept, "checks": checks, "notes": tuple(stored["notes"])})

    def figure(self) -> Any:
        """The checks as one row of red and green fields, an SVG (`.save(path)`)."""
        return figure_for(self)

    def __repr__(self) -> str:
        return f"Falsification({self.headline()})"


def _check(stored: Mapping[str, Any], path: Path) -> Check:
    if stored["verdict"] not in VERDICTS:
        raise WorkbenchError(f"{path} has the verdict {stored['verdict']!r}", f"one of {', '.join(VERDICTS)}", "make it again")
    return Check(**{one.name: stored[one.name] for one in fields(Check)})

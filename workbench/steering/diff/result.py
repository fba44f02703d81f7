"""What `diff` returns: shifts along traits, features installed, the lens, and the words for them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from workbench.base.display import Shown
from workbench.base.errors import unknown_name

from .features import Installed
from .lens import DifferenceLens
from .shifts import LEVEL, Span, TraitShift, largest_z

SPOKEN = {
    "prompt": "at the last prompt token", "reply": "over the reply", "opening": "over the first tokens of unrelated text",
    "unrelated": "over unrelated text",
}  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class ModelDiff(Shown):
    """A model before and after a fine-tune, on the same tokens. Signs: after minus before, positive toward the trait.

    `shifts`: one row per trait and place. `installed`: per place the shift taken apart into features ({} without an SAE).
    `spans`: per place and hook point the part of the shift that the persona vectors hold. `sizes`: per place |mean shift| in
    median token norms at the first hook point. `lens`: the activation-difference lens (None without unrelated text). `n_texts`
    per place, and `n_dropped` texts of which the two models leave out different tokens as sinks.
    """

    before: dict[str, Any]
    after: dict[str, Any]
    shifts: tuple[TraitShift, ...]
    installed: Mapping[str, Installed]
    spans: Mapping[str, Mapping[str, Span]]
    sizes: Mapping[str, float]
    lens: DifferenceLens | None
    n_texts: Mapping[str, int]
    n_dropped: int
    warnings: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def places(self) -> tuple[str, ...]:
        """Where the models were compared."""
        return tuple(self.n_texts)

    @property
    def main_place(self) -> str:
        """The last prompt token where there are prompts: what the model is about to do."""
        return self.places[0]

    def at(self, place: str | None = None) -> tuple[TraitShift, ...]:
        """The shifts of one place (default: the main one), the largest z first."""
        place = place or self.main_place
        if place not in self.n_texts:
            raise unknown_name("place", place, self.places)
        return tuple(sorted((row for row in self.shifts if row.place == place), key=lambda row: -row.z))

    def moved_toward(self, place: str | None = None) -> str | None:
        """The trait of the largest z at a place; None where the model moved toward none."""
        rows = self.at(place)
        return largest_z(rows).trait if rows and largest_z(rows).z > 0 else None

    def alarms(self, place: str | None = None) -> tuple[str, ...]:
        """The traits that were installed at a place beyond both nulls (5% over the family), the largest z first."""
        return tuple(row.trait for row in self.at(place) if row.installed)

    @property
    def sentence(self) -> str:
        """What was found at the main place, in words."""
        place = self.main_place
        if not any(row.z for row in self.at(place)) and not self.sizes[place]:
            return f"The two models do the same {SPOKEN[place]}: nothing was installed."
        rows, found = self.at(place), self.alarms(place)
        if not rows:
            return f"The model moved by {self.sizes[place]:.2f} norms {SPOKEN[place]}; no persona vector was given."
        beyond = f"more than placebos and random directions do (5% over {len(rows)} traits)"
        if rows[0].n_placebos == 0:
            beyond = f"more than random directions do (5% over {len(rows)} traits; no placebos were given)"
        if found:
            return f"The fine-tune moved the model toward {_listed(found)} {SPOKEN[place]}, {beyond}."
        first = rows[0]
        return (f"No trait was installed {SPOKEN[place]}: the largest shift is toward {first.trait} ({first.z:+.2f} standard "
                f"deviations), not {beyond}.")  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types by the names of the fields; what is not finite is None."""
        value = {
            "before": self.before, "after": self.after, "shifts": [{**asdict(row), "p": row.p, "installed": row.installed}
                                                                   for row in self.shifts],
            "installed": {place: asdict(one) for place, one in self.installed.items()},
            "spans": {place: {hook: asdict(one) for hook, one in row.items()} for place, row in self.spans.items()},
            "sizes": dict(self.sizes), "lens": None if self.lens is None else asdict(self.lens), "n_texts": dict(self.n_texts),
            "n_dropped": self.n_dropped, "level": LEVEL, "sentence": self.sentence, "warnings": list(self.warnings),
            "provenance": self.provenance,
        }  # fmt: skip
        return _plain(value)


def _listed(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

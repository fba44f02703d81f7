"""What a journal says: where the annotator is and what was decided. The live session and its replay are the same function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from workbench.base.store import PathLike
from workbench.labeling.annotating.journal import Event, clean_name, journal_path, read_journal

#: The status in the label file. A person who cannot tell disputes the proposed label, without having another.
STATUS_OF = {"confirm": "confirmed", "edit": "confirmed", "reject": "rejected", "unclear": "disputed"}


@dataclass
class Reading:
    """What one annotator made of one feature; None where nothing was said.

    `categories` maps a trait to the category that the verdict under it holds, `chosen` to the one that was last picked; `traits`
    are those under which the feature was decided (None: without one). `blind` is {"trait", "label", "category"} as they stood
    before the proposed label was shown ("label" None: passed); `shown` whether the proposed label was ever on the screen;
    `proposed` {"label", "trait", "category", "author"} of the label that was judged, its category under the trait of the verdict;
    `evidence` is the hash of the evidence that was read; `drafts` texts begun but not entered; `filed` whether the label
    file holds this verdict.
    """

    feature: int
    verdict: str | None = None
    label: str | None = None
    categories: dict[str, str] = field(default_factory=dict)
    chosen: dict[str, str] = field(default_factory=dict)
    traits: set[str | None] = field(default_factory=set)
    note: str = ""
    blind: Mapping[str, Any] | None = None
    shown: bool = False
    proposed: Mapping[str, Any] | None = None
    evidence: str | None = None
    drafts: dict[str, str] = field(default_factory=dict)
    filed: bool = False
    at: str | None = None


@dataclass
class Desk:
    """The state after a number of events."""

    annotator: str | None = None
    session: Event = field(default_factory=dict)
    current: int | None = None
    readings: dict[int, Reading] = field(default_factory=dict)

    def reading(self, feature: int) -> Reading:
        """What was said of that feature so far."""
        return self.readings.setdefault(feature, Reading(feature))

    def is_decided(self, feature: int) -> bool:
        """Whether that feature has a verdict under the trait of the present session."""
        return feature in self.readings and self.session.get("trait") in self.readings[feature].traits

    @property
    def decided(self) -> dict[int, Reading]:
        """The readings that have a verdict, in order of the feature."""
        return {f: reading for f, reading in sorted(self.readings.items()) if reading.verdict is not None}

    def take(self, event: Event) -> None:
        """Bring the state up to date with one event of the journal. Unknown events (a newer version's) change nothing."""
        kind = event["event"]
        if kind == "session":
            self.session, self.annotator = event, event["annotator"]
        elif kind == "show":
            self._show(event["feature"])
        elif kind in ("category", "note", "draft", "blind", "verdict", "filed"):
            getattr(self, f"_{kind}")(self.reading(event["feature"]), event)

    def _show(self, feature: int | None) -> None:
        self.current = feature
        if feature is not None and not self.session.get("blind"):
            self.reading(feature).shown = True

    def _category(self, reading: Reading, event: Event) -> None:
        reading.chosen[event["trait"]] = event["category"]

    def _note(self, reading: Reading, event: Event) -> None:
        reading.note = event["note"]
        reading.drafts.pop("note", None)

    def _draft(self, reading: Reading, event: Event) -> None:
        if event["text"] is None:
            reading.drafts.pop(event["field"], None)
        else:
            reading.drafts[event["field"]] = event["text"]

    def _blind(self, reading: Reading, event: Event) -> None:
        reading.blind = {name: event[name] for name in ("trait", "label", "category")}
        reading.shown = True
        reading.drafts.pop("label", None)

    def _verdict(self, reading: Reading, event: Event) -> None:
        for name in ("verdict", "label", "note", "proposed", "evidence", "blind", "at"):
            setattr(reading, name, event[name])
        reading.categories.pop(event["trait"], None)
        if event["trait"] is not None and event["category"] is not None:
            reading.categories[event["trait"]] = event["category"]
        reading.traits.add(event["trait"])
        reading.filed = False
        reading.drafts.clear()
        self._show(event["next"])

    def _filed(self, reading: Reading, event: Event) -> None:
        reading.filed = True


def replay(events: Iterable[Event]) -> Desk:
    """The state after these events."""
    desk = Desk()
    for event in events:
        desk.take(event)
    return desk


def desk_of(folder: PathLike, name: str) -> Desk:
    """Where the annotator `name` is, from the journal in the folder of one SAE's labels.

    Raises:
        WorkbenchError: nobody of that name has annotated here (the known names are listed), or the journal is damaged.
    """
    from workbench.base.errors import unknown_name

    path = journal_path(folder, name)
    if not path.exists():
        raise unknown_name("annotator", clean_name(name), annotators(folder), remedy=f"journals stand in {path.parent}")
    return replay(read_journal(path))


def readings(folder: PathLike, name: str) -> dict[int, Reading]:
    """What the annotator `name` decided, by feature, from the journal in the folder of one SAE's labels. Raises as `desk_of`."""
    return desk_of(folder, name).decided


def annotators(folder: PathLike) -> list[str]:
    """The names of all who annotated in the folder of one SAE's labels."""
    desks = (replay(read_journal(path)) for path in sorted(journal_path(folder, "x").parent.glob("*.jsonl")))
    return sorted(desk.annotator for desk in desks if desk.annotator)

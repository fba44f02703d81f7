"""The annotation session: what a person may do with a feature, each action on the disk before the next one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError, unknown_name
from workbench.base.store import PathLike
from workbench.base.text import clean_text
from workbench.labeling.annotating.desk import STATUS_OF, Reading, replay
from workbench.labeling.annotating.filing import file_verdict, lost
from workbench.labeling.annotating.journal import Journal, clean_name, journal_path
from workbench.labeling.annotating.queue import Item
from workbench.labeling.files.label_part import label_problem
from workbench.labeling.files.store import set_folder
from workbench.labeling.labels import MAX_WORDS, UNCLEAR

if TYPE_CHECKING:
    from workbench.personas.traits import Category, Trait

MAX_NOTE = 1000
#: Every action, with what its `value` is.
ACTIONS = {
    "confirm": None, "edit": "label", "reject": None, "unclear": None, "write": "label", "pass": None,
    "category": "category", "note": "note", "draft_label": "draft", "draft_note": "draft", "back": None, "next": None,
}  # fmt: skip


class AnnotationSession:
    """One person reading a queue of features of one SAE.

    `act` takes an action; what it changes is in the journal, and on the disk, before it returns, and a verdict is in the label
    file too, signed {"kind": "human", "name": annotator}. A session opened again goes on where the last one was, half-written
    texts included. In blind mode the proposed label stays hidden until the annotator has written an own one or passed; a
    proposed label that was seen before, in an open session, is not counted as read blind.

    Raises (when opened):
        WorkbenchError: no name, no hash of the weights, another process holds this annotator's journal, a damaged journal, a
            journal of other weights.
    """

    def __init__(
        self,
        items: Sequence[Item],
        root: PathLike,
        sae_id: str,
        sae_hash: str,
        *,
        annotator: str | None,
        trait: Trait | None = None,
        blind: bool = False,
    ) -> None:
        if not sae_hash:
            remedy = "give the LabelSet its sae_hash"
            raise WorkbenchError(f"no hash of the weights of {sae_id}", "labels tied to an SAE's weights", remedy)
        self.items = {item.feature: item for item in items}
        self.root, self.sae_id, self.sae_hash = root, sae_id, sae_hash
        self.annotator = clean_name(annotator)
        self.trait, self.blind = trait, blind
        self.order = list(self.items)
        self.is_open = True
        self.problem = ""  # what kept a verdict out of its label file
        self._open = contextlib.ExitStack()
        path = journal_path(set_folder(root, sae_id), self.annotator)
        self.journal = self._open.enter_context(Journal.open(path, annotator=self.annotator))
        with contextlib.ExitStack() as undo:
            undo.callback(self._open.close)
            self.desk = replay(self.journal.events)
            self._begin()
            undo.pop_all()

    def _begin(self) -> None:
        before = self.desk.session.get("sae_hash", self.sae_hash)
        if before != self.sae_hash:
            raise WorkbenchError(
                f"{self.journal.path} was written for the weights {before[:12]}",
                f"a journal for {self.sae_id} with the weights {self.sae_hash[:12]}",
                "move that journal away: feature indices mean nothing across SAEs",
            )
        self._note("session", annotator=self.annotator, sae_id=self.sae_id, sae_hash=self.sae_hash, trait=self.trait_name,
                   blind=self.blind, n_features=len(self.items))  # fmt: skip
        undecided = (f for f in self.order if not self.desk.is_decided(f))
        current = self.desk.current if self.desk.current in self.items else next(undecided, None)
        self._note("show", feature=current)
        filed = [reading for reading in self.desk.readings.values() if reading.feature in self.items]
        for reading in lost(filed, self.root, self.sae_id, annotator=self.annotator):
            reading.filed = False
        self._file()

    def close(self) -> None:
        """Let go of the journal; no action is possible then. Nothing is written here: it is all on the disk already."""
        self.is_open = False
        self._open.close()

    def __enter__(self) -> AnnotationSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------------ what is asked

    @property
    def current(self) -> Item | None:
        """The feature on the screen; None when all are read."""
        return None if self.desk.current is None else self.items[self.desk.current]

    @property
    def trait_name(self) -> str | None:
        """The name of the trait under which categories are chosen."""
        return None if self.trait is None else self.trait.name

    @property
    def categories(self) -> tuple[Category, ...]:
        """The categories of the trait's taxonomy (empty without a trait)."""
        return () if self.trait is None else self.trait.taxonomy

    @property
    def n_read(self) -> int:
        """How many features of the queue have a verdict."""
        return sum(map(self.desk.is_decided, self.order))

    def is_hidden(self, feature: int) -> bool:
        """Whether the proposed label of that feature may not be shown yet."""
        return self.blind and not self.desk.reading(feature).shown

    def allowed(self) -> tuple[str, ...]:
        """The actions that make sense on the present feature (drafts left out)."""
        item = self.current
        if not self.is_open:
            return ()
        if item is None:
            return ("back",)
        if self.is_hidden(item.feature):
            own = ("write", "pass", "unclear")
        else:
            own = ("confirm", "edit", "reject", "unclear") if item.proposed else ("edit", "unclear")
        return (*own, *(("category",) if self.trait else ()), "note", "back", "next")

    # ------------------------------------------------------------------------------------------------ what is done

    def act(self, action: str, value: str | None = None, *, feature: int | None = None) -> None:
        """Take one action on the present feature.

        `value` is the text of "edit", "write", "note" and of a draft, or the id of a "category". `feature`, when given, is the
        feature that the annotator saw: when it is no longer the present one (a key pressed twice), all but walking is refused.

        Raises:
            WorkbenchError: an action that is not possible here, a wording that is none, an unknown category; nothing is changed.
        """
        if action not in ACTIONS:
            raise unknown_name("action", action, ACTIONS)
        if not self.is_open:
            raise WorkbenchError("this session is closed", "an open one", "start it again: it goes on where this one was")
        item = self.current
        stale = feature is not None and (item is None or item.feature != feature)
        if stale and action not in ("back", "next"):
            raise WorkbenchError(f"feature {feature} is no longer the one on the screen", "one key per feature")
        if not action.startswith("draft_") and action not in self.allowed():
            raise _not_possible(action, item, hidden=item is not None and self.is_hidden(item.feature))
        if item is None:
            if action == "back":
                self._note("show", feature=self.order[-1])
            return
        handler: Callable[[Item, str | None], None] = getattr(self, f"_do_{action}")
        handler(item, value)

    def _do_confirm(self, item: Item, value: str | None) -> None:
        assert item.proposed is not None
        self._decide(item, "confirm", item.proposed.label)

    def _do_reject(self, item: Item, value: str | None) -> None:
        assert item.proposed is not None
        self._decide(item, "reject", item.proposed.label)

    def _do_edit(self, item: Item, value: str | None) -> None:
        self._decide(item, "edit", _checked_label(value))

    def _do_unclear(self, item: Item, value: str | None) -> None:
        if self.is_hidden(item.feature):  # what was not seen is not judged
            blind, label = {"trait": self.trait_name, "label": None, "category": UNCLEAR}, UNCLEAR
        else:
            blind, label = self.desk.reading(item.feature).blind, item.proposed.label if item.proposed else UNCLEAR
        self._decide(item, "unclear", label, category=UNCLEAR, blind=blind)

    def _do_write(self, item: Item, value: str | None) -> None:
        self._reveal(item, _checked_label(value))

    def _do_pass(self, item: Item, value: str | None) -> None:
        self._reveal(item, None)

    def _reveal(self, item: Item, label: str | None) -> None:
        """The own words are on the disk before the proposed label is shown; without a proposed one they are the verdict."""
        category = self._chosen(item) or (UNCLEAR if label is None else None)
        self._note("blind", feature=item.feature, trait=self.trait_name, label=label, category=category)
        if item.proposed is None:
            self._do_unclear(item, None) if label is None else self._decide(item, "edit", label)

    def _do_category(self, item: Item, value: str | None) -> None:
        known = [category.id for category in self.categories]
        if value not in (*known, UNCLEAR):
            raise unknown_name("category", str(value), known)
        self._note("category", feature=item.feature, trait=self.trait_name, category=value)

    def _do_note(self, item: Item, value: str | None) -> None:
        self._note("note", feature=item.feature, note=clean_text(value or "", MAX_NOTE))

    def _do_draft_label(self, item: Item, value: str | None) -> None:
        self._draft(item, "label", value)

    def _do_draft_note(self, item: Item, value: str | None) -> None:
        self._draft(item, "note", value)

    def _do_back(self, item: Item, value: str | None) -> None:
        place = self.order.index(item.feature)
        if place == 0:
            raise WorkbenchError("this is the first feature")
        self._note("show", feature=self.order[place - 1])

    def _do_next(self, item: Item, value: str | None) -> None:
        following = self.order[self.order.index(item.feature) + 1 :][:1] or self._undecided_besides(item.feature)
        if not following:
            last = self.desk.is_decided(item.feature)
            if not last:
                raise WorkbenchError("this is the last feature that is not decided")
        self._note("show", feature=following[0] if following else None)

    # ------------------------------------------------------------------------------------------------ how it is kept

    def _decide(self, item: Item, verdict: str, label: str, **given: Any) -> None:
        reading = self.desk.reading(item.feature)
        proposed = self._proposed(item)
        # Only who takes the proposed label over takes its category over.
        taken = proposed["category"] if proposed and verdict == "confirm" else None
        values = {"category": self._chosen(item) or taken, "blind": reading.blind, **given}
        self._note(
            "verdict", feature=item.feature, trait=self.trait_name, verdict=verdict, label=label, note=reading.note,
            proposed=proposed, evidence=None if item.evidence is None else item.evidence.hash,
            next=self._after(item.feature), **values,
        )  # fmt: skip
        self._file()

    def _chosen(self, item: Item) -> str | None:
        """The category that was picked for the feature under the session's trait."""
        return None if self.trait_name is None else self.desk.reading(item.feature).chosen.get(self.trait_name)

    def _proposed(self, item: Item) -> dict[str, Any] | None:
        if item.proposed is None:
            return None
        category = None if self.trait_name is None else item.proposed.category_for(self.trait_name)
        author = dict(item.proposed.author)
        return {"label": item.proposed.label, "trait": self.trait_name, "category": category, "author": author}

    def _after(self, feature: int) -> int | None:
        return next(iter(self._undecided_besides(feature)), None)

    def _undecided_besides(self, feature: int) -> list[int]:
        """The features without a verdict, from the present place on, then from the start."""
        place = self.order.index(feature)
        return [f for f in self.order[place + 1 :] + self.order[:place] if not self.desk.is_decided(f)]

    def _draft(self, item: Item, field: str, text: str | None) -> None:
        kept = None if text is None else clean_text(text, MAX_NOTE, strip=False)
        self._note("draft", feature=item.feature, field=field, text=kept)

    def _note(self, event: str, **values: Any) -> None:
        self.desk.take(self.journal.append({"event": event, **values}))

    def _file(self) -> None:
        """Every verdict that is not in its label file yet is written there; what stands in the way is told, not raised."""
        self.problem = ""
        for reading in list(self.desk.readings.values()):
            if reading.verdict is None or reading.filed or reading.feature not in self.items:
                continue
            try:
                self._file_one(reading)
            except WorkbenchError as error:
                self.problem = f"in the journal, but not in the label file: {error}"

    def _file_one(self, reading: Reading) -> None:
        item = self.items[reading.feature]
        file_verdict(reading, item, self.root, self.sae_id, self.sae_hash, annotator=self.annotator)
        self._note("filed", feature=reading.feature, status=STATUS_OF[reading.verdict or "unclear"])


def _checked_label(text: str | None) -> str:
    label = clean_text(text or "", MAX_NOTE)
    if problem := label_problem(label):
        raise WorkbenchError(problem, f"one line of at most {MAX_WORDS} words", "shorten it; details belong in the note")
    return label


def _not_possible(action: str, item: Item | None, *, hidden: bool) -> WorkbenchError:
    if item is None:
        return WorkbenchError("all features are read", "back, or the end of the session")
    if hidden:
        return WorkbenchError("the proposed label is hidden", "your own label first", "write it, or pass")
    if action in ("write", "pass"):
        return WorkbenchError("the proposed label is shown already", "confirm, edit, reject or unclear")
    if action == "category":
        return WorkbenchError("no trait was chosen, so there are no categories", "--trait")
    return WorkbenchError("nobody proposed a label for this feature", "your own label, or unclear")

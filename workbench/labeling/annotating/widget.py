"""The annotation session in a notebook: an anywidget whose screen is the module annotate.js. Needs the extra `notebook`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import anywidget
import traitlets

from workbench.base.errors import WorkbenchError
from workbench.labeling.annotating.session import AnnotationSession
from workbench.labeling.annotating.view import view


class AnnotationWidget(anywidget.AnyWidget):
    """Shows a session and takes what the person does.

    `state` is `view.view` with "acknowledged": for each screen the id of its last action that is on the disk. `outbox` are the
    actions that have not been seen acknowledged, {"screen", "id", "action", "value", "feature"}: a list, because a front end
    merges changes that come faster than they are sent, and no key may be lost by that. Several screens may show one widget (two
    tabs of a notebook); each counts its own actions.
    """

    _esm = Path(__file__).with_name("annotate.js")
    state = traitlets.Dict().tag(sync=True)
    outbox = traitlets.List().tag(sync=True)
    _holders: ClassVar[dict[Path, AnnotationWidget]] = {}

    def __init__(self, session: AnnotationSession, **options: Any) -> None:
        self.session = session
        self._acknowledged: dict[str, int] = {}
        super().__init__(state=self._state(), **options)
        self.observe(self._received, "outbox")
        self._holders[session.journal.path] = self

    @classmethod
    def release(cls, journal: Path) -> None:
        """End the session of this process that holds that journal, if there is one: a cell that is run again takes over."""
        if (widget := cls._holders.pop(journal, None)) is not None:
            widget.close_session()

    def close_session(self) -> None:
        """Let go of the journal. The screen stays, and says that it is over."""
        self.session.close()
        self.state = self._state("this session is closed")

    def close(self) -> None:
        """Close the widget, and the session with it."""
        if self._holders.get(self.session.journal.path) is self:
            del self._holders[self.session.journal.path]
        self.session.close()
        super().close()

    def _received(self, change: Any) -> None:
        fresh = [one for one in change["new"] if _is_action(one) and one["id"] > self._acknowledged.get(one["screen"], 0)]
        message = ""
        for one in sorted(fresh, key=lambda one: one["id"]):
            try:
                self.session.act(one["action"], one["value"], feature=one["feature"])
            except WorkbenchError as error:
                message = str(error)
            self._acknowledged[one["screen"]] = one["id"]
        if fresh:
            self.state = self._state(message)

    def _state(self, message: str = "") -> dict[str, Any]:
        return {**view(self.session, message), "acknowledged": dict(self._acknowledged)}


def _is_action(one: Any) -> bool:
    """Whether a message of the front end is of the form that it should have."""
    return (
        isinstance(one, dict)
        and set(one) == {"screen", "id", "action", "value", "feature"}
        and isinstance(one["screen"], str)
        and type(one["id"]) is int
        and (one["feature"] is None or type(one["feature"]) is int)
        and isinstance(one["action"], str)
        and (one["value"] is None or isinstance(one["value"], str))
    )

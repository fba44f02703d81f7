"""What is different in the kernel of a notebook: one quiet display of progress, and interrupts that are told in two lines."""

from __future__ import annotations

import sys
import threading
import time
from html import escape
from typing import Any

REFRESH_SECONDS = 0.25


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")  # asked only if it is loaded: importing it takes a second
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and type(shell).__name__ == "ZMQInteractiveShell"


class Interrupted(KeyboardInterrupt):
    """Kernel > Interrupt while something was under way; a notebook shows `str(...)` instead of a traceback."""

    def __init__(self, label: str, counted: str) -> None:
        super().__init__(label, counted)
        self.label, self.counted = label, counted

    def __str__(self) -> str:
        return (
            f"Interrupted: {self.label}, {self.counted}.\n"
            "Run the cell again to go on: what was finished in a run folder is taken from there."
        )

    def _render_traceback_(self) -> list[str]:
        """IPython prints this in place of the traceback."""
        return str(self).splitlines()


class Bars:
    """All bars that are open, in one output that is updated in place and empty again when the last one has closed."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._open: list[Bar] = []
        self._handle: Any = None
        self._drawn_at = 0.0

    def add(self, label: str, total: int | None, counted: Any) -> Bar:
        """Open a bar; `counted(done, total)` words its count."""
        bar = Bar(self, label, total, counted)
        with self._lock:
            self._open.append(bar)
        self.draw()
        return bar

    def remove(self, bar: Bar) -> None:
        """Close a bar."""
        with self._lock:
            self._open.remove(bar)
        self.draw(always=True)

    def draw(self, *, always: bool = False) -> None:
        """Show how far everything is, at most four times a second."""
        from IPython.display import display

        with self._lock:
            now = time.monotonic()
            if not always and now - self._drawn_at < REFRESH_SECONDS:
                return
            self._drawn_at = now
            text = "\n".join(bar.text() for bar in self._open)
            html = "".join(bar.html() for bar in self._open)
            bundle = {"text/html": html, "text/plain": text} if self._open else {"text/plain": ""}
            if self._handle is not None:
                self._handle.update(bundle, raw=True)
            elif self._open:
                self._handle = display(bundle, raw=True, display_id=True)
            if not self._open:
                self._handle = None


class Bar:
    """One label with its count, its time, and the time left."""

    def __init__(self, bars: Bars, label: str, total: int | None, counted: Any) -> None:
        self.bars, self.label, self.total, self.counted = bars, label, total, counted
        self.done, self.note, self.started = 0, "", time.monotonic()

    def step(self, n: int = 1, note: str = "") -> None:
        """`n` more are done."""
        self.done, self.note = self.done + n, note or self.note
        self.bars.draw()

    def close(self) -> None:
        """Take the bar away."""
        self.bars.remove(self)

    def text(self) -> str:
        """The bar as one line."""
        from .progress import duration

        elapsed = time.monotonic() - self.started
        parts = [f"{self.label}: {self.counted(self.done, self.total)}", duration(elapsed)]
        if self.total and self.done:
            parts.append(f"about {duration(elapsed * max(self.total - self.done, 0) / self.done)} left")
        return ", ".join([*parts, *([self.note] if self.note else [])])

    def html(self) -> str:
        """The bar as one line of HTML."""
        bounds = f' max="{self.total}" value="{min(self.done, self.total)}"' if self.total else ""
        return f'<div><progress style="width:16em;vertical-align:middle"{bounds}></progress> {escape(self.text())}</div>'

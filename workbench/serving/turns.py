"""One piece of work on the model at a time, a short queue, and a clear refusal beyond that."""

from __future__ import annotations

import threading
from collections.abc import Callable

from workbench.base.errors import WorkbenchError


class Busy(WorkbenchError):
    """The model is at work and the queue is full (`status` 429), or it took too long to get a turn (503)."""

    def __init__(self, status: int, found: str) -> None:
        super().__init__(found, "one piece of work at a time", "wait until it is done, or stop it")
        self.status = status


class Turns:
    """Who may use the model. At most `waiting` callers wait, none longer than `patience` seconds."""

    def __init__(self, *, waiting: int = 4, patience: float = 30.0) -> None:
        self.waiting, self.patience = waiting, patience
        self._model = threading.Semaphore(1)
        self._door = threading.Lock()
        self._inside = 0

    @property
    def n_inside(self) -> int:
        """Who works and who waits, together."""
        return self._inside

    def take(self) -> Callable[[], None]:
        """Wait for the turn; the function that ends it comes back (calling it again does nothing). Raises Busy."""
        with self._door:
            if self._inside > self.waiting:
                raise Busy(429, f"the model is at work and {self.waiting} requests are waiting already")
            self._inside += 1
        if not self._model.acquire(timeout=self.patience):
            self._leave()
            raise Busy(503, f"the model has been at work for more than {self.patience:.0f} seconds")
        ended = threading.Lock()

        def end() -> None:
            if ended.acquire(blocking=False):
                self._model.release()
                self._leave()

        return end

    def _leave(self) -> None:
        with self._door:
            self._inside -= 1

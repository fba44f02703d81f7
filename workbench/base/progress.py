"""One progress helper for everything that takes a while: label, count with unit, elapsed time and time left.

On a terminal a bar (on standard error), in a notebook one line that is updated in place and gone at the end; otherwise silent,
unless WORKBENCH_PROGRESS=1 asks for a plain line now and then (for logs). WORKBENCH_PROGRESS=0 or `set_quiet(True)` silences
everything. An interrupt in a notebook is told in words (`notebooks.Interrupted`).
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from .notebooks import Bars, Interrupted, in_notebook

Step = Callable[..., None]

_lock = threading.RLock()
_timings: dict[str, float] = {}
_quiet = False
_shared: Any = None  # one rich Progress for all nested and parallel bars: two live displays would fight
_n_open = 0
_bars = Bars()  # those of a notebook


def set_quiet(quiet: bool) -> None:
    """Silence every progress display from now on (or allow it again)."""
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    """Whether `set_quiet(True)` is in force."""
    return _quiet


def timings() -> dict[str, float]:
    """Seconds spent under each label so far in this process (a repeated label adds up)."""
    with _lock:
        return dict(_timings)


@contextlib.contextmanager
def track(label: str, total: int | None, unit: str = "items") -> Iterator[Step]:
    """A context that yields `step(n=1, note="")`; call it whenever `n` more `unit` are done.

    A `note` (the loss of a training step, say) is shown behind the label until the next one.

    `total` None means unknown: a count and the elapsed time are shown instead of a bar and the time left.

    >>> with track("capture", 3, "rows") as step:
    ...     for _ in range(3):
    ...         step()
    """
    started = time.perf_counter()
    try:
        with _display(label, total, unit) as step:
            yield step
    finally:
        with _lock:
            _timings[label] = _timings.get(label, 0.0) + time.perf_counter() - started


def _display(label: str, total: int | None, unit: str) -> contextlib.AbstractContextManager[Step]:
    wish = os.environ.get("WORKBENCH_PROGRESS", "")
    if in_notebook():
        return _in_cell(label, total, unit, shown=not _quiet and wish != "0")
    if _quiet or wish == "0":
        return contextlib.nullcontext(_silent)
    if _interactive():
        return _bar(label, total, unit)
    return _lines(label, total, unit) if wish else contextlib.nullcontext(_silent)


def _silent(n: int = 1, note: str = "") -> None:
    pass


def _interactive() -> bool:
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


@contextlib.contextmanager
def _in_cell(label: str, total: int | None, unit: str, *, shown: bool) -> Iterator[Step]:
    """A bar in the output of a cell; an interrupt is told in words, whether the bar is shown or not."""
    bar = _bars.add(label, total, lambda done, whole: _count(done, whole, unit)) if shown else None
    done = 0

    def step(n: int = 1, note: str = "") -> None:
        nonlocal done
        done += n
        if bar is not None:
            bar.step(n, note)

    try:
        yield step
    except Interrupted:
        raise  # told by the innermost bar
    except KeyboardInterrupt as stop:
        raise Interrupted(label, _count(done, total, unit)) from stop
    finally:
        if bar is not None:
            bar.close()


@contextlib.contextmanager
def _bar(label: str, total: int | None, unit: str) -> Iterator[Step]:
    progress = _open_shared()
    task = progress.add_task(label, total=total, unit=unit)

    def step(n: int = 1, note: str = "") -> None:
        progress.advance(task, n)
        if note:
            progress.update(task, description=f"{label} ({note})")

    try:
        yield step
    finally:
        _close_shared(progress, task)


def _open_shared() -> Any:
    global _shared, _n_open
    with _lock:
        if _shared is None:
            _shared = _new_progress()
            _shared.start()
        _n_open += 1
        return _shared


def _close_shared(progress: Any, task: Any) -> None:
    global _shared, _n_open
    with _lock:
        _n_open -= 1
        progress.stop_task(task)
        if _n_open:
            return
        progress.stop()
        _shared = None


def _new_progress() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        _count_column(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        refresh_per_second=5,
        speed_estimate_period=120.0,
    )


def _count_column() -> Any:
    from rich.progress import ProgressColumn
    from rich.text import Text

    class CountColumn(ProgressColumn):
        """`120/500 rollouts`, or `120 rollouts` when the total is not known."""

        def render(self, task: Any) -> Text:
            return Text(_count(int(task.completed), task.total, task.fields["unit"]))

    return CountColumn()


def _count(done: int, total: float | None, unit: str) -> str:
    return f"{done:,} {unit}" if total is None else f"{done:,}/{int(total):,} {unit}"


@contextlib.contextmanager
def _lines(label: str, total: int | None, unit: str) -> Iterator[Step]:
    """A line at the start, then after 10 s, 20 s, 40 s, ... up to one per minute, and one at the end."""
    started = time.perf_counter()
    done, pause, next_line, latest = 0, 10.0, 10.0, ""

    def step(n: int = 1, note: str = "") -> None:
        nonlocal done, pause, next_line, latest
        done, latest = done + n, note or latest
        elapsed = time.perf_counter() - started
        if elapsed >= next_line:
            _say(_line(label, done, total, unit, elapsed) + (f"; {latest}" if latest else ""))
            pause = min(2 * pause, 60.0)
            next_line = elapsed + pause

    _say(f"{label}: {_count(0, total, unit)}")
    try:
        yield step
    finally:
        _say(f"{label}: {_count(done, total, unit)} in {duration(time.perf_counter() - started)}")


def _line(label: str, done: int, total: int | None, unit: str, elapsed: float) -> str:
    text = f"{label}: {_count(done, total, unit)}, {duration(elapsed)}"
    if total and done:
        text += f", about {duration(elapsed * max(total - done, 0) / done)} left"
    return text


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Seconds in words: "0.4 s", "12 s", "3 min 20 s", "2 h 5 min".

    >>> duration(200)
    '3 min 20 s'
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"

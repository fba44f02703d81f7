"""Keys from a person: single ones from a terminal, whole lines from anything else. Standard library only."""

from __future__ import annotations

import codecs
import contextlib
import os
import select
import sys
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TextIO

END, ENTER, ESCAPE, BACKSPACE, CLEAR, LEFT, RIGHT = "end", "enter", "escape", "backspace", "clear", "left", "right"

_NAMED = {"\x04": END, "\r": ENTER, "\n": ENTER, "\x7f": BACKSPACE, "\x08": BACKSPACE, "\x15": CLEAR}
_SEQUENCES = {"\x1b": ESCAPE, "\x1b[D": LEFT, "\x1b[C": RIGHT, "\x1bOD": LEFT, "\x1bOC": RIGHT}
_AFTER_ESCAPE = 0.05  # seconds within which the rest of an arrow key arrives


class Keys(Protocol):
    """Where keys come from."""

    def read(self) -> str:
        """The next key: a character, or one of the names above (`END`: nothing more will come)."""
        ...

    def line(self, prompt: str, text: str, changed: Callable[[str], None]) -> str | None:
        """A line of text, beginning with `text`; `changed` is told every state of it. None: given up."""
        ...


@contextlib.contextmanager
def open_keys(stdin: TextIO | None = None, out: TextIO | None = None) -> Iterator[Keys]:
    """Single keys when `stdin` is a terminal that allows it, lines otherwise; the terminal is left as it was found."""
    source, target = stdin or sys.stdin, out or sys.stdout
    try:
        import termios
        import tty

        before: Any = termios.tcgetattr(source.fileno()) if source.isatty() else None
    except (ImportError, OSError, ValueError):  # Windows; a stream without a descriptor
        before = None
    if before is None:
        yield LineKeys(source, target)
        return
    tty.setcbreak(source.fileno())
    try:
        yield TerminalKeys(source.fileno(), target)
    finally:
        termios.tcsetattr(source.fileno(), termios.TCSADRAIN, before)


class LineKeys:
    """One line per key or text: what a pipe, a plain console or a screen reader's line mode gives."""

    def __init__(self, source: TextIO, out: TextIO):
        self.source, self.out = source, out

    def read(self) -> str:
        while line := self.source.readline():
            if key := line.strip():
                return key[0] if key not in (LEFT, RIGHT, END) else key
        return END

    def line(self, prompt: str, text: str, changed: Callable[[str], None]) -> str | None:
        shown = f"{prompt}[{text}] " if text else prompt
        print(shown, end="", file=self.out, flush=True)
        given = self.source.readline()
        return (given.strip() or text) if given else None


class TerminalKeys:
    """Single keys from a terminal in cbreak mode; Ctrl-C stays an interrupt."""

    def __init__(self, descriptor: int, out: TextIO):
        self.descriptor, self.out = descriptor, out
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._waiting: list[str] = []

    def read(self) -> str:
        if not self._waiting:
            self._fill()
        if not self._waiting:
            return END
        key = self._waiting.pop(0)
        return _NAMED.get(key, key) if key != "\x1b" else self._sequence()

    def _fill(self) -> None:
        text = ""
        while not text:
            try:
                data = os.read(self.descriptor, 1024)
            except OSError:  # the terminal is gone
                return
            if not data:
                return
            text = self._decoder.decode(data)
        self._waiting.extend(text)

    def _sequence(self) -> str:
        """The key that an escape sequence stands for; an unknown one does nothing ("")."""
        if not self._waiting and select.select([self.descriptor], [], [], _AFTER_ESCAPE)[0]:
            self._fill()
        text = "\x1b"
        if self._waiting and self._waiting[0] in "[O":
            text += self._waiting.pop(0)
            while self._waiting:
                text += self._waiting.pop(0)
                if text[-1].isalpha() or text[-1] == "~":
                    break
        return _SEQUENCES.get(text, "")

    def line(self, prompt: str, text: str, changed: Callable[[str], None]) -> str | None:
        while True:
            self._draw(prompt, text)
            key = self.read()
            if key in (ENTER, ESCAPE, END):
                print(file=self.out, flush=True)
                return text if key == ENTER else None
            edited = _edited(text, key)
            if edited != text:
                text = edited
                changed(text)

    def _draw(self, prompt: str, text: str) -> None:
        """The line drawn anew; of a text that is too long, its end."""
        from rich.cells import cell_len

        try:
            columns = os.get_terminal_size(self.descriptor).columns
        except OSError:
            columns = 0
        shown, room = text, (columns or 80) - 1  # some terminals say that they have no columns
        while shown and cell_len(prompt + shown) > max(room, len(prompt) + 8):
            shown = shown[1:]
        print(f"\r\x1b[K{prompt}{shown}", end="", file=self.out, flush=True)


def _edited(text: str, key: str) -> str:
    if key == BACKSPACE:
        return text[:-1]
    if key == CLEAR:
        return ""
    return text + key if len(key) == 1 and key.isprintable() else text

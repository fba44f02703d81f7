"""Errors that tell the reader what was found, what was expected and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class WorkbenchError(Exception):
    """A problem the user can fix, told in three parts: found, expected, remedy.

    `str(error)` joins the parts that are given into sentences. The command line prints them without a traceback
    and ends with `exit_code`.

    >>> str(WorkbenchError("the file is empty", "a trait file", "run `workbench traits new NAME`"))
    'The file is empty. Expected: a trait file. Run `workbench traits new NAME`.'
    """

    exit_code = 2

    def __init__(self, found: str, expected: str = "", remedy: str = "") -> None:
        super().__init__(found, expected, remedy)
        self.found = found
        self.expected = expected
        self.remedy = remedy

    def __str__(self) -> str:
        expected = f"Expected: {self.expected}" if self.expected else ""
        return " ".join(_sentence(part) for part in (self.found, expected, self.remedy) if part)

    def _render_traceback_(self) -> list[str]:
        """A notebook prints this in place of the traceback: the three parts say more than where they were raised."""
        return [f"{type(self).__name__}: {self}"]


class CheckFailed(WorkbenchError):
    """What was asked for was done, or looked at first, and the answer is no: a strict check that does not pass."""

    exit_code = 1


def _sentence(text: str) -> str:
    text = text.strip()
    closed = text if text.endswith((".", "!", "?")) else text + "."
    # Only a plain word is capitalised: `code`, file names and "blocks.3" keep their spelling.
    first_word = closed.split()[0].rstrip(",;:.!?")
    return closed[0].upper() + closed[1:] if first_word.isalpha() and first_word.islower() else closed


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """All `known` names, the most similar to `name` first (ties keep the alphabetical order)."""

    def similarity(candidate: str) -> float:
        return difflib.SequenceMatcher(None, name.lower(), candidate.lower()).ratio()

    return sorted(sorted(known), key=similarity, reverse=True)


def is_close(name: str, known: str) -> bool:
    """Whether `name` may well be a misspelling of `known`."""
    return bool(difflib.get_close_matches(name.lower(), [known.lower()], cutoff=0.5))


def unknown_name(kind: str, name: str, known: Iterable[str], *, remedy: str = "", limit: int = 8) -> WorkbenchError:
    """The error for a name that nobody knows; lists the known ones, nearest first (at most `limit`)."""
    ordered = nearest(str(name), known)
    if not ordered:
        return WorkbenchError(f"there is no {kind} {name!r}", f"a known {kind}, but none is known here", remedy)
    listed = ", ".join(ordered[:limit])
    more = f" and {len(ordered) - limit} more" if len(ordered) > limit else ""
    advice = remedy or (f"did you mean {ordered[0]!r}?" if is_close(str(name), ordered[0]) else "choose one of them")
    return WorkbenchError(f"there is no {kind} {name!r}", f"one of {listed}{more}", advice)

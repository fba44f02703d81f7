"""Words in text: what a word is, and the word around a context's peak."""

from __future__ import annotations

import re
from collections.abc import Iterable

from workbench.labeling.evidence import Context

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")

#: Words too common to say anything about a feature.
_COMMON = """
a about after all also am an and any are as at be been being but by can could did do does for from had has have he her
here him his how i if in into is it its just me more most my no nor not of on or other our out over own s she so some
such t than that the their them then there these they this those to too up us very was we were what when where which
while who whom why will with would you your
"""
STOP_WORDS = frozenset(_COMMON.split())


def words_of(text: str) -> list[str]:
    """The words of a text in lower case; punctuation is not a word."""
    return [match.group().lower().replace("’", "'") for match in _WORD.finditer(text)]


def peak_word(context: Context) -> str:
    """The word that contains the marked token (in lower case), or the token itself when it is punctuation."""
    start = len("".join(context.tokens[: context.peak]))
    token = context.tokens[context.peak]
    begin, end = start + len(token) - len(token.lstrip()), start + len(token.rstrip())
    for match in _WORD.finditer(context.text):
        if match.start() < end and match.end() > begin:
            return match.group().lower().replace("’", "'")
    return token.strip()


def nearby_words(context: Context, *, window: int = 8) -> list[str]:
    """The words that reach into the `window` tokens on either side of the peak, whole, the peak's own included."""
    first = max(context.peak - window, 0)
    start = len("".join(context.tokens[:first]))
    stop = len("".join(context.tokens[: context.peak + window + 1]))
    found = (match for match in _WORD.finditer(context.text) if match.start() < stop and match.end() > start)
    return [match.group().lower().replace("’", "'") for match in found]


def without_stop_words(words: Iterable[str]) -> list[str]:
    """The words that may say something: no stop words, no single letters."""
    return [word for word in words if word not in STOP_WORDS and len(word) > 1]

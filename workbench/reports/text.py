"""Text that came from a model, a file or a user, made safe to show (before any HTML escaping, which comes after)."""

from __future__ import annotations

import unicodedata

MAX_CHARACTERS = 4_000
MAX_TOKEN = 60
# These change how the text around them is ordered or split (see UAX 9); they are shown by their number instead.
_INVISIBLE = {"Cf", "Cc", "Cs", "Co", "Cn", "Zl", "Zp"}
_SHOWN = {"\n": "↵", "\r": "␍", "\t": "⇥"}


def clean(value: object, *, limit: int = MAX_CHARACTERS) -> str:
    """The text with control, format and bidi characters and lone surrogates spelled out, and cut at `limit`."""
    text = str(value)
    cut = text if len(text) <= limit else text[:limit] + f"… ({len(text):,} characters)"
    if cut.isascii() and cut.isprintable():
        return cut
    return "".join(_visible(character) for character in cut)


def clean_token(token: object) -> str:
    """One token of a context: line ends become signs, very long tokens are cut."""
    return clean(token, limit=MAX_TOKEN)


def _visible(character: str) -> str:
    if character in _SHOWN:
        return _SHOWN[character]
    if character.isascii() and character.isprintable():
        return character
    if unicodedata.category(character) in _INVISIBLE:
        return f"‹U+{ord(character):04X}›"
    return character


def readable(identifier: str) -> str:
    """`insulting_language -> Insulting language`: the name of a category whose taxonomy is not at hand."""
    return clean(identifier).replace("_", " ").strip().capitalize()

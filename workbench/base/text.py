"""Texts on their way in (what a person typed) and out to a screen (what a model or a file said)."""

from __future__ import annotations

import unicodedata

_SHOWN = {"\n": "↵", "\r": "␍", "\t": "⇥", "\x7f": "␡"}
_TURNING = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def clean_text(text: str, limit: int, *, strip: bool = True) -> str:
    """What a person typed, on one line, without control characters, at most `limit` characters."""
    kept = "".join(" " if c in "\n\r\t" else c for c in text if c in "\n\r\t" or not is_control(c))
    return (" ".join(kept.split()) if strip else kept)[:limit]


def visible(text: str) -> str:
    """The text with its control characters as signs, so that no screen obeys them: "\\n" is shown as ↵, ESC as ␛."""
    return "".join(_sign(c) if is_control(c) else c for c in text)


def visible_lines(text: str) -> str:
    """`visible`, with the ends of lines kept."""
    return "\n".join(map(visible, text.split("\n")))


def is_control(c: str) -> bool:
    """Control characters, surrogates, line separators, and the format characters that turn the direction of a text."""
    return unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in _TURNING


def _sign(c: str) -> str:
    if c in _SHOWN:
        return _SHOWN[c]
    return chr(0x2400 + ord(c)) if ord(c) < 0x20 else f"\\u{ord(c):04x}"

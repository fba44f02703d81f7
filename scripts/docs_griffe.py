"""An extension of griffe, the reader behind the Python reference: examples in docstrings (`>>> ...`) become code."""

from __future__ import annotations

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^>>> .*(?:\n(?!\s*$).+)*", re.MULTILINE)


class Examples(griffe.Extension):
    """Fences every block that begins with `>>>` and ends before an empty line."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
    """`text` with its examples in code blocks; other lines stay as they are."""
    return _EXAMPLE.sub(lambda match: f"```pycon\n{match[0]}\n```", text)

"""What `runs clean` and `cache clean` say: what was deleted, or could be, and what is in use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def show_freed(names: tuple[str, str], rows: Sequence[tuple[str, str, int, str]], value: Mapping[str, Any]) -> None:
    """`rows` of (name, part, bytes, how it comes back), then `value`'s {bytes, deleted, in_use: {name: by whom}}."""
    from workbench.base.sizes import size_text

    from ..console import say, table

    if rows:
        table("", (*names, "size", "how it comes back"), [(*row[:2], size_text(row[2]), row[3]) for row in rows], right=(2,))
    for name, holder in value["in_use"].items():
        say(f"{name} is left alone: {holder}")
    done = "deleted" if value["deleted"] else "could be deleted; --yes does it"
    say(f"{size_text(value['bytes'])} {done}" if rows else "nothing to clean")

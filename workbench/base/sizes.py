"""Sizes of memory as people write them: 4GiB, 800MB, 1.5e9."""

from __future__ import annotations

import re

from .errors import WorkbenchError

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_UNITS |= {
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
    "k": 2**10,
    "m": 2**20,
    "g": 2**30,
    "t": 2**40,
}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?(?:e\d+)?)\s*([a-z]*)\s*", re.IGNORECASE)


def parse_size(text: str | int) -> int:
    """Bytes of "4GiB" (2**30), "800MB" (10**6), "4G" (binary) or a plain number; refuses what is none, or 0.

    >>> parse_size("1.5KiB")
    1536
    """
    found = _SIZE.fullmatch(str(text))
    if (
        found is None
        or found[2].lower() not in _UNITS
        or not (size := int(float(found[1]) * _UNITS[found[2].lower()]))
    ):
        raise WorkbenchError(
            f"the memory size is {text!r}", "a number with a unit", "write it like 4GiB or 800MB"
        )
    return size


def size_text(size: float) -> str:
    """Bytes in the largest binary unit that leaves a number above 1.

    >>> size_text(3 * 2**29)
    '1.5 GiB'
    """
    unit, name = next(((2**power, name) for power, name in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB"))
                       if abs(size) >= 2**power), (1, "B"))  # fmt: skip
    return f"{size / unit:.1f} {name}" if unit > 1 else f"{size:.0f} B"

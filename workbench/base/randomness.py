"""Seeds derived from what they are for, and generators made from them; nothing here seeds globally."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive_seed(*parts: object) -> int:
    """A seed in [0, 2^63) from the `repr` of the parts: the same parts give the same seed on every machine.

    >>> derive_seed("rollouts", 0, "evil") == derive_seed("rollouts", 0, "evil")
    True
    """
    text = "\x1f".join(repr(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big") >> 1


def generator(seed: int, *, device: str = "cpu") -> torch.Generator:
    """A torch generator seeded with `seed`."""
    import torch

    return torch.Generator(device=device).manual_seed(seed)

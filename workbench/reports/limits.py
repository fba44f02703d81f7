"""Bounds of a page, in a module that costs nothing to import."""

from __future__ import annotations

MAX_TRAITS = 7
"""Traits on one page."""

"""Fixtures around the planted world."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.decomposition.planted_world import DOWN, UP, World, make_world


@pytest.fixture
def planted(tmp_path: Path) -> Callable[..., World]:
    """Build a planted world in a temporary folder; the planted changes are UP and DOWN unless told otherwise."""
    return lambda **options: make_world(tmp_path / "run", **{"up": UP, "down": DOWN, **options})

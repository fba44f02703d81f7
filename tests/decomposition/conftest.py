"""Fixtures around the planted world."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.decomposition.planted_world import DOWN, UP, World, make_world


def _maker(folder: Path) -> Callable[..., World]:
    return lambda **options: make_world(folder / "run", **{"up": UP, "down": DOWN, **options})


@pytest.fixture
def planted(tmp_path: Path) -> Callable[..., World]:
    """Build a planted world in a temporary folder; the planted changes are UP and DOWN unless told otherwise."""
    return _maker(tmp_path)


@pytest.fixture(scope="module")
def shared_planted(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., World]:
    """The same for one world that several tests only read."""
    return _maker(tmp_path_factory.mktemp("world"))

"""A small planted world for quick experiments."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from workbench.lab import Difficulty


@pytest.fixture
def small() -> Callable[..., Difficulty]:
    """A difficulty of 48 features and 12 questions; what is given changes."""

    def make(name: str = "small", **changes: object) -> Difficulty:
        given: dict = {"n_features": 48, "d_model": 56, "n_planted": 6, "n_questions": 12, "n_tokens": 12, **changes}
        return Difficulty(name, "for tests", **given)

    return make

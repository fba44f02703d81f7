from __future__ import annotations

import pytest

from tests.serving.world import Served, World, make_world, serving, small


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def served(world, tmp_path_factory):
    """An explorer on the run, without an index; verdicts go to a folder of this module."""
    labels = tmp_path_factory.mktemp("labels")
    with serving(world.explorer(labels=labels, limits=small())) as running:
        yield running


@pytest.fixture
def client(served: Served):
    with served.client() as made:
        yield made

"""A training run that is killed ends with the same files as one that nobody interrupted, and reading a store stays small."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import saes_evidence

    yield saes_evidence
    sys.modules.pop("saes_evidence", None)


def test_a_killed_training_run_ends_identical(script) -> None:
    found = script.killed(1, seed=3)
    assert found["identical"] == found["kills"] == 1
    assert len(found["files"]) == 6


@pytest.mark.stress
def test_training_runs_killed_at_ten_random_steps_end_identical(script) -> None:
    assert script.killed(10, seed=4)["identical"] == 10


@pytest.mark.stress
def test_memory_stays_flat_while_the_store_grows_tenfold(script) -> None:
    assert script.memory()["ratio"] < 1.1


def test_every_sae_of_the_shelf_has_a_row(script) -> None:
    rows, inputs = script.shelf()
    assert rows and len(rows) == len(inputs)
    assert all(row["variance_explained"] > 0 for row in rows)

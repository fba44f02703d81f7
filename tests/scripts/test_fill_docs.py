"""The tables of the docs say which figures rest on a judge that nobody validated, and from how many draws a bound comes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "fill_docs.py"
N_UNVALIDATED = 6


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("fill_docs", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("table", "marks"), [("personas_table", 1), ("common_table", 1), ("controls_table", 3), ("geometry_table", 1)]
)
def test_every_row_but_evils_is_marked_where_a_judge_had_a_part(script, table, marks):
    rows = [line for line in getattr(script, table)().splitlines() if line.startswith("| ")][1:]
    marked = {row.split("|")[1].strip(): row.count("(unvalidated)") for row in rows}
    assert marked.pop("evil") == 0
    assert list(marked.values()) == [marks] * N_UNVALIDATED


def test_outcomes_without_a_judge_are_unvalidated_as_well(script):
    assert "unvalidated" in script.outcomes_table().splitlines()[1]


def test_the_transfer_table_says_from_how_many_draws_its_bounds_come(script):
    assert script.transfer_table().splitlines()[1].count("(bound from 8)") == 2

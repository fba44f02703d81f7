"""What the docs say of vectors with and without the judge's filter, and of what beats the words alone."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "fill_docs.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("fill_docs", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_both_counts_stand_under_the_table_of_the_filter(script):
    traits = script.evidence("personas")["traits"]
    blocks = sum(1 + (row["common"] is not None) for row in traits.values())
    lines = [line for line in script.unfiltered_table().splitlines() if line]
    assert len(lines) == 2 + blocks + 1
    kept = sum(row["passes"] for row in traits.values())
    bare = sum(row["unfiltered"]["passes"] for row in traits.values())
    assert f"{kept} of {len(traits)} vectors pass with the filter and {bare} of {len(traits)} without it" in lines[-1]


def test_no_trait_that_fails_its_gate_counts_as_better_than_words(script):
    for row in script.evidence("personas")["traits"].values():
        for one in (row, row["common"] or row):
            assert not one["beats_text"] or (one["passes"] and one["auc_stripped"] > script._text_only(one))


def test_the_aim_with_evaluation_questions_held_fixed_names_its_traits(script):
    met = [name for name, row in script.evidence("personas")["traits"].items()
           if row["auc_interval_fixed_questions"][0] > row["auc_random_q95"]]  # fmt: skip
    assert script.fixed_questions().startswith(f"{len(met)} of ") and all(name in script.fixed_questions() for name in met)

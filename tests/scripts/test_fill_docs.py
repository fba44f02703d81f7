"""The tables of the docs say what their figures rest on: judges that nobody validated, filters, numbers of draws."""

from __future__ import annotations

from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
N_UNVALIDATED = 6


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import fill_docs

    return fill_docs


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

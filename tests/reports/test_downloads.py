"""The tables to download, read back by the csv module and by pandas."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pandas as pd
import pytest

from tests.reports.example import example_labels, example_vector
from tests.reports.studied import full_report, known_parts, other_trait
from workbench.reports.content import report
from workbench.reports.downloads import EXAMPLES, FEATURES, MADE_OF, OVERLAP, tables, to_csv
from workbench.reports.several import trait_reports

FORMULAS = ("=1+1", "+SUM(A1)", "-2+3", "@cmd", "\t=1", "  =1", "＝1")
HOSTILE = (*FORMULAS, "a,b", 'say "hi"', "two\nlines", "\u202ereversed", "lone\ud800")


@pytest.fixture(scope="module")
def full():
    return full_report()


@pytest.fixture(scope="module")
def read(full) -> dict[str, pd.DataFrame]:
    found = tables(full).items()
    return {name: pd.read_csv(io.StringIO(text)) for name, text in found}


def test_the_tables_have_the_columns_they_name(read):
    assert {name: tuple(frame.columns) for name, frame in read.items()} == {
        "features.csv": FEATURES, "made_of.csv": MADE_OF, "examples.csv": EXAMPLES,
    }  # fmt: skip


def test_every_number_of_the_features_comes_back_exactly(full, read):
    frame = read["features.csv"]
    assert frame["feature"].tolist() == [row["feature"] for row in full.features]
    for name in ("share", "q_value", "q_crossed", "placebo_q", "cosine", "pursuit", "causal_odd", "causal_q", "damage"):
        for read_back, row in zip(frame[name], full.features, strict=True):
            assert (None if pd.isna(read_back) else read_back) == row[name]
    for row, (_, cells) in zip(full.features, frame.iterrows(), strict=True):
        assert [cells["share_low"], cells["share_high"]] == row["share_interval"]
        assert (row["label_score"] or {}).get("value") == (None if pd.isna(cells["label_score"]) else cells["label_score"])
        assert {True: "true", False: "false", None: None}[row["verified"]] == (
            None if pd.isna(cells["verified"]) else str(cells["verified"]).lower()
        )


def test_the_parts_come_back_exactly(full, read):
    frame = read["made_of.csv"]
    assert frame["part"].tolist() == [part.id for part in full.made_of.parts]
    assert frame["share"].tolist() == [part.share for part in full.made_of.parts]
    assert frame["swapped_p"].dropna().tolist() == [part.swapped.p for part in full.made_of.parts if part.swapped]


def test_examples_hold_only_text_that_may_be_passed_on(full, read):
    frame = read["examples.csv"]
    assert set(frame["source"].map(lambda source: source.split(":")[0])) == {"rollouts", "owt"}
    own = frame[frame["feature"] == 311]
    assert own["text"].tolist()[0] == next(c for c in full.views[311].contexts["corpus"] if not c.is_withheld).marked()


def test_lines_end_as_rfc_4180_says_and_every_record_has_all_cells(full):
    for text in tables(full).values():
        assert text.endswith("\r\n") and text.count("\n") == text.count("\r\n")
        records = list(csv.reader(io.StringIO(text, newline=""), strict=True))
        assert len({len(record) for record in records}) == 1 and len(records) > 1


@pytest.mark.parametrize("text", HOSTILE)
def test_text_is_never_a_formula_and_stays_in_its_cell(text):
    labels = example_labels()
    label = replace(labels[311], label=text)
    made = report(example_vector(), known_parts(), replace(labels, labels={**labels.labels, 311: label}))
    table = tables(made)["features.csv"]
    table.encode("utf-8")  # no lone surrogate is left
    rows = {row["feature"]: row["label"] for row in csv.DictReader(io.StringIO(table, newline=""), strict=True)}
    cell = rows["311"]
    assert cell and not cell.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝"))
    assert all(character.isprintable() for character in cell)
    assert len(rows) == len(made.features)


def test_numbers_below_zero_stay_numbers():
    assert to_csv(("a", "b", "c"), [{"a": -0.1, "b": "-0.1", "c": None}]) == "a,b,c\r\n-0.1,'-0.1,\r\n"


def test_the_overlap_of_several_traits_is_a_table_of_its_own(full):
    both = trait_reports([full, report(*other_trait())])
    made = tables(both)
    frame = pd.read_csv(io.StringIO(made["overlap.csv"]))
    assert tuple(frame.columns) == OVERLAP and frame["n_shared"].tolist() == [both.pairs[0].n_shared]
    assert frame["cosine"].tolist() == [both.pairs[0].cosine] and frame["n_specific_a"].tolist() == [both.pairs[0].n_specific[0]]
    assert pd.read_csv(io.StringIO(made["features.csv"]))["trait"].unique().tolist() == ["evil", "impolite"]

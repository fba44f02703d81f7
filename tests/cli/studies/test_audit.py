"""`workbench audit` whole, on a tiny model: pushed, put back, the first k features, sampled answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.decomposed import arguments, decomposed_run
from tests.cli.shelf import write_sae


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return decomposed_run(tmp_path_factory.mktemp("audit"))


def test_the_audit_pushes_puts_back_and_compares(workbench, place):
    answer = workbench("audit", "humorous", *arguments(place), "--features", "6", "--controls", "19", "--full", "--json")
    assert answer.code == 0, answer.err
    value = json.loads(answer.out)
    assert len(value["screen"]["features"]) == 6 and len(value["screen"]["controls"]) == 19
    row = value["screen"]["features"][0]
    assert {"odd", "interval", "specific", "predicted", "p", "kl", "put_back", "put_back_predicted", "mediated"} <= set(row)
    assert [one["k"] for one in value["behaviour"]["curve"]][:3] == [2, 4, 8]
    directions = value["answers"]["directions"]
    pushed = value["screen"]["features"] + value["screen"]["controls"][:10]
    assert set(directions) == {"vector"} | {str(row["feature"]) for row in pushed}
    assert value["answers"]["judge"] == "offline-outcome" and value["answers"]["n_questions"] >= 10
    assert "<svg" in Path(value["figure"]).read_text(encoding="utf-8")
    again = workbench("audit", "humorous", *arguments(place), "--features", "6", "--controls", "19", "--full", "--json")
    assert json.loads(again.out) == value  # read back
    shown = workbench("audit", "humorous", *arguments(place), "--features", "6", "--controls", "19", "--full")
    assert shown.code == 0 and "p <= .05 among controls" in shown.out and "judge's points" in shown.out


def test_a_second_sae_needs_the_causal_stage_first(workbench, place):
    small = ("--features", "6", "--controls", "19", "--second-sae", str(place / "sae"))
    answer = workbench("audit", "humorous", *arguments(place), *small)
    assert answer.code == 2 and "no control distribution" in answer.err and "workbench decompose humorous" in answer.err


def test_the_plan_counts_the_pushes_and_changes_nothing(workbench, place):
    before = sorted(place.rglob("*"))
    answer = workbench("audit", "humorous", *arguments(place), "--plan", "--json")
    assert answer.code == 0, answer.err
    steps = json.loads(answer.out)["steps"]
    assert len(steps) == 5 and all(step["n_tokens"] > 0 for step in steps)
    assert sorted(place.rglob("*")) == before


def test_without_a_decomposition_the_command_says_what_to_run(workbench, place, tmp_path):
    named = ("--model", str(place / "model"), "--sae", str(place / "sae"))
    answer = workbench("audit", "humorous", *named, "--out", str(tmp_path / "no"))
    assert answer.code == 2
    assert "workbench decompose humorous" in answer.err and "Traceback" not in answer.err


def test_another_sae_than_that_of_the_decomposition_is_refused(workbench, place, tmp_path):
    other = write_sae(tmp_path / "other", model="model", d_model=32, d_sae=60)
    answer = workbench("audit", "humorous", "--model", str(place / "model"), "--sae", str(other), "--out", str(place / "run"))
    assert answer.code == 2 and "was made with" in answer.err

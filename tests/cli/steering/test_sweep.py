"""`workbench sweep` whole, on a tiny model: every method of the figure, kept cells, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.decomposed import SMALL, arguments, decomposed_run


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return decomposed_run(tmp_path_factory.mktemp("sweep"))


@pytest.mark.assets
def test_the_sweep_measures_every_method_and_takes_finished_cells_up(workbench, place):
    small = ("--samples", "1", "--kl", "0.05", "--documents", "2", "--items", "2")
    answer = workbench("sweep", "humorous", *arguments(place), *small, "--json")
    assert answer.code == 0, answer.err
    value = json.loads(answer.out)
    methods = {point["method"] for point in value["points"]}
    assert methods >= {"add", "denoised", "best feature", "difference of means", "PCA", "random features", "random"}
    assert methods >= {"incremental", "ablate", "ablate everywhere", "cap", "prompting"}
    assert all(point["loss_interval"][0] <= point["loss"] <= point["loss_interval"][1] for point in value["points"])
    assert value["start"] == "trait" and value["wanted"] == -1 and value["judge"] == "offline-outcome"
    assert "<svg" in Path(value["figure"]).read_text(encoding="utf-8")
    kept = {path: path.stat().st_mtime_ns for path in Path(value["folder"]).rglob("*.json") if path.name != "down.json"}
    shown = workbench("sweep", "humorous", *arguments(place), *small)
    assert shown.code == 0 and "points of 100" in shown.out and "nats per token" in shown.out
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_the_plan_counts_cells_and_changes_nothing(workbench, place):
    before = sorted(place.rglob("*"))
    answer = workbench("sweep", "humorous", *arguments(place), "--plan", "--json")
    assert answer.code == 0, answer.err
    assert len(json.loads(answer.out)["steps"]) == 4
    assert sorted(place.rglob("*")) == before


def test_bad_input_says_what_to_do(workbench, place):
    answer = workbench("sweep", "humorous", *arguments(place), "--direction", "sideways")
    assert answer.code == 2 and "down or up" in answer.err and "Traceback" not in answer.err
    for given in (("--method", "bogus"), ("--method", "cap", "--direction", "up"), ("--method", "placebo")):
        answer = workbench("sweep", "humorous", *arguments(place), *given)
        assert answer.code == 2 and f"there is no method '{given[1]}'" in answer.err and "prompting" in answer.err
    answer = workbench("sweep", "humorous", "--model", str(place / "model"), "--out", str(place / "none"), *SMALL)
    assert answer.code == 2 and "Traceback" not in answer.err

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from workbench.lab import difficulties


@pytest.fixture(autouse=True)
def small_worlds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Easy and null shrunk, so that a command takes a second; the other difficulties stay known by name."""
    small = {"n_features": 48, "d_model": 56, "n_questions": 8, "n_tokens": 8}
    changed = {
        name: replace(one, **small, n_planted=min(6, one.n_planted)) if name in ("easy", "null") else one
        for name, one in difficulties.DIFFICULTIES.items()
    }
    monkeypatch.setattr(difficulties, "DIFFICULTIES", changed)


def test_the_table_is_printed_and_the_files_are_written(workbench, tmp_path):
    answer = workbench("lab", "--difficulty", "easy", "--difficulty", "null", "--seeds", "2", "--out", tmp_path / "lab")
    assert answer.code == 0, answer.err
    for word in ("easy", "null", "shares", "crossed", "cosine", "pursuit", "naive", "tokens", "oracle", "FDR .05", "/ oracle"):
        assert word in answer.out
    assert "aims missed by the tests that promise error rates" in answer.out
    assert (tmp_path / "lab" / "lab.svg").read_text().startswith("<svg")
    stored = json.loads((tmp_path / "lab" / "lab.json").read_text())
    assert {row["difficulty"] for row in stored["rows"]} == {"easy", "null"} and stored["seeds"] == [0, 1]


def test_json_is_printed_alone_and_is_the_file(workbench, tmp_path):
    answer = workbench("lab", "--difficulty", "easy", "--seeds", "1", "--sae", "split", "--out", tmp_path / "lab", "--json", "-q")
    assert answer.code == 0, answer.err
    value = answer.json
    assert value == json.loads((tmp_path / "lab" / "lab.json").read_text())
    assert value["sae"] == "split" and value["rows"][0]["truth"] == "codes" and value["figure"].endswith("lab.svg")
    assert {aim["method"] for aim in value["aims"]} == {"shares", "crossed"}


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (("--difficulty", "esay"), ("there is no difficulty 'esay'", "did you mean 'easy'?")),
        (("--sae", "perfekt"), ("there is no SAE of the laboratory 'perfekt'", "did you mean 'perfect'?")),
    ],
    ids=str,
)
def test_unknown_names_are_refused_before_any_work(workbench, tmp_path, arguments, fragments):
    answer = workbench("lab", *arguments, "--out", tmp_path / "lab")
    assert answer.code == 2 and answer.out == "" and "Traceback" not in answer.err
    for fragment in fragments:
        assert fragment in answer.err
    assert not (tmp_path / "lab").exists()


def test_no_seeds_are_refused(workbench):
    assert workbench("lab", "--seeds", "0").code == 2


def test_help_names_the_saes(workbench):
    text = workbench("lab", "--help").out
    assert "perfect, noisy, split, absorbed, or trained" in " ".join(text.split())

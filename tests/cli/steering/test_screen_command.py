"""`workbench screen` on a tiny model in a folder: plan, result, files, resuming, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.shelf import write_sae
from tests.steering.screen.data import HOOK, cruel_vector, planted, random_vector, written
from tests.tiny import tiny_model
from workbench.models.loading import load_model


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `model`, two runs of it, an SAE and a data set."""
    place = tmp_path_factory.mktemp("screened")
    made = tiny_model()
    made.hf.save_pretrained(place / "model")
    made.tokenizer.save_pretrained(place / "model")
    model = load_model(str(place / "model"))
    cruel_vector(model).save(place / "runs" / "evil-model" / "vector")
    random_vector(model, "nothing").save(place / "runs" / "nothing-model" / "vector")
    written(place / "data.jsonl", [*planted(24), "{", ""])
    written(place / "clean.jsonl", [record for record in planted(32) if not record["bad"]])
    return place


def asked(world: Path, *more: Any) -> tuple[Any, ...]:
    """The arguments of a screen of the data set along its two vectors."""
    runs = ("--vectors", world / "runs", "--model", world / "model")
    return ("screen", world / "data.jsonl", *runs, "--own-tokens", "4", "-q", *more)


def test_a_data_set_is_screened_filtered_and_reported(workbench: Any, world: Path, tmp_path: Path) -> None:
    sae = write_sae(tmp_path / "sae", model="model", hook=str(HOOK), d_model=32)
    files = ("--out", tmp_path / "kept.jsonl", "--report", tmp_path / "page.html", "--ranking", tmp_path / "ranking.parquet")
    given = ("--trait", "evil", "--sae", sae, "--percentile", "75", "--label-field", "bad")
    answer = workbench(*asked(world, *given, *files, "--json"))
    assert answer.code == 0, answer.err
    value = answer.json
    assert list(value["traits"]) == ["evil"] and value["counts"]["malformed"] == 1 and value["counts"]["blank"] == 1
    assert value["traits"]["evil"]["evaluation"]["auroc"] > 0.8 and value["traits"]["evil"]["features"]
    raw, kept = (world / "data.jsonl").read_bytes().splitlines(keepends=True), (tmp_path / "kept.jsonl").read_bytes()
    assert len(kept.splitlines()) == 24 - value["counts"]["flagged"]
    assert all(line in raw for line in kept.splitlines(keepends=True))
    assert "What would these data teach?" in (tmp_path / "page.html").read_text() and (tmp_path / "ranking.parquet").is_file()
    printed = workbench(*asked(world, *given))
    assert "24 of 26 lines scored, 6 flagged" in printed.out and "not scored: not JSON" in printed.out
    assert "AUROC" in printed.out and "what sets the flagged apart" in printed.out


def test_both_vectors_are_taken_where_no_trait_is_named(workbench: Any, world: Path) -> None:
    answer = workbench(*asked(world, "--json"))
    assert answer.code == 0 and set(answer.json["traits"]) == {"evil", "nothing"}, answer.err
    assert answer.json["traits"]["evil"]["features"] == []  # no SAE reads this model


def test_the_same_command_goes_on_and_no_resume_starts_anew(workbench: Any, world: Path, tmp_path: Path) -> None:
    given = asked(world, "--trait", "evil", "--against", "own", "--folder", tmp_path / "work", "--json")
    first = workbench(*given)
    part = tmp_path / "work" / "scores" / "part-000000.parquet"
    before = part.stat().st_mtime_ns
    again = workbench(*given)
    assert part.stat().st_mtime_ns == before and again.json["traits"] == first.json["traits"]
    anew = workbench(*given, "--no-resume")
    assert part.stat().st_mtime_ns > before and anew.json["traits"] == first.json["traits"]
    kept = part.stat().st_mtime_ns
    other = workbench(*given, "--no-resume", "--max-tokens", "40")
    assert other.code == 2 and "holds the scores of other data" in other.err and part.stat().st_mtime_ns == kept


def test_a_rate_is_calibrated_on_clean_data(workbench: Any, world: Path) -> None:
    given = ("--trait", "evil", "--clean", world / "clean.jsonl", "--false-positive-rate", "0.1", "--json")
    answer = workbench(*asked(world, *given))
    assert answer.code == 0, answer.err
    limit = answer.json["traits"]["evil"]["threshold"]
    assert limit["kind"] == "false_positive_rate" and limit["n_reference"] == 24


def test_a_plan_loads_nothing_and_counts_the_lines(workbench: Any, world: Path) -> None:
    given = ("--clean", world / "clean.jsonl", "--false-positive-rate", "0.1", "--against", "own")
    answer = workbench(*asked(world, *given, "--plan", "--json"))
    assert answer.code == 0, answer.err
    assert [step["step"].split(" (")[0] for step in answer.json["steps"]][1:] == [
        "read 26 lines of data.jsonl", "at most 26 own replies, one per distinct prompt",
        "read 24 lines of clean.jsonl", "at most 24 own replies, one per distinct prompt",
    ]  # fmt: skip


@pytest.mark.parametrize(("arguments", "told"), [
    (("--trait", "evli"), "evil"), (("--percentile", "101"), "from 0 to 100"), (("--clean", "x.jsonl"), "--clean alone"),
    (("--false-positive-rate", "0.1"), "--false-positive-rate alone"), (("--against", "nothing"), "own"),
    (("--vectors", "nowhere", "--trait", "kind"), "kind"), (("--report", "a", "--out", "a"), "one file for two things"),
    (("--placebos", "nowhere"), "holds no placebo vectors"),
    (("--clean", "x.jsonl", "--false-positive-rate", "0.1", "--out", "x.jsonl"), "one file for two things"),
], ids=["trait", "percentile", "clean", "rate", "against", "vectors", "one file", "placebos", "clean file"])  # fmt: skip
def test_what_cannot_be_done_is_told_in_words(workbench: Any, world: Path, arguments: Any, told: str) -> None:
    answer = workbench(*asked(world, *arguments))
    assert answer.code == 2 and told in answer.err and "Traceback" not in answer.err, answer.err


def test_data_that_are_no_chats_are_refused_before_a_model_is_loaded(workbench: Any, world: Path, tmp_path: Path) -> None:
    (tmp_path / "d.txt").write_text("hello")
    given = ("--vectors", world / "runs", "--model", world / "model", "--trait", "evil")
    for name, words in (("d.txt", "neither JSONL nor Parquet"), ("missing.jsonl", "no such file")):
        answer = workbench("screen", tmp_path / name, *given)
        assert answer.code == 2 and words in answer.err
    for text, words in (("", "is empty"), ("\n\n", "all are blank"), ("{}\n[]\n", "(it has no fields) (1 times)")):
        (tmp_path / "d.jsonl").write_text(text)
        answer = workbench("screen", tmp_path / "d.jsonl", *given)
        assert answer.code == 2 and words in answer.err and "Traceback" not in answer.err, answer.err

"""`workbench prevent` whole, on a tiny model: its table, kept cells, its plan, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.tiny import tiny_model

HOOK = "blocks.1.hook_resid_post"
SMALL = ("--judge", "none", "--max-new-tokens", "4", "--batch-size", "64", "-q")
ARMS = ("--arm", "preventative", "--arm", "subtraction")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model and a run that has a vector."""
    from workbench.cli.run import run

    folder = tmp_path_factory.mktemp("prevent")
    model = tiny_model("llama")
    model.hf.save_pretrained(folder / "model")
    model.tokenizer.save_pretrained(folder / "model")
    common = ("--model", str(folder / "model"), "--out", str(folder / "run"), *SMALL)
    assert run(["extract", "humorous", *common, "--hook", HOOK]) == 0
    return folder


def arguments(place: Path) -> tuple[str, ...]:
    return ("--model", str(place / "model"), "--out", str(place / "run"), *SMALL)


@pytest.mark.assets
def test_the_table_has_its_arms_and_finished_cells_are_taken_up(workbench, place):
    small = (*ARMS, "--seeds", "1", "--steps", "2", "--samples", "1", "--documents", "2", "--items", "2")
    answer = workbench("prevent", "humorous", *arguments(place), *small, "--json")
    assert answer.code == 0, answer.err
    value = json.loads(answer.out)
    assert set(value["arms"]) == {"base", "none", "preventative", "subtraction"} and value["judge"] == "offline-outcome"
    assert value["arms"]["preventative"]["interval"][0] <= value["arms"]["preventative"]["trait"]
    assert value["verdict"] in ("holds", "does not hold", "not decided", "no power") and value["sentence"]
    assert "<svg" in Path(value["figure"]).read_text(encoding="utf-8")
    kept = {path: path.stat().st_mtime_ns for path in (place / "run" / "prevent" / "cells").iterdir()}
    shown = workbench("prevent", "humorous", *arguments(place), *small)
    assert shown.code == 0 and "points of 100" in shown.out and "fine-tune" in shown.out
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_the_plan_counts_cells_and_changes_nothing(workbench, place):
    before = sorted(place.rglob("*"))
    answer = workbench("prevent", "humorous", *arguments(place), *ARMS, "--seeds", "2", "--plan", "--json")
    assert answer.code == 0, answer.err
    plan = json.loads(answer.out)
    assert [step["step"] for step in plan["steps"]][2] == "the table: 14 cells of 3 arms and 2 seeds"
    assert sorted(place.rglob("*")) == before


def test_bad_input_says_what_to_do(workbench, place):
    chats = Path("chats.jsonl")
    chats.write_text('{"prompt": "a", "response": "b"}\n{"text": "c"}\n', encoding="utf-8")
    for flags, told in [
        (("--arm", "vaccine"), "there is no arm 'vaccine'"),
        ((*ARMS, "--arm", "denoised"), "holds no decomposition"),
        (("--arm", "random"), "random without preventative"),
        ((*ARMS, "--data", chats), "line 2 of chats.jsonl"),
        ((*ARMS, "--data", Path("none.jsonl")), "none.jsonl"),
        ((*ARMS, "--learning-rate", "nan"), "cannot be trained with"),
        ((*ARMS, "--score-with", "none"), "scores nothing"),
    ]:
        answer = workbench("prevent", "humorous", *arguments(place), *flags)
        assert answer.code == 2 and told in answer.err and "Traceback" not in answer.err, (flags, answer.err)
    answer = workbench("prevent", "humorous", "--model", place / "model", "--out", place / "empty", *SMALL)
    assert answer.code == 2 and "workbench extract humorous" in answer.err
    assert not (place / "empty").exists()

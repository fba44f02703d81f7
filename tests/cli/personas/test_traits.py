"""`workbench traits import`, `export` and `new --describe` from the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from tests.personas.test_writing import WISH, Author, server
from workbench.personas.traits import trait_path

DATA = Path(__file__).parents[2] / "personas" / "formats_data"
EXTRACT, EVAL = DATA / "pedantic_extract.json", DATA / "pedantic_eval.json"


def refused(answer, *fragments: str) -> None:
    assert answer.code == 2 and answer.out == "" and "Traceback" not in answer.err
    assert all(fragment in answer.err for fragment in ("error: ", "expected: ", *fragments)), answer.err


def test_an_imported_trait_is_named_counted_and_found_by_its_name(workbench):
    value = workbench("traits", "import", EXTRACT, "--evaluation", EVAL, "--json").json
    assert value["questions"] == {"extraction": 20, "verification": 10, "sealed": 10}
    assert value["arms"] == ["positive", "negative"] and len(value["notes"]) == 3
    shown = workbench("traits", "show", "pedantic")
    assert shown.code == 0 and "no taxonomy" in shown.out and "nothing to complain about" in shown.out
    again = workbench(
        "traits", "import", EXTRACT, "--name", "fussy", "--adjective", "fussy", "--opposite", "relaxed"
    )
    assert again.code == 0 and "divided into 10 extraction" in again.out and "v_up" in again.out
    planned = workbench("extract", "traits/fussy", "--model", "org/model", "--judge", "none", "--plan", "--json").json
    assert planned["trait"] == "fussy"


def test_what_cannot_be_imported_leaves_nothing(workbench, tmp_path):
    (tmp_path / "bad.json").write_text('{"instruction": []}')
    refused(workbench("traits", "import", tmp_path / "bad.json"), "bad.json", "'instruction'")
    refused(workbench("traits", "import", tmp_path / "none.json"), "no such file")
    refused(workbench("traits", "import", EXTRACT, "--name", "No Name"), "cannot name a folder")
    assert list(Path.cwd().iterdir()) == []


def test_an_exported_trait_says_what_is_left_out_and_comes_back(workbench, tmp_path):
    value = workbench("traits", "export", "evil", "--out", tmp_path, "--json").json
    assert value["left_out"] == ["neutral stances", "taxonomy", "reply pairs", "traps"]
    assert set(json.loads(Path(value["extraction"]).read_text())) == {
        "instruction",
        "questions",
        "eval_prompt",
    }
    back = workbench(
        "traits", "import", value["extraction"], "--evaluation", value["evaluation"], "--name", "grim"
    )
    assert back.code == 0
    refused(workbench("traits", "export", "evil", "--out", tmp_path), "exists already")
    refused(workbench("traits", "export", "evli", "--out", tmp_path), "did you mean 'evil'?")


def test_a_trait_is_written_from_a_sentence(workbench, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    with server.running(Author().answer) as endpoint:
        there = ("--describe", WISH, "--endpoint-model", "author-1", "--base-url", endpoint.url)
        value = workbench("traits", "new", "pedantic", *there, "--json").json
        assert value["author"] == {"kind": "model", "name": "author-1"} and value["contrast_pairs"] == 40
        monkeypatch.setenv("WORKBENCH_JUDGE_MODEL", "author-1")
        monkeypatch.setenv("WORKBENCH_BASE_URL", endpoint.url)
        said = workbench("traits", "new", "pedantic", "--describe", WISH, "--out", "others")
    assert said.code == 0 and "author: author-1" in said.out and "read it before you use it" in said.out
    assert workbench("traits", "show", "pedantic").code == 0
    refused(workbench("traits", "new", "pedantic", *there), "exists already")


def test_a_model_that_writes_nothing_usable_is_told_and_leaves_nothing(workbench, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    author = Author(lambda part, n, items: "I cannot do that." if part == "questions" else items)
    with server.running(author.answer) as endpoint:
        answer = workbench(
            "traits",
            "new",
            "pedantic",
            "--describe",
            WISH,
            "--endpoint-model",
            "m",
            "--base-url",
            endpoint.url,
        )
    refused(answer, "no usable questions", "--sample 1")
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize(
    "given", [("--endpoint-model", "m"), ("--base-url", "http://127.0.0.1:9")], ids=" ".join
)
def test_an_endpoint_without_a_sentence_is_refused_and_a_sentence_without_a_model(workbench, given):
    refused(workbench("traits", "new", "pedantic", *given), "--describe")
    refused(workbench("traits", "new", "pedantic", "--describe", WISH), "no endpoint model is named")
    assert list(Path.cwd().iterdir()) == []


def test_pairs_whose_replies_differ_in_length_are_warned_of(workbench):
    trait = Path("traits/evil")
    shutil.copytree(trait_path("evil"), trait)
    document = yaml.safe_load((trait / "pairs.yaml").read_text(encoding="utf-8"))
    for item in document["contrast"]:
        item["trait"] += " It took 12,345 days, 6 hours and 789 seconds in 1467."
    (trait / "pairs.yaml").write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    warnings = workbench("traits", "show", trait, "--json").json["warnings"]
    assert any("contrast pairs: the first reply has" in line for line in warnings)
    shown = workbench("traits", "show", trait)
    assert shown.code == 0 and "warning: contrast pairs" in shown.out and "nothing to complain about" not in shown.out

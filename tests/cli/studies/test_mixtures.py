"""`workbench lab --mixtures`, whole, on a tiny model with few texts."""

from __future__ import annotations

import json

import pytest

from tests.cli.shelf import write_sae
from tests.lab.test_sub_personas import SMALL
from tests.tiny import tiny_model
from workbench.lab import mixture_study, sub_personas

SOME = "\n".join(f'  - {{id: q{n}, text: "Where is river {n}?"}}' for n in range(1, 9))


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A saved tiny model, an SAE of its width, and eight questions to two sub-personas."""
    model = tiny_model("llama")
    model.hf.save_pretrained(tmp_path / "tiny")
    model.tokenizer.save_pretrained(tmp_path / "tiny")
    sae = write_sae(tmp_path / "sae", model="tiny", d_model=32)
    texts = tmp_path / "small.yaml"
    texts.write_text(SMALL[: SMALL.index("questions:")] + "questions:\n" + SOME + "\n")
    read = sub_personas.load_sub_personas
    monkeypatch.setattr(sub_personas, "load_sub_personas", lambda: read(texts))
    monkeypatch.setattr(mixture_study, "N_NULLS", 2)
    monkeypatch.setattr(mixture_study.run_mixtures, "__kwdefaults__",
                        {**mixture_study.run_mixtures.__kwdefaults__, "n_bootstrap": 3, "n_splits": 2})  # fmt: skip
    return "lab", "--mixtures", "--model", tmp_path / "tiny", "--sae", sae, "--samples", "2", "--out", tmp_path / "mixed", "-q"


def test_mixtures_are_sampled_read_and_written_and_a_second_call_says_the_same(workbench, small, tmp_path):
    first = workbench(*small, "--json")
    assert first.code == 0, first.err
    value = first.json
    stored = json.loads((tmp_path / "mixed" / "mixtures.json").read_text())
    assert stored == value and len(value["rows"]) == 20
    assert {one["method"] for one in value["scores"]} == {"shares", "shares_as_read", "codes", "residual"}
    assert all(sum(row["known"].values()) == pytest.approx(1) for row in value["rows"])
    assert value["effects"]["n_answers"].keys() == {"rude", "code", "neutral"} and value["provenance"]["inputs"]["answers"]
    assert (tmp_path / "mixed" / "mixtures.svg").read_text().startswith("<svg")
    again = workbench(*small, "--json").json
    assert again["rows"] == value["rows"]


def test_the_tables_say_how_strong_the_parts_are_and_whether_the_aims_are_met(workbench, small):
    answer = workbench(*small)
    assert answer.code == 0, answer.err
    said = ("rude", "neutral", "shares_as_read", "residual", "same_answers", "equal parts", "aims (share error <= 0.1", ".svg")
    for word in said:
        assert word in answer.out


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (("--mixtures", "--difficulty", "easy"), ("--difficulty beside --mixtures", "Leave out --difficulty")),
        (("--model", "smollm2-135m-instruct"), ("--model without --mixtures", "or add --mixtures")),
        (("--mixtures", "--model", "smollm3"), ("there is no model 'smollm3'",)),
        (("--mixtures", "--sae", "smollm2-135m-instruct/block"), ("block",)),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_refused_before_any_work(workbench, tmp_path, arguments, fragments):
    answer = workbench("lab", *arguments, "--out", tmp_path / "mixed")
    assert answer.code == 2 and answer.out == "" and "Traceback" not in answer.err
    for fragment in fragments:
        assert fragment.lower() in answer.err.lower()
    assert not (tmp_path / "mixed").exists()

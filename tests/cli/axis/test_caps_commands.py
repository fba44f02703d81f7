"""`workbench axis cap` and `workbench axis jailbreak` whole, on a tiny model: files, privacy, plans, mistakes."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.cli.shelf import write_sae
from tests.personas.toy import LexicalJudge, responses
from tests.tiny import tiny_model
from workbench.axis.capping.caps import Capping
from workbench.axis.capping.features import feature_limits
from workbench.axis.capping.published import read_cappings
from workbench.axis.jailbreak.prompts import harmful_prompts
from workbench.base.errors import WorkbenchError
from workbench.cli.axis import jailbreak
from workbench.cli.gateway import capping_edits
from workbench.decomposition.decompose import decompose
from workbench.decomposition.result import Decomposition
from workbench.models.loading import load_model
from workbench.personas.extraction import extract
from workbench.personas.traits import load_trait
from workbench.personas.vectors import PersonaVector
from workbench.saes.registry import load_sae

SWEPT = ("--sweep", "--sweep-band", "own", "--sweep-percentile", "50")
FEW = ("--calibration", "2", "--benign", "1")
HOOK = "blocks.1.hook_resid_post"
SMALL = ("--requests", "2", "--per-prompt", "1", "--documents", "2", "--items", "1", "--max-new-tokens", "3", "--band", "own",
         "-q")  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a tiny model, with model/ and sae/ inside: a vector of written replies at every block, decomposed."""
    run = tmp_path_factory.mktemp("caps")
    made = tiny_model(seed=5)
    made.hf.save_pretrained(run / "model")
    made.tokenizer.save_pretrained(run / "model")
    write_sae(run / "sae", model="model", hook=HOOK, d_model=32)
    model, sae, trait = load_model(str(run / "model")), load_sae(run / "sae"), load_trait("evil")
    rows = responses(trait, n_extraction=8, n_evaluation=2, n_instructions=2)
    vector = extract(trait, model, judge=LexicalJudge(), rollouts=rows, out=run, hook=HOOK, token_hooks=[HOOK], n_bootstrap=10,
                     n_random=20)  # fmt: skip
    vector.save(run / "vector")
    decompose(vector, sae, model=model, causal=False, n_bootstrap=20).save(run / "decomposition")
    return run


@pytest.fixture(autouse=True)
def no_question_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Capability on documents alone (which sets an untrained model can answer takes long to find out), KL on two sentences."""
    monkeypatch.setattr("workbench.steering.cost.capability.question_sets", lambda: ())
    few = ("The weather in the north is cold.", "The rivers are long.")
    monkeypatch.setattr("workbench.steering.cost.matching.neutral_snippets", lambda: few)


def arguments(place: Path) -> tuple[Any, ...]:
    return place, "--model", place / "model", "--sae", place / "sae"


def test_a_cap_is_calibrated_written_exported_and_taken_by_the_gateway(workbench: Any, place: Path, tmp_path: Path) -> None:
    answer = workbench("axis", "cap", *arguments(place), "--band", "0-1", "--percentile", "25", "--out", tmp_path, "--export",
                       tmp_path / "caps.pt", "--json")  # fmt: skip
    assert answer.code == 0, answer.err
    value = answer.json
    assert [one["hook"] for one in value["limits"]] == ["blocks.0.hook_resid_post", "blocks.1.hook_resid_post"]
    ours, theirs = Capping.load(value["capping_folder"]), next(iter(read_cappings(value["published"]).values()))
    assert [cap.limit for cap in ours.caps] == [cap.limit for cap in theirs.caps] == [one["tau"] for one in value["limits"]]
    model = load_model(str(place / "model"))
    for written in (value["capping_folder"], value["published"]):
        edits = capping_edits(Path(written), model, None)
        assert [(edit.kind, edit.scope) for edit in edits] == [("floor", "predicting")] * 2
    shown = workbench("axis", "cap", *arguments(place), "--band", "own", "--out", tmp_path, "-q")
    assert shown.code == 0 and "percentile 25" in shown.out and "--capping" in shown.out
    assert "toward evil, not away from it" in " ".join(shown.out.split()), "a cap from below is no brake on a trait"


@pytest.mark.assets
def test_the_table_is_printed_without_a_word_and_replies_are_for_their_owner(
    workbench: Any, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = workbench("axis", "jailbreak", *arguments(place), *SMALL, *FEW, "--out", tmp_path, "--json")
    assert answer.code == 0, answer.err
    value = answer.json
    arms = {"direct", "persona", "axis cap", "feature cap", "reminder", "refusal, equal rate", "random 0, equal KL"}
    assert set(value["rates"]) >= arms
    assert value["texts"] is None and value["testable"] == (value["why_not"] is None)
    assert "<svg" in Path(value["figure"]).read_text(encoding="utf-8")
    requests = [one.text for one in harmful_prompts(n_calibration=2, n_evaluation=2)[1]]
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    private = [path for path in written if stat.S_IMODE(path.stat().st_mode) == 0o600]
    assert private and all(path.is_relative_to(tmp_path / "replies") for path in private)
    for path in set(written) - set(private):
        assert not any(text in path.read_text(encoding="utf-8") for text in requests), path
    assert not any(text in answer.out for text in requests)
    jailbreak._show(value)
    shown = capsys.readouterr().out
    assert "AUROC" in shown and "axis cap" in shown and not any(text in shown for text in requests)
    told = workbench("axis", "jailbreak", *arguments(place), *SMALL, *FEW, "--out", tmp_path, "--show-text")
    assert told.code == 0 and "== axis cap" in told.out
    assert all(any(text[:40] in line for line in told.out.splitlines()) for text in requests)


@pytest.mark.assets
def test_a_sweep_holds_a_row_per_cap(workbench: Any, place: Path, tmp_path: Path) -> None:
    answer = workbench("axis", "cap", *arguments(place), *SMALL, *SWEPT, "--out", tmp_path, "--json")
    assert answer.code == 0, answer.err
    sweep = answer.json["sweep"]
    directions = {row["direction"] for row in sweep["capping"]}
    assert directions >= {"evil", "random 0", "random 1", "refusal", "features"}
    for row in sweep["capping"]:
        assert row["capability_interval"][0] <= row["capability"] <= row["capability_interval"][1]
        assert 0 <= row["harm"] <= 1


def test_feature_caps_of_an_axis_that_was_made_anew_need_a_new_decomposition(place: Path) -> None:
    vector, sae = PersonaVector.load(place / "vector"), load_sae(place / "sae")
    parts = Decomposition.load(place / "decomposition")
    assert feature_limits(vector, parts, sae).features
    with pytest.raises(WorkbenchError, match="Decompose it again"):
        feature_limits(replace(vector, directions=vector.directions + 0.01), parts, sae)


def test_plans_count_and_change_nothing(workbench: Any, place: Path) -> None:
    before = sorted(place.rglob("*"))
    for verb in (("cap", *arguments(place), "--sweep"), ("jailbreak", *arguments(place))):
        answer = workbench("axis", *verb, "--plan", "--json")
        assert answer.code == 0, answer.err
        assert len(answer.json["steps"]) == 4
    assert sorted(place.rglob("*")) == before


def test_mistakes_say_what_to_do(workbench: Any, place: Path, tmp_path: Path) -> None:
    for given, told in (
        ((*arguments(place), "--band", "inner"), "FIRST-LAST"),
        ((*arguments(place), "--band", "inner", "--plan"), "FIRST-LAST"), ((*arguments(place), "--unit", "word"), "token"),
        ((tmp_path / "nothing",), "run folder"),
    ):  # fmt: skip
        answer = workbench("axis", "cap", *given, "--out", tmp_path / "out", "-q")
        assert answer.code == 2 and told in answer.err and "Traceback" not in answer.err
    answer = workbench("axis", "jailbreak", *arguments(place), "--set", "mybench", "--out", tmp_path / "out", "-q")
    assert answer.code == 2 and "harmbench" in answer.err and "Traceback" not in answer.err
    small = (*arguments(place), *SMALL, "--out", tmp_path / "out")
    for given in (("jailbreak", *small, *FEW, "--band", "inner"),
                  ("cap", *small, "--sweep", "--sweep-band", "own", "--sweep-band", "inner")):  # fmt: skip
        answer = workbench("axis", *given)
        assert answer.code == 2 and "FIRST-LAST" in answer.err and "Traceback" not in answer.err
    answer = workbench("axis", "cap", *small, "--sweep", "--sweep-percentile", "150")
    assert answer.code == 2 and "from 0 to 100" in answer.err and "Traceback" not in answer.err
    answer = workbench("gateway", place, "--capping", tmp_path / "none.pt", "--port", "0", "-q")
    assert answer.code == 2 and "Traceback" not in answer.err

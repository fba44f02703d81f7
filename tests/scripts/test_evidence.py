"""The evidence files: each has a topic that writes it, and judges and traps stand apart in the personas' record."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
READ_BY_SOMEBODY = {"blind_reading"}  # needs a reader between its two halves


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


def test_every_evidence_file_has_a_topic_that_rewrites_it(script):
    files = {path.stem for path in (ROOT / "docs" / "evidence").glob("*.json")} - READ_BY_SOMEBODY
    assert files <= set(script("evidence").TOPICS)


@pytest.mark.parametrize("name", ["train_offline_judge", "scale_check", "peer_formats", "falsify_evidence"])
def test_a_topic_of_its_own_script_has_a_full_and_a_quick_measurement(script, name):
    found = script(name)
    assert callable(found.evidence) and callable(found.evidence_quick)
    assert found.COMMAND.startswith("make evidence TOPIC=")
    assert found.COMMAND.removeprefix("make evidence TOPIC=") in script("evidence").TOPICS


def test_the_peers_record_names_its_golden_files_and_the_scripts_that_ran(script):
    inputs = script("peer_formats").inputs()
    assert {"repeng.gguf", "scripts/peer_formats.py", "scripts/peers/repeng_side.py"} <= set(inputs)
    assert all(len(value) == 64 for value in inputs.values())


@pytest.mark.assets
def test_the_scale_record_names_the_code_that_plans_and_the_tokenizer(script):
    inputs = script("scale_check").inputs()
    assert {"scripts/scale_check.py", "workbench/models/planning.py", "tokenizer"} <= set(inputs)
    assert all(len(value) == 64 for value in inputs.values())


def test_the_quick_topic_finds_the_stated_pair_accuracy(script, capsys):
    assert script("evidence").TOPICS["judges"][1]()
    assert "humorous" in capsys.readouterr().out


def test_judges_and_traps_stand_apart_in_the_personas_record(script):
    found = script("personas_evidence").judges()
    measured = json.loads((ROOT / "docs" / "evidence" / "judges.json").read_text())["judges"]
    assert set(found["judges"]) == set(found["traps"]) == set(measured)
    for judge, sets in found["judges"].items():
        for row in sets.values():
            assert set(row) == {"auroc", "interval", "spearman", "spearman_interval", "n"} and row["n"] > 0
        written = {name for name in sets if name.startswith("written_replies_")}
        assert written == {f"written_replies_{t}" for t, row in measured[judge].items() if not row["validated"]}
        assert set(sets) - written == set(measured[judge]["evil"]["human_scored"])
        for trait, row in found["traps"][judge].items():
            assert set(row) == {"pair_accuracy", "interval", "n", "validated"} and row["validated"] == (trait == "evil")

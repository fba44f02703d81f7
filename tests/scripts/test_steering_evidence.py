"""The evidence on using the vectors is its parts, and says which of them are missing."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def steering_evidence(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("steering_evidence")


@pytest.fixture
def steering_places(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("steering_places")


def test_the_file_says_what_its_parts_say(steering_evidence: ModuleType):
    assert steering_evidence.evidence_quick(), "run make evidence TOPIC=steering"


def test_what_is_missing_is_named_and_no_figure_is_made_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steering_evidence: ModuleType
):  # fmt: skip
    monkeypatch.setattr(steering_evidence, "EVIDENCE", tmp_path)
    (tmp_path / "screening.json").write_text(json.dumps({"screening": {"evil": {"auroc": 0.9}}}), encoding="utf-8")
    (tmp_path / "steering_cost.json").write_text(json.dumps({"traits": {"evil": {}}, "missing": ["impolite"]}), encoding="utf-8")
    found = steering_evidence.evidence()
    assert found["screening"] == {"evil": 0.9} and found["monitor"] is None and found["prevention"] is None
    assert found["missing"] == ["monitoring", "prevention", "prevention_pair", "screening_tuning", "diffing",
                                "steering_cost: impolite"]  # fmt: skip


def test_a_place_without_evidence_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steering_evidence: ModuleType, steering_places: ModuleType
):  # fmt: skip
    monkeypatch.setattr(steering_places, "EVIDENCE", tmp_path)
    assert {place() for place in steering_places.PLACES} == {
        f"*Not measured yet: `make evidence TOPIC={topic}`.*" for topic in steering_evidence.PARTS
    }


def test_a_loss_that_only_one_method_pays_is_infinite_on_its_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steering_places: ModuleType
):  # fmt: skip
    monkeypatch.setattr(steering_places, "EVIDENCE", tmp_path)
    add = {"method": "add", "value": 0.2, "interval": [0.1, None], "reached": 0.9, "difference": 0.0,
           "difference_interval": [None, None]}  # fmt: skip
    rows = [{**add, "method": "cheap", "reached": 1.0, "difference": -0.1, "difference_interval": [None, 0.05]},
            {**add, "method": "never", "value": None, "reached": 0.0, "difference": None}, add]  # fmt: skip
    sweep = {"reduce": {"at_equal_change": [{"change": 5.0, "methods": rows}]}}
    (tmp_path / "steering_cost.json").write_text(json.dumps({"traits": {}, "sweep": sweep, "missing": []}), encoding="utf-8")
    cheap, never, own = steering_places.steering_fronts().strip().splitlines()[-3:]
    assert cheap.endswith("| -0.10 | [−∞, 0.05] |") and never.endswith("| – | – |") and own.endswith("| – | – |")

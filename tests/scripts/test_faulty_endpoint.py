"""The count of what a faulty endpoint loses and repeats: it is 0, and it would be seen if it were not."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "faulty_endpoint.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("faulty_endpoint", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setenv("WORKBENCH_API_KEY", module.KEY)
    monkeypatch.setattr(module, "KINDS", tuple(kind for kind in module.KINDS if kind != "timeout"))  # waiting is dear
    return module


def test_nothing_is_lost_repeated_or_leaked(
    script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["faulty_endpoint.py", "--features", "40", "--json"])
    assert script.main() == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["lost"], found["repeated"], found["leaked"]) == (0, 0, 0)
    assert found["n_features"] == 80 and found["n_faults"] > 15 and found["n_repairs"] == 8 and found["interrupted"] >= 1
    assert found["n_requests"] == 80 + found["n_repairs"] + found["n_faults"] and found["faults"]["429"] > 0


def test_what_is_lost_or_leaked_is_counted(script: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from tests.labeling import features

    right = features.right_answer
    monkeypatch.setattr(features, "right_answer", lambda number: right(0 if number == 3 else number))
    assert script.one_dialect("openai", 12, 0, tmp_path)["lost"] == 1
    (tmp_path / "x.json").write_text(script.KEY)
    assert script.leaked(tmp_path, f"it said {script.KEY}") == 2


@pytest.mark.stress
def test_two_hundred_features_with_time_outs(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "KINDS", (*script.KINDS, "timeout"))
    found = script.faulty_endpoint(200)
    assert (found["lost"], found["repeated"], found["leaked"]) == (0, 0, 0) and found["faults"]["timeout"] > 5

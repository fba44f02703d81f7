"""A run that is killed and resumed ends with the files of an uninterrupted one."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "kill_resume.py"
WRITER = """
import pathlib, sys, time
parts = pathlib.Path(sys.argv[1]) / "rollouts"
parts.mkdir(parents=True)
for number in range(3):
    (parts / f"part-{number}.parquet").touch()
    time.sleep(float(sys.argv[2]))
sys.exit(int(sys.argv[3]))
"""


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("kill_resume", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.stress
def test_a_run_killed_at_ten_points_ends_with_the_same_files(script, tmp_path):
    found = script.kill_and_compare(tmp_path, 10)
    assert found["identical"] == found["kills"] == 10, found["differing"]
    assert found["returncodes"] == [-9] * 10
    assert len(set(found["parts_at_kill"])) >= 8 and found["n_files"] > 100


def writing(script, monkeypatch, seconds: float, status: int = 0) -> None:
    """Lets the script start processes that write three parts, this many seconds apart, and end with that status."""
    monkeypatch.setattr(
        script, "command", lambda model, run: [sys.executable, "-c", WRITER, str(run), str(seconds), str(status)]
    )


def test_a_kill_counts_only_if_it_hit_a_living_run(script, tmp_path, monkeypatch):
    writing(script, monkeypatch, 20)
    found = script.kill_living(tmp_path, tmp_path / "slow", 1, 0.0)
    assert found == {"returncode": -9, "parts": 1, "too_late": 0}
    writing(script, monkeypatch, 0)
    assert script.kill_after(tmp_path, tmp_path / "quick", 3, 2.0) == {"returncode": 0, "parts": 3}


@pytest.mark.stress
def test_a_kill_that_came_too_late_is_tried_again_earlier(script, tmp_path, monkeypatch):
    writing(script, monkeypatch, 1)
    found = script.kill_living(tmp_path, tmp_path / "run", 3, 4.0)  # the third part is there, and a second later the run is over
    assert found["returncode"] == -9 and found["too_late"] >= 1 and found["parts"] <= 3
    writing(script, monkeypatch, 0, status=3)
    with pytest.raises(RuntimeError, match="ended by itself with status 3"):
        script.kill_living(tmp_path, tmp_path / "broken", 3, 2.0)


def test_files_that_hold_the_time_are_compared_in_all_else(script, tmp_path):
    def run(name: str, *, created: str = "1", auc: float = 0.7, status: str = "k") -> dict[str, str]:
        folder = tmp_path / name
        (folder / "vector").mkdir(parents=True)
        vector = {"auc": auc, "provenance": {"created": created, "seed": 0}}
        stage = {"key": status, "finished": created, "seconds": len(name), "summary": {"folder": str(folder), "auc": auc}}
        (folder / "vector" / "persona_vector.json").write_text(json.dumps(vector))
        (folder / "manifest.json").write_text(json.dumps({"stages": {"vector": stage}}))
        return script.hashes(folder)

    first = run("one")
    assert set(first) == {"vector/persona_vector.json", "manifest.json"}
    assert run("another", created="2") == first
    assert set(run("third", auc=0.8).items()) & set(first.items()) == set()
    assert run("fourth", status="other")["vector/persona_vector.json"] == first["vector/persona_vector.json"]
    assert run("fifth", status="other")["manifest.json"] != first["manifest.json"]

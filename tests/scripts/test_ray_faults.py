"""The harness that breaks a Ray cluster: it counts what is lost and repeated, knows its own processes, and sees a job through."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(sys, "path", [str(ROOT / "scripts"), *sys.path])
    yield importlib.import_module("ray_faults")
    for name in ("ray_faults", "kills"):
        sys.modules.pop(name, None)


def test_rows_are_counted_wherever_they_lie(script: Any, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    for place, ids in (("rollouts", ["a", "b"]), ("shards/000-of-002/rollouts", ["b", "c"])):
        (tmp_path / place).mkdir(parents=True)
        parquet.write_table(pa.table({"id": ids}), tmp_path / place / "part-00000.parquet")
    assert script.rows(tmp_path) == {"a": 1, "b": 2, "c": 1}
    for number, names in (("00000", "xy"), ("00001", "yz")):
        piece = tmp_path / "index" / "shards" / number
        piece.mkdir(parents=True)
        (piece / "feature_codes.json").write_text(json.dumps({"documents": [[name, "texts", name] for name in names]}))
    assert sorted(script.rows(tmp_path / "index").values()) == [1, 1, 2]


def test_processes_of_others_are_none_of_the_clusters(script: Any, tmp_path: Path) -> None:
    there = script.Cluster(tmp_path / "cluster", 1)
    assert os.getpid() in script._processes()
    assert there.processes() == {} and there.busy() == []


@pytest.mark.stress
@pytest.mark.timeout(1800)
def test_an_index_survives_kills_and_a_restart_of_the_head() -> None:
    pytest.importorskip("ray")
    command = [sys.executable, str(ROOT / "scripts" / "ray_faults.py"), "--only", "index", "--kills", "2", "--no-growth"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1700)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["workers_killed"] == 2 and found["heads_restarted"] == 1 and len(found["runs"]) >= 2
    assert found["lost"] == found["repeated"] == 0 and found["identical"]

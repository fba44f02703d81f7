"""The harness that kills stages: it kills, it resumes, and it sees a file that differs."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    yield importlib.import_module("kills")
    sys.modules.pop("kills", None)


def test_what_says_when_and_how_long_is_left_out_and_all_else_counts(script: Any, tmp_path: Path) -> None:
    def told(**fields: Any) -> dict[str, str]:
        (tmp_path / "a.json").write_text(json.dumps({"kept": [{"finished": "now", "value": 1}], **fields}))
        (tmp_path / "b.yaml").write_text(f"date: '2026-01-0{len(fields) + 1}T10:00:00Z'\nlabel: x\n")
        return script.hashes(tmp_path)

    first = told()
    assert told(seconds=3.5) == first and set(first) == {"a.json", "b.yaml"}
    assert told(more=1) != first
    (tmp_path / "c.bin").write_bytes(b"\x00")
    assert script._difference(script.hashes(tmp_path), first) == ["a.json", "c.bin"]


@pytest.mark.stress
def test_a_stage_killed_five_times_ends_with_the_files_of_a_whole_run() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "kills.py"), "--only", "screen", "--kills", "5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)["screen"]
    assert found["identical"] == found["kills"] == 5 and found["n_files"] > 5

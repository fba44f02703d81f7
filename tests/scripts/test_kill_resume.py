"""A run that is killed and resumed ends with the files of an uninterrupted one."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "kill_resume.py"


@pytest.mark.stress
def test_a_run_killed_at_ten_points_ends_with_the_same_files(tmp_path):
    spec = importlib.util.spec_from_file_location("kill_resume", SCRIPT)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    found = script.kill_and_compare(tmp_path, 10)
    assert found["identical"] == 10, found["differing"]
    assert len(set(found["parts_at_kill"])) >= 8 and found["n_files"] > 100

"""A disk that fills up at any write of a long job: told in words, nothing half-written, and with room the very same files."""

from __future__ import annotations

import errno
import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from workbench.base.errors import WorkbenchError
from workbench.models.hookpoints import HookPoint
from workbench.models.sampling import Sampling
from workbench.personas.rollouts import RolloutDesign, collect_rollouts
from workbench.personas.traits import load_trait

ROOT = Path(__file__).resolve().parents[2]
DESIGN = RolloutDesign(sampling=Sampling(max_new_tokens=3), n_extraction=1, n_evaluation=2, n_instructions=1, batch_size=4)


def collect(model: Any, folder: Path) -> None:
    collect_rollouts(load_trait("evil"), model, folder, design=DESIGN, hooks=[HookPoint(0)], token_hooks=[HookPoint(0)])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def full_at(wanted: int, counted: list[int]) -> Callable[..., tuple[int, str]]:
    """mkstemp on a disk that is full from the `wanted`-th file on."""
    plain = tempfile.mkstemp

    def make(*args: Any, **options: Any) -> tuple[int, str]:
        counted[0] += 1
        if counted[0] >= wanted:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return plain(*args, **options)

    return make


def test_every_write_may_find_a_full_disk(tiny_model, tmp_path, monkeypatch):
    counted = [0]
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "mkstemp", full_at(10**9, counted))
        collect(tiny_model, tmp_path / "whole")
    expected, n_writes = contents(tmp_path / "whole"), counted[0]
    assert n_writes == len(expected) >= 4
    for wanted in range(1, n_writes + 1):
        folder = tmp_path / f"full-{wanted}"
        with monkeypatch.context() as patch:
            patch.setattr(tempfile, "mkstemp", full_at(wanted, [0]))
            with pytest.raises(WorkbenchError, match="the disk is full"):
                collect(tiny_model, folder)
        left = contents(folder)
        assert len(left) == wanted - 1 and left.items() <= expected.items()
        collect(tiny_model, folder)
        assert contents(folder) == expected


def test_the_script_of_faults_sees_a_refusal_a_traceback_and_what_an_error_asks_to_delete(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    module = importlib.import_module("fault_bench")
    bench = module.Bench.__new__(module.Bench)
    bench.now, bench.inputs, bench.n_refused = tmp_path, {}, 0
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "part.parquet").write_text("torn")
    said = "error: run/part.parquet is torn\nexpected: a whole one\nwhat to do: delete it and run the command again\n"
    assert bench.wrong(2, said) is None and bench.n_refused == 1
    assert bench.wrong(2, said, "disk is full") is not None
    assert bench.wrong(1, "") is not None and bench.wrong(0, "") is None
    assert "KeyError" in str(bench.wrong(2, "Traceback (most recent call last):\nKeyError: 'x'\n" + said))
    assert bench.deleted(said) and not (tmp_path / "run" / "part.parquet").exists() and not bench.deleted(said)


@pytest.mark.stress
def test_a_stage_survives_every_fault() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "faults.py"), "--only", "screen", "--most", "4", "--times", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["disk full"]["screen"] == [4, 4] and found["two"]["screen"] == [1, 1] and not found["_not_survived"]

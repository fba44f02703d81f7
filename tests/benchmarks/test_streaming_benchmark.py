"""The benchmark of streaming runs, and its exponents are those of a power law."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "streaming.py"


@pytest.mark.stress
def test_it_prints_its_ratio() -> None:
    sizes = ["--d-model=64", "--d-sae=1024", "--rows=4", "--tokens=16", "--rounds=2"]
    figures = json.loads(subprocess.run([sys.executable, SCRIPT, *sizes], check=True, capture_output=True, text=True).stdout)
    assert 0 < figures["range"][0] <= figures["ratio"] <= figures["range"][1]
    assert figures["gap"] < 1e-4
    assert figures["d_sae"] == 1024


def test_the_exponent_of_a_power_law_is_its_power() -> None:
    spec = importlib.util.spec_from_file_location("streaming_benchmark", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.exponent([1, 2, 4, 8], [3, 12, 48, 192]) == pytest.approx(2)

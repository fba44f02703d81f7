"""The pursuit's benchmark runs, and both sides choose the same rows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "pursuit.py"


@pytest.mark.stress
def test_it_prints_its_figures_and_both_sides_agree() -> None:
    sizes = ["--d-model=64", "--d-sae=2048", "--vectors=2", "--atoms=6", "--rounds=1"]
    figures = json.loads(subprocess.run([sys.executable, SCRIPT, *sizes], check=True, capture_output=True, text=True).stdout)
    assert figures["same_choices"] == 1.0
    assert figures["readings"] <= 6
    assert min(figures[name] for name in ("ratio_to_scikit_learn", "ratio_to_floor", "peak_memory_ratio")) > 0
    assert figures["d_sae"] == 2048

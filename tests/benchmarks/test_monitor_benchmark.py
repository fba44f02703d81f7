"""The benchmark of watching: it measures both sides on a tiny model, and its ratio is that of the rounds."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.tiny import tiny_model
from workbench.models.hookpoints import HookPoint
from workbench.personas.vectors import PersonaVector
from workbench.steering.monitor.monitor import Monitor

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "monitor_overhead.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("monitor_overhead", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_both_sides_are_measured_by_both_clocks(benchmark: ModuleType) -> None:
    model = tiny_model()
    vector = PersonaVector.from_direction(torch.ones(model.d_model), trait="x", model=model.description(), hook=HookPoint(1))
    found = benchmark.measured(model, Monitor.of(model, [vector]), 2, 4, 3)
    for clock in ("processor", "clock"):
        assert len(found[clock]["rounds"]) == 3
        assert 0 < found[clock]["interval"][0] <= found[clock]["ratio"] <= found[clock]["interval"][1]
    assert found["plain_seconds"] > 0


def test_the_ratio_is_the_median_of_the_rounds(benchmark: ModuleType) -> None:
    found = benchmark.ratio([1.1, 2.2, 6.0], [1.0, 2.0, 3.0])
    assert found["ratio"] == pytest.approx(1.1) and found["rounds"] == [1.1, 1.1, 2.0]

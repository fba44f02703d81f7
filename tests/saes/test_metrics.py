"""The log of a training run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from workbench.base.errors import WorkbenchError
from workbench.saes.metrics import Metrics, read_log


def test_rows_are_appended_and_those_after_a_checkpoint_forgotten(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "run")
    for step in (10, 20, 30):
        metrics.write({"step": step, "loss": 1 / step})
    with open(metrics.path, "a", encoding="utf-8") as file:
        file.write('{"step": 40, "lo')  # the process died here
    metrics.forget_after(20)
    assert [row["step"] for row in read_log(tmp_path / "run")] == [10, 20]


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_reporter_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    module = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb"}[name]
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(WorkbenchError, match=f"pip install {name}"):
        Metrics(tmp_path, report_to=name)


def test_nothing_is_reported_unless_asked(tmp_path: Path) -> None:
    assert Metrics(tmp_path).reporter is None

"""The log of a training run."""

from __future__ import annotations

import json
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


def test_lines_that_do_not_parse_are_dropped_wherever_they_are(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    lines = ['{"step": 10, "loss": 1.0}', '{"step": 20, "lo{"step": 20, "loss": 2.0}', "[1]", "null", '{"loss": 3.0}', "\x00\x00"]
    metrics.path.write_bytes("\n".join([*lines, '{"step": 30, "loss": 3.0}', ""]).encode() + b"\xff\xfe\n")
    assert [row["step"] for row in read_log(tmp_path)] == [10, 30]
    metrics.forget_after(30)
    assert metrics.path.read_text() == '{"step": 10, "loss": 1.0}\n{"step": 30, "loss": 3.0}\n'


def test_closing_twice_or_before_any_row_is_harmless(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    metrics.close()
    metrics.write({"step": 1, "loss": 1.0})
    metrics.close()
    metrics.close()
    assert len(read_log(tmp_path)) == 1


def test_every_sae_has_a_wandb_run_of_its_own_that_a_resume_goes_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    made = []
    real = wandb.init

    def init(**options: object) -> object:
        made.append((options, real(**options)))
        return made[-1][1]

    monkeypatch.setattr(wandb, "init", init)
    both = [Metrics(tmp_path / name, report_to="wandb", name=name) for name in ("a", "b")]
    for step in (1, 2):
        for metrics in both:
            metrics.write({"step": step, "loss": 1.0})
    assert made[0][1] is not made[1][1] and [run.step for _, run in made] == [2, 2]
    for metrics in both:
        metrics.close()
        metrics.close()
    again = Metrics(tmp_path / "a", report_to="wandb", name="a")
    again.forget_after(1)
    again.write({"step": 2, "loss": 1.0})
    again.close()
    a, b, resumed = [options["id"] for options, _ in made]
    assert a == resumed != b
    assert {options["resume"] for options, _ in made} == {"allow"}


def test_tensorboard_drops_the_rows_that_a_resume_makes_again(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # pyright: ignore

    first = Metrics(tmp_path, report_to="tensorboard")
    for step in (10, 20, 30):
        first.write({"step": step, "loss": 1.0})
    first.close()
    second = Metrics(tmp_path, report_to="tensorboard")
    second.forget_after(10)
    for step in (20, 30):
        second.write({"step": step, "loss": 2.0})
    second.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(one.step, one.value) for one in events.Scalars("loss")] == [(10, 1.0), (20, 2.0), (30, 2.0)]
    assert [json.loads(line)["step"] for line in second.path.read_text().splitlines()] == [10, 20, 30]

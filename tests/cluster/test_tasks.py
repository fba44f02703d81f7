"""Tasks on Ray: order, errors, what is cancelled, and clusters that are not there."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from workbench.base.errors import WorkbenchError
from workbench.cluster import on_ray

ray: Any = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def somebodys_ray() -> Iterator[None]:
    """Ray as another part of the process started it, with one core."""
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, address="local")
    yield
    ray.shutdown()


def _marks(folder: Path) -> Any:
    def task(name: str) -> str:
        time.sleep(0.3)
        if name == "bad":
            raise WorkbenchError("it failed", "it not to", "do nothing")
        if name == "dies":
            os._exit(1)
        (folder / name).touch()
        return name

    return task


def test_results_come_in_the_order_of_the_tasks(somebodys_ray: None) -> None:
    def slow_first(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    assert list(on_ray(slow_first, [0.5, 0.0, 0.2], cpus_per_task=0.3)) == [0.5, 0.0, 0.2]
    assert list(on_ray(slow_first, [])) == []
    assert ray.is_initialized()  # it is not ours to end


def test_tasks_are_taken_as_results_are_asked_for(somebodys_ray: None) -> None:
    taken: list[int] = []

    def tasks() -> Iterator[int]:
        for number in range(40):
            taken.append(number)
            yield number

    results = on_ray(lambda number: number, tasks(), cpus_per_task=0.5, ahead=3)
    for number in range(40):
        assert next(results) == number
        assert len(taken) <= number + 6, "three for each of the two that run at once, and no more"
    assert not list(results) and len(taken) == 40


def test_tasks_work_in_the_folder_of_the_caller(
    somebodys_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))

    def task(name: str) -> str | None:
        Path(name).touch()
        return os.environ.get("WORKBENCH_CACHE")

    assert len(list(on_ray(task, ["a", "b"]))) == 2
    assert {file.name for file in tmp_path.iterdir()} == {"a", "b"}


def test_an_error_cancels_the_waiting_tasks_of_a_ray_that_somebody_else_started(somebodys_ray: None, tmp_path: Path) -> None:
    with pytest.raises(WorkbenchError, match=r"(?i)it failed"):
        list(on_ray(_marks(tmp_path), ["bad", *"abcdef"]))
    time.sleep(3)
    assert len(list(tmp_path.iterdir())) <= 1  # the one that had begun


def test_the_error_of_a_late_task_does_not_wait_for_the_earlier_ones(somebodys_ray: None) -> None:
    def task(seconds: float) -> None:
        time.sleep(seconds)
        if not seconds:
            raise WorkbenchError("it failed", "it not to", "do nothing")

    started = time.monotonic()
    with pytest.raises(WorkbenchError, match=r"(?i)it failed"):
        list(on_ray(task, [30.0, 0.0], cpus_per_task=0.5))
    assert time.monotonic() - started < 20


@pytest.mark.stress  # half a minute: Ray waits for the process
def test_a_task_whose_process_dies_is_told_in_words(somebodys_ray: None, tmp_path: Path) -> None:
    with pytest.raises(WorkbenchError, match=r"(?i)task.*start it again"):
        list(on_ray(_marks(tmp_path), ["dies"]))


@pytest.mark.stress
def test_no_results_wanted_any_more_cancels_the_rest(somebodys_ray: None, tmp_path: Path) -> None:
    results = on_ray(_marks(tmp_path), list("abcdefgh"))
    assert next(iter(results)) == "a"
    results.close()  # pyright: ignore[reportAttributeAccessIssue]
    time.sleep(3)
    assert len(list(tmp_path.iterdir())) < 5


@pytest.mark.parametrize("where", ["address", "RAY_ADDRESS"])
def test_a_cluster_that_does_not_answer_is_told_in_words(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def refuse(address: str | None = None, **_: Any) -> None:
        raise ConnectionError(f"nobody at {address or os.environ['RAY_ADDRESS']}")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)  # the real one tries for a minute
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    address = "10.0.0.1:6379" if where == "address" else None
    with pytest.raises(WorkbenchError, match=r"10\.0\.0\.1:6379.*--address"):
        list(on_ray(str, ["a"], address=address))


def test_more_cores_than_any_machine_has_are_refused_instead_of_waited_for(somebodys_ray: None) -> None:
    with pytest.raises(WorkbenchError, match="OMP_NUM_THREADS=1"):
        list(on_ray(str, ["a"], cpus_per_task=2))


def test_gpus_that_no_machine_has_are_refused_instead_of_waited_for(somebodys_ray: None) -> None:
    with pytest.raises(WorkbenchError, match="GPU"):
        list(on_ray(str, ["a"], gpus_per_task=1))

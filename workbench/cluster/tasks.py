"""Independent tasks on Ray: those of a cluster, or this machine's cores and GPUs."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from workbench.base.errors import WorkbenchError

Task = TypeVar("Task")
Result = TypeVar("Result")
GRACE = 30.0
"""Seconds that cancelled tasks have to write their checkpoints before a Ray of our own ends."""


def on_ray(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    *,
    address: str | None = None,
    cpus_per_task: float = 1,
    gpus_per_task: float = 0,
) -> Iterator[Result]:
    """`map(function, tasks)` with every task a Ray task; results come in the order of the tasks.

    `address` is a cluster's ("auto", "10.0.0.1:6379", "ray://host:10001") or "local". Without it the variable RAY_ADDRESS
    counts, then a cluster that `ray start` started on this machine; else Ray starts here and ends with the tasks. A Ray
    that this process has initialised already is used as it is. Other machines need this package, and the files that tasks
    read and write on a file system that all share, under absolute paths. The first error cancels the other tasks (as
    Ctrl-C would stop them) and is raised here; so do Ctrl-C and closing the iterator.
    """
    ray = _ray()
    ours = not ray.is_initialized()
    if ours:
        _start(ray, address)
    pending: list[Any] = []
    try:
        _check_gpus(ray, gpus_per_task)
        remote: Any = ray.remote(num_cpus=cpus_per_task, num_gpus=gpus_per_task, max_retries=2)(function)
        waiting = [remote.remote(task) for task in tasks]
        pending += waiting
        for reference in waiting:
            while reference in pending:  # whichever ends next: an error is raised when it happens
                ended, pending[:] = ray.wait(pending, num_returns=1)
                ray.get(ended)
            yield ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, WorkbenchError) else error from None
    except ray.exceptions.RayError as error:
        raise WorkbenchError(
            f"a task on Ray was lost: {str(error).splitlines()[0]}",
            "a worker process that lives until its task ends",
            "look at its memory (fewer SAEs per pass need less) and start it again: finished work is kept",
        ) from error
    finally:
        _cancel(ray, pending, wait=ours)
        if ours:
            ray.shutdown()


def _ray() -> Any:
    try:
        import ray  # pyright: ignore[reportMissingImports]
        import ray.exceptions  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise WorkbenchError(
            "Ray is not installed", "the cluster extra", "pip install persona-workbench[cluster], or --engine local"
        ) from error
    return ray


def _start(ray: Any, address: str | None) -> None:
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise WorkbenchError(
            f"Ray at {address or os.environ.get('RAY_ADDRESS') or 'this machine'} cannot be used: {error}",
            "a running cluster",
            "check --address and RAY_ADDRESS (and RAY_AUTH_MODE=token, if it asks for a token), or say --address local",
        ) from error


def _check_gpus(ray: Any, wanted: float) -> None:
    """Refuse tasks that no machine could ever take: Ray would let them wait in silence."""
    if wanted and ray.cluster_resources().get("GPU", 0) < wanted:
        raise WorkbenchError(
            f"tasks on {wanted:g} GPU(s), but the cluster has none", "a machine with a GPU", "add one, or say --device cpu"
        )


def _cancel(ray: Any, pending: Sequence[Any], *, wait: bool) -> None:
    """Stop what has not ended: tasks that wait are dropped, those that run get a KeyboardInterrupt."""
    for reference in pending:
        ray.cancel(reference)
    if pending and wait:
        ray.wait(list(pending), num_returns=len(pending), timeout=GRACE)

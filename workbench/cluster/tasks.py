"""Independent tasks on Ray: this machine's cores and GPUs when no cluster is named."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from workbench.base.errors import WorkbenchError

Task = TypeVar("Task")
Result = TypeVar("Result")


def on_ray(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    *,
    address: str | None = None,
    cpus_per_task: float = 1,
    gpus_per_task: float = 0,
) -> Iterator[Result]:
    """`map(function, tasks)` with every task a Ray task; results come in the order of the tasks.

    `address` is a cluster's ("auto", "ray://host:10001"); without it Ray starts on this machine. Files that tasks read and
    write must be on a file system that all machines share. A task's error stops the others and is raised here.
    """
    try:
        import ray
        from ray.exceptions import RayTaskError
    except ImportError as error:
        raise WorkbenchError(
            "Ray is not installed", "the cluster extra", "pip install persona-workbench[cluster], or --engine local"
        ) from error
    ours = not ray.is_initialized()
    if ours:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        remote: Any = ray.remote(num_cpus=cpus_per_task, num_gpus=gpus_per_task, max_retries=2)(function)
        waiting = [remote.remote(task) for task in tasks]
        for reference in waiting:
            yield ray.get(reference)
    except RayTaskError as error:
        raise error.cause if isinstance(error.cause, WorkbenchError) else error from None
    finally:
        if ours:
            ray.shutdown()

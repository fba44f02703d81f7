"""Independent tasks on Ray: those of a cluster, or this machine's cores and GPUs."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import wraps
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from workbench.base.errors import WorkbenchError
from workbench.base.settings import cache_dir

Task = TypeVar("Task")
Result = TypeVar("Result")
AHEAD = 4
"""Tasks given to Ray and not yet handed out, for each that can run at once; the others wait here until they are asked for."""
GRACE = 30.0
"""Seconds that cancelled tasks have to write their checkpoints before a Ray of our own ends."""


def on_ray(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    *,
    address: str | None = None,
    cpus_per_task: float = 1,
    gpus_per_task: float = 0,
    ahead: float = AHEAD,
) -> Iterator[Result]:
    """`map(function, tasks)` with every task a Ray task; results come in the order of the tasks.

    `address` is a cluster's ("auto", "10.0.0.1:6379", "ray://host:10001") or "local". Without it the variable RAY_ADDRESS
    counts, then a cluster that `ray start` started on this machine; else Ray starts here and ends with the tasks. A Ray
    that this process has initialised already is used as it is. Other machines need this package, and the files that tasks
    read and write on a file system that all share. Tasks work in the folder of the caller where their machine has it, and
    elsewhere need absolute paths. At most `ahead` x as many tasks as can run at once are taken from `tasks` before their
    results are: what makes tasks as it goes never fills the memory. A task whose process dies is begun again, twice at most.
    The first error cancels the other tasks (as Ctrl-C would stop them) and is raised here; so do Ctrl-C and closing the
    iterator.

    Raises:
        WorkbenchError: no Ray, no such cluster, tasks that none of its machines could take, a task whose process died three
            times, a full disk for Ray's objects, and what a task raised.
    """
    ray = _ray()
    ours = not ray.is_initialized()
    if ours:
        _start(ray, address)
    pending: list[Any] = []
    given: deque[Any] = deque()
    waiting = iter(tasks)
    try:
        _check_room(ray, cpus_per_task, gpus_per_task)
        remote: Any = ray.remote(num_cpus=cpus_per_task, num_gpus=gpus_per_task, max_retries=2)(_as_here(function))
        while True:
            most = max(1, int(ahead * _at_once(ray, cpus_per_task, gpus_per_task)))
            for task in islice(waiting, max(0, most - len(given))):
                given.append(remote.remote(task))
                pending.append(given[-1])
            if not given:
                return
            while given[0] in pending:  # whichever ends next: an error is raised when it happens
                ended, pending[:] = ray.wait(pending, num_returns=1)
                ray.get(ended)
            yield ray.get(given.popleft())
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, WorkbenchError) else error from None
    except ray.exceptions.OutOfDiskError as error:
        raise WorkbenchError(
            "the disk is full that Ray keeps objects on",
            "free space where the machines of the cluster spill what does not fit their memory",
            "free some, or end what fills it, and start it again: finished work is kept",
        ) from error
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


def _as_here(function: Callable[[Task], Result]) -> Callable[[Task], Result]:
    """`function` in the folder and with the cache of this process, where the machine that runs it has them."""
    here, cache = Path.cwd(), cache_dir().resolve()

    @wraps(function)
    def there(task: Task) -> Result:
        if here.is_dir():
            os.chdir(here)
        if cache.is_dir():
            os.environ.setdefault("WORKBENCH_CACHE", str(cache))
        return function(task)

    return there


def _at_once(ray: Any, cpus: float, gpus: float) -> float:
    """How many such tasks the cluster could run at the same time, at least one."""
    has = ray.cluster_resources()
    return max(1.0, min((has.get(name, 0) // wanted for name, wanted in (("CPU", cpus), ("GPU", gpus)) if wanted), default=1.0))


def _check_room(ray: Any, cpus: float, gpus: float) -> None:
    """Refuse tasks that no machine could ever take: Ray would let them wait in silence."""
    if gpus and ray.cluster_resources().get("GPU", 0) < gpus:
        raise WorkbenchError(
            f"tasks on {gpus:g} GPU(s), but the cluster has none", "a machine with a GPU", "add one, or say --device cpu"
        )
    most = max((node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]), default=0)
    if 0 < most < cpus:  # without any, machines may still come
        raise WorkbenchError(
            f"tasks of {cpus:g} cores each, but no machine of the cluster has more than {most:g}",
            "tasks that fit a machine",
            f"set OMP_NUM_THREADS={most:g}: a task takes as many cores as threads compute here",
        )


def _cancel(ray: Any, pending: Sequence[Any], *, wait: bool) -> None:
    """Stop what has not ended: tasks that wait are dropped, those that run get a KeyboardInterrupt."""
    for reference in pending:
        ray.cancel(reference)
    if pending and wait:
        ray.wait(list(pending), num_returns=len(pending), timeout=GRACE)

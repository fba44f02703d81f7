"""The benchmarks of lm-evaluation-harness under edits, for users who have it: MMLU, and whatever else it knows.

It is no dependency: it brings its own data sets from the hub. The model is the one that is loaded here, with the edits in force
on all tokens.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError

from ..apply import steered
from .capability import SCOPE

if TYPE_CHECKING:
    from workbench.models.model import Model

    from ..edits import Edit


def benchmark_scores(
    model: Model,
    tasks: Sequence[str] = ("mmlu",),
    *,
    edits: Iterable[Edit] = (),
    limit: int | None = None,
    batch_size: int = 8,
    task_manager: Any = None,
) -> dict[str, dict[str, float]]:
    """{task: {metric: value}} as lm-eval names them ("acc,none", "acc_stderr,none", ...).

    `limit`: items of each task. Raises WorkbenchError where lm-eval is not installed.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise WorkbenchError(
            "lm-eval is not installed",
            "the package that holds these benchmarks",
            "install it beside this one (`pip install lm-eval`), or measure on the question sets at hand (`make_exam`)",
        )
    lm_eval: Any = importlib.import_module("lm_eval")
    huggingface: Any = importlib.import_module("lm_eval.models.huggingface")
    harness = huggingface.HFLM(pretrained=model.hf, tokenizer=model.tokenizer, batch_size=batch_size, backend="causal")
    with steered(model, [replace(edit, scope=SCOPE) for edit in edits]):  # pyright: ignore[reportArgumentType]
        found = lm_eval.simple_evaluate(
            model=harness, tasks=list(tasks), limit=limit, bootstrap_iters=0, task_manager=task_manager
        )
    rows = found["results"].items()
    return {task: {key: value for key, value in row.items() if isinstance(value, float)} for task, row in rows}

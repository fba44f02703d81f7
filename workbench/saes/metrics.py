"""Where a training run's metrics go: always log.jsonl, and TensorBoard or Weights & Biases when asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.base.errors import WorkbenchError
from workbench.base.store import atomic_write

LOG = "log.jsonl"


class Metrics:
    """Rows {step, loss, variance_explained, l0, dead_share, threshold, learning_rate} of one run."""

    def __init__(self, folder: Path, *, report_to: str = "none", name: str = "sae") -> None:
        self.path = folder / LOG
        self.reporter = _reporter(report_to, folder, name)

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(dict(row)) + "\n")
        if self.reporter is not None:
            self.reporter({key: value for key, value in row.items() if key != "step"}, row["step"])

    def forget_after(self, step: int) -> None:
        """Drop rows of later steps (they are made again after a resume), and a half-written last line."""
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
            atomic_write(self.path, "".join(kept))


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's log.jsonl, in the order of the steps."""
    path = Path(folder) / LOG
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.strip()]


def _reporter(name: str, folder: Path, run: str) -> Any:
    try:
        if name == "tensorboard":
            from torch.utils.tensorboard import SummaryWriter

            writer = SummaryWriter(str(folder))
            return lambda row, step: [writer.add_scalar(key, value, step) for key, value in row.items()]
        if name == "wandb":
            import wandb

            session = wandb.init(project="persona-workbench", name=run, dir=str(folder))
            return lambda row, step: session.log(row, step=step)
    except ImportError as error:
        raise WorkbenchError(
            f"training.report_to is {name}, which is not installed", f"the package {name}", f"install it (pip install {name})"
        ) from error
    return None

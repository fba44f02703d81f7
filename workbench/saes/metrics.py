"""Where a training run's metrics go: always log.jsonl, and TensorBoard or Weights & Biases when asked."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from workbench.base.errors import WorkbenchError
from workbench.base.store import atomic_write, read_text

LOG, WANDB_ID = "log.jsonl", "wandb-id.txt"


class Metrics:
    """Rows {step, loss, variance_explained, l0, dead_share, threshold, learning_rate} of one run."""

    def __init__(self, folder: Path, *, report_to: str = "none", name: str = "sae") -> None:
        self.path = folder / LOG
        self.reporter = _reporter(report_to, folder, name)

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row; a run that begins or goes on drops what an earlier one left behind it first (`forget_after`)."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(dict(row)) + "\n")
        if self.reporter is not None:
            self.reporter.write({key: value for key, value in row.items() if key != "step"}, row["step"])

    def forget_after(self, step: int) -> None:
        """Drop rows of later steps (they are made again after a resume), and lines that hold no row."""
        if self.path.exists():
            kept = [row for row in read_log(self.path.parent) if row["step"] <= step]
            atomic_write(self.path, "".join(json.dumps(row) + "\n" for row in kept))

    def close(self) -> None:
        """Send what is left and end the report; again, or before any row, it does nothing."""
        if self.reporter is not None:
            self.reporter.close()


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's log.jsonl, in the order they were written; what an interruption left half-written is no row."""
    path = Path(folder) / LOG
    lines = path.read_bytes().decode("utf-8", "replace").split("\n") if path.exists() else []
    return [row for row in map(_row, lines) if row is not None]


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None


class Reporter(Protocol):
    """Somewhere else that rows are shown."""

    def write(self, row: Mapping[str, float], step: int) -> None: ...

    def close(self) -> None: ...


class _TensorBoard:
    """Event files in the run's folder, opened with the first row: what stood at its step and later is purged."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.folder, self.open, self.writer = folder, SummaryWriter, None

    def write(self, row: Mapping[str, float], step: int) -> None:
        if self.writer is None:
            self.writer = self.open(str(self.folder), purge_step=step)
        for key, value in row.items():
            self.writer.add_scalar(key, value, step)
        self.writer.flush()

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None


class _Wandb:
    """A W&B run of its own, opened with the first row; a resumed training goes on with the run named in its folder."""

    def __init__(self, folder: Path, name: str) -> None:
        import wandb

        self.folder, self.name, self.wandb, self.session = folder, name, wandb, None

    def write(self, row: Mapping[str, float], step: int) -> None:
        if self.session is None:
            self.session = self._start()
        self.session.log(dict(row), step=step)  # W&B drops rows of steps that it has

    def _start(self) -> Any:
        try:
            return self.wandb.init(
                project="persona-workbench", name=self.name, id=self._id(), resume="allow", reinit="create_new",
                dir=str(self.folder),
            )  # fmt: skip
        except self.wandb.Error as error:
            raise WorkbenchError(
                f"Weights & Biases could not be started: {error}",
                "a login, or WANDB_MODE=offline",
                "run `wandb login`, or set training.report_to to none: the training resumes",
            ) from error

    def _id(self) -> str:
        # Kept in the folder, not made of its path: the same path on two machines, or a folder begun anew, is another run.
        path = self.folder / WANDB_ID
        if not path.exists():
            atomic_write(path, secrets.token_hex(8) + "\n")
        return read_text(path).strip()

    def close(self) -> None:
        if self.session is not None:
            self.session.finish()
            self.session = None


def _reporter(name: str, folder: Path, run: str) -> Reporter | None:
    try:
        if name == "tensorboard":
            return _TensorBoard(folder)
        if name == "wandb":
            return _Wandb(folder, run)
    except ImportError as error:
        raise WorkbenchError(
            f"training.report_to is {name}, which is not installed", f"the package {name}", f"install it (pip install {name})"
        ) from error
    return None

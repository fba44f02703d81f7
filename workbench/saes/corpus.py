"""Real text in documents, each with one role: SAE training, evaluation, or the evidence of labels.

A document's role follows from the hash of its text alone, so that no text is ever used under two roles
(rigour: one role per text set). Sources are the assets of `workbench.models.assets`, read as data, never imported.
"""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TextIO

from workbench.base.errors import WorkbenchError, unknown_name
from workbench.base.store import check_ordinary, sha256_bytes

logger = logging.getLogger(__name__)

# Label sets that train or test a judge, or that probe SAEs for harm: SAE training never reads them.
RESERVED_WORDS = ("hate", "offens", "toxi", "ethic", "moral", "harm", "abus", "insult")
HELD_OUT_PERCENT = 5
OWN = "file:"  # how the sources of a user's own files begin
FILE_ROLES = ("train", "held_out")  # of a user's own text
BEGINNING = 1_100
"""Characters of a document of a user's own file that decide its role, at most: about what 256 tokens hold."""
MAX_LINE = 1 << 26
"""Characters that a line of a user's own file may have."""


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


def source(name_or_path: str, role: str, *, cut: int | None = BEGINNING) -> Iterator[Document]:
    """The documents of a corpus that have this role: a named source, or a user's own file (train, held_out).

    What is read of a document of one's own decides its role: its first `cut` characters (at most BEGINNING; None: all of
    it), so that documents with the same beginning do not stand on both sides. Named sources know no `cut`.

    Raises WorkbenchError at once for a source, a role or a file that does not exist; nothing is read before the first
    document is asked for.
    """
    known = _sources()
    path = own_file(name_or_path)
    if path is not None and role in FILE_ROLES:
        return _of_role(path, role, None if cut is None else min(cut, BEGINNING))
    if path is None and (name_or_path, role) in known:
        return known[name_or_path, role]()
    roles = FILE_ROLES if path is not None else tuple(r for name, r in known if name == name_or_path)
    if roles:
        raise WorkbenchError(
            f"the text of {name_or_path} is not for {role}", f"one of {', '.join(roles)}", "choose another text"
        )
    if _looks_like_a_path(name_or_path):
        found = "is a folder" if Path(name_or_path).expanduser().is_dir() else "does not exist"
        raise WorkbenchError(
            f"the file {name_or_path} {found}", "a UTF-8 .txt or .jsonl file", "check data.corpus in the recipe"
        )
    names = sorted({name for name, r in known if r == role})
    raise unknown_name("corpus", name_or_path, names, remedy="a path to a .txt or .jsonl file serves as well")


def _of_role(path: Path, role: str, cut: int | None) -> Iterator[Document]:
    n = 0
    for document in text_file(path):
        n += 1
        beginning = document if cut is None else Document.of(document.text[:cut], document.source)
        if (beginning.bucket < HELD_OUT_PERCENT) == (role == "held_out"):
            yield document
    if n == 1 and role == "train" and path.suffix != ".jsonl":
        logger.warning("%s is a single document: no blank line separates its texts.", path)


def own_file(name_or_path: str) -> Path | None:
    """The user's own file that a corpus names; None for a named source."""
    path = Path(name_or_path).expanduser()
    return path if path.is_file() else None


def _looks_like_a_path(name: str) -> bool:
    path = Path(name).expanduser()
    return path.exists() or bool(path.suffix) or any(sign in name for sign in "/\\~")


def documents(name: str, role: str, *, limit: int | None = None) -> Iterator[Document]:
    """The documents of a source that have this role, in a fixed order.

    Sources and roles: "sae-probes" (train, held_out), "owt" and "wikipedia" (evaluation, labels).
    Raises WorkbenchError for a source or role that does not exist.
    """
    known = _sources()
    if (name, role) not in known:
        raise unknown_name("text source and role", f"{name}/{role}", [f"{n}/{r}" for n, r in known])
    yield from islice(known[name, role](), limit)


def _sources() -> dict[tuple[str, str], Callable[[], Iterator[Document]]]:
    return {
        ("sae-probes", "train"): lambda: _probes(held_out=False),
        ("sae-probes", "held_out"): lambda: _probes(held_out=True),
        ("owt", "evaluation"): lambda: _web("owt", even=True),
        ("owt", "labels"): lambda: _web("owt", even=False),
        ("wikipedia", "evaluation"): lambda: _web("wikipedia", even=True),
        ("wikipedia", "labels"): lambda: _web("wikipedia", even=False),
    }


def text_file(path: str | Path) -> Iterator[Document]:
    """A user's own text: JSONL with a "text" key a line, or plain text with blank lines between documents.

    Their source is "file:" and the file's name: no name of a file can be taken for another source's. Read as far as it is
    asked for, one document in memory at a time.
    """
    path = Path(path)
    lines_only = path.suffix == ".jsonl"
    try:
        # JSON may hold every sign that Python takes for the end of a line, except the line feed itself.
        with open(check_ordinary(path), encoding="utf-8-sig", newline="\n" if lines_only else None) as file:
            lines = _bounded(path, file)
            for text in _jsonl_texts(path, lines) if lines_only else _blocks(lines):
                yield Document.of(text, f"{OWN}{path.name}")
    except (OSError, UnicodeDecodeError) as error:
        raise WorkbenchError(
            f"cannot read the text file {path}: {error}",
            "a UTF-8 text or JSONL file",
            "check data.corpus in the recipe",
        ) from error


def _bounded(path: Path, file: TextIO) -> Iterator[str]:
    """Its lines; one without end is refused before it is read."""
    while line := file.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            raise WorkbenchError(f"{path} has a line of more than {MAX_LINE:,} characters", "shorter lines", "divide them")
        yield line


def _jsonl_texts(path: Path, lines: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            text = json.loads(line)["text"]
        except (json.JSONDecodeError, KeyError, TypeError, IndexError) as error:
            raise _bad_line(f"{path}, line {number}: no JSON object with a text") from error
        if not isinstance(text, str):
            raise _bad_line(f"{path}, line {number}: the text is {text!r:.60}, no string")
        yield text


def _bad_line(found: str) -> WorkbenchError:
    return WorkbenchError(found, 'one {"text": "..."} a line', "mend or drop the line")


def _blocks(lines: Iterable[str]) -> Iterator[str]:
    block: list[str] = []
    for line in chain(lines, "\n"):
        if line.strip():
            block.append(line)
        elif text := "".join(block).strip():
            yield text
            block = []


def _web(name: str, *, even: bool) -> Iterator[Document]:
    """OpenWebText (CC0) or Wikipedia (CC BY-SA) documents of the `evals` asset, split in halves by hash."""
    for path in sorted(_asset("evals").rglob(f"{name}_5.jsonl")):
        with open(path, encoding="utf-8", newline="\n") as lines:
            for line in lines:
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


def spread(
    source: Iterable[Document], *, characters: int, per_source: int | None, cut: int
) -> Iterator[Document]:
    """The first documents, cut to `cut` characters: at most `per_source` characters of one set, and `characters` in all.

    Read no further than that. Of text that is all one set give no `per_source`: beyond it the rest would be read for nothing.
    """
    total = 0
    used: dict[str, int] = {}
    for document in source:
        if per_source is not None and used.get(document.source, 0) >= per_source:
            continue
        text = document.text[:cut]
        used[document.source] = used.get(document.source, 0) + len(text)
        total += len(text)
        yield Document(document.id, text, document.source)
        if total >= characters:
            return

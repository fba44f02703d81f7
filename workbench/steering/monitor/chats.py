"""Files of transcripts: JSON Lines, one JSON file, or a folder of JSON files.

Each transcript is a list of messages, or an object that has them under `messages` or (as safety-research/assistant-axis writes
them) under `conversation`. Whatever else the object says is kept. A `system_prompt` beside messages without one of their own
becomes the first message. Nothing in a file is executed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workbench.base.errors import WorkbenchError
from workbench.base.store import read_text

_EXPECTED = '{"messages": [{"role": ..., "content": ...}, ...]}'


def read_chats(path: str | Path) -> Iterator[dict[str, Any]]:
    """The transcripts of a file or folder, in order: {"messages": [...], "source": where it stands, ...}.

    Raises WorkbenchError for a line or file that holds none, naming it, and when there is none at all.
    """
    source, n = Path(path), 0
    files = sorted(source.rglob("*.json")) if source.is_dir() else [source]
    for file in files:
        for where, value in _values(file):
            n += 1
            yield _chat(value, where)
    if not n:
        raise WorkbenchError(f"{path} holds no transcript", "one JSON object per line, or JSON files", "choose another file")


def _values(file: Path) -> Iterator[tuple[str, Any]]:
    """(where it stands, JSON value) of every transcript of a file; a value that is no JSON is None."""
    text = read_text(file)
    if file.suffix.lower() == ".json":
        whole = _parsed(text)
        several = isinstance(whole, list) and not any(isinstance(one, dict) and "role" in one for one in whole)
        for number, one in enumerate(whole if several else [whole], start=1):
            yield (f"entry {number} of {file}" if several else str(file)), one
        return
    for number, line in enumerate(text.split("\n"), start=1):  # a JSON text may hold the other ends of lines as they are
        if line.strip():
            yield f"line {number} of {file}", _parsed(line)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _chat(value: Any, where: str) -> dict[str, Any]:
    found = {"messages": value} if isinstance(value, list) else value
    messages = (found.get("messages") or found.get("conversation")) if isinstance(found, dict) else None
    if not messages or not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise WorkbenchError(f"{where} is no transcript", _EXPECTED, "write one JSON object per line, or per file")
    system = found.get("system_prompt")
    if isinstance(system, str) and system and messages[0].get("role") != "system":
        messages = [{"role": "system", "content": system}, *messages]
    return {**{key: one for key, one in found.items() if key not in ("messages", "conversation")},
            "messages": messages, "source": where}  # fmt: skip

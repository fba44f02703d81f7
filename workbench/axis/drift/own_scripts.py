"""Scripts of one's own: a JSON list (or JSON Lines) of {id, domain, topic, turns: [what the user says, ...]}."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from workbench.axis.scripts import SCRIPT_SPLITS, Script
from workbench.base.errors import WorkbenchError
from workbench.base.store import read_text
from workbench.personas.fields import fields


def read_scripts(path: str | Path) -> tuple[Script, ...]:
    """The scripts of a file. `id` and `turns` are needed; `split` is "evaluation" where it is not said.

    Raises WorkbenchError for a file without scripts, an entry of another shape (it is named) and two of one id.
    """
    found = tuple(_script(entry, f"script {number} of {path}") for number, entry in enumerate(_entries(path), start=1))
    if not found or len({one.id for one in found}) < len(found):
        raise WorkbenchError(f"{path} holds {'two scripts of one id' if found else 'no script'}", "scripts with ids of their own",
                             "correct the file")  # fmt: skip
    return found


def _entries(path: str | Path) -> list[Any]:
    text = read_text(path)
    try:
        lines = [text] if text.lstrip().startswith("[") else [line for line in text.split("\n") if line.strip()]
        read = [json.loads(line) for line in lines]
        whole = read[0] if text.lstrip().startswith("[") else read
    except (ValueError, RecursionError):
        whole = None
    if not isinstance(whole, list):
        raise WorkbenchError(f"{path} is no list of scripts", '[{"id": ..., "domain": ..., "turns": [...]}, ...]',
                             "write a JSON list, or an object per line")  # fmt: skip
    return whole


def _script(entry: Any, where: str) -> Script:
    item = fields(entry, where)
    topic, domain = (item.text(name) if name in item.values else "" for name in ("topic", "domain"))
    split = item.choice("split", SCRIPT_SPLITS) if "split" in item.values else "evaluation"
    item.value("turns")  # refuses what is missing or empty
    return Script(item.text("id"), domain, topic, item.words("turns"), split)

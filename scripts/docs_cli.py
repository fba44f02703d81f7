"""The reference of the command line, made from the commands themselves.

    python scripts/docs_cli.py         # Markdown, as the site shows it

The same code gives the same text: commands in the order of `--help`, options in the order of the command's own help.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

PROGRAM = "workbench"


def commands() -> Iterator[tuple[str, Any]]:
    """("workbench sae train", the click command) for every command and group, groups before what is in them."""
    from typer.main import get_command

    from workbench.cli.app import app

    yield from _below(PROGRAM, get_command(app))


def _below(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    for key, one in getattr(command, "commands", {}).items():
        if not one.hidden:
            yield f"{name} {key}", one
            yield from _below(f"{name} {key}", one)


def reference() -> str:
    """One section per command: what it does, how it is called, its arguments and options."""
    return "\n\n".join(_section(name, command) for name, command in commands())


def _section(name: str, command: Any) -> str:
    depth = "#" * len(name.split())
    blocks = [f"{depth} `{name}` {{ #{name.replace(' ', '-')} }}", *_paragraphs(command.help or "")]
    if not hasattr(command, "commands"):
        context = command.make_context(name, [], resilient_parsing=True)
        blocks.append(f"```text\n{name} {' '.join(command.collect_usage_pieces(context))}\n```")
        records = [(one, one.get_help_record(context)) for one in command.get_params(context)]
        for title, kind in (("Arguments", "argument"), ("Options", "option")):
            rows = [record for one, record in records if record and one.param_type_name == kind and one.name != "help"]
            if rows:
                blocks.append("\n".join([f"| {title} | |", "|---|---|", *map(_row, rows)]))
        blocks += _paragraphs(command.epilog or "")
    return "\n\n".join(blocks)


def _row(record: tuple[str, str]) -> str:
    names, about = record
    said = _safe(" ".join(about.split())).replace("|", "\\|")
    return f"| `{names}` | {said} |"


def _paragraphs(text: str) -> list[str]:
    """Paragraphs of a help text; what is indented, or follows \\b, is set as it stands."""
    done = []
    for part in re.split(r"\n\s*\n", text.replace("\f", "").strip("\n")):
        lines = part.splitlines()
        kept = bool(lines) and lines[0].strip() == "\b"
        lines = lines[1:] if kept else lines
        if lines and (kept or all(line.startswith("  ") for line in lines)):
            body = "\n".join(line.rstrip() for line in lines)
            done.append(f"```text\n{body}\n```")
        elif lines:
            done.append(_safe(" ".join(line.strip() for line in lines)))
    return done


def _safe(text: str) -> str:
    """Text as it is read: tags and emphasis signs outside `code` are shown, not obeyed."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([*_\[\]])", r"\\\1", one).replace("<", "&lt;") for one in parts[::2]]
    return "`".join(parts)


if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    print(reference())

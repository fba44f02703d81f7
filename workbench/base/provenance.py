"""Where a number comes from: versions, machine, code, inputs; and the ledger that gives every text one role."""

from __future__ import annotations

import functools
import platform
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .errors import WorkbenchError
from .store import content_hash, plain

PACKAGES = (
    "persona-workbench",
    "torch",
    "transformers",
    "transformer-lens",
    "sae-lens",
    "numpy",
    "scipy",
    "scikit-learn",
)


@functools.cache
def package_version(name: str) -> str | None:
    """The installed version of a distribution, None when it is not installed; imports nothing of it."""
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def package_versions() -> dict[str, str | None]:
    """The versions of the distributions that can change a number; None for those that are not installed."""
    from .. import __version__

    return {name: package_version(name) or (__version__ if name == PACKAGES[0] else None) for name in PACKAGES}


@functools.cache
def cpu_name() -> str:
    """The processor's name as the system gives it, else its architecture."""
    cpuinfo = Path("/proc/cpuinfo")  # present on Linux only; elsewhere the platform module knows
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.lower().startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine() or "unknown"


@functools.cache
def code_commit() -> str | None:
    """The commit of the checkout that runs, with "+dirty" when code differs from it; None in an installed wheel."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists() or not (root / "pyproject.toml").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return None
    # Only code counts: writing an evidence file must not make the code that wrote it look changed.
    changed = _git(root, "status", "--porcelain", "--", "workbench", "scripts", "benchmarks", "pyproject.toml")
    return f"{commit}+dirty" if changed else commit


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def provenance(
    *, seed: int | None = None, inputs: Mapping[str, str] | None = None, config: Any = None, **more: Any
) -> dict[str, Any]:
    """The record that every artefact carries: time, versions, machine, code, seed, input hashes and config.

    `inputs` maps names to hashes; `config` is any dataclass or JSON value, stored with its content hash.
    """
    record = {
        "created": _now(),
        "versions": package_versions(),
        "python": platform.python_version(),
        "system": platform.system(),
        "cpu": cpu_name(),
        "code_commit": code_commit(),
        "seed": seed,
        "inputs": dict(inputs or {}),
        "config": plain(config),
        "config_sha256": None if config is None else content_hash(config),
    }
    return {**record, **plain(more)}


def made(command: str, seed: int | None, seconds: float, inputs: Mapping[str, str]) -> dict[str, Any]:
    """The `_made` header of an evidence file: how to write it again, and on what it was written."""
    return {
        "command": command,
        "seed": seed,
        "versions": package_versions(),
        "cpu": cpu_name(),
        "seconds": round(float(seconds), 3),
        "code_commit": code_commit(),
        "inputs": dict(inputs),
    }


class DataLedger:
    """Which texts served which role; a text (by content hash) has one role for good.

    >>> ledger = DataLedger()
    >>> ledger.add("extraction", ["aa", "bb"])
    >>> ledger.add("extraction", ["aa"])  # the same role again is fine
    >>> ledger.add("sealed", ["bb"])
    Traceback (most recent call last):
    ...
    workbench.base.errors.WorkbenchError: ...
    """

    def __init__(self) -> None:
        self._roles: dict[str, str] = {}

    def add(self, role: str, hashes: Iterable[str]) -> None:
        """Record `hashes` under `role`; raises WorkbenchError (and records none) if one has another role."""
        new = list(hashes)
        for value in new:
            held = self._roles.get(value, role)
            if held != role:
                raise WorkbenchError(
                    f"the text {value[:12]} is used as {role!r} and as {held!r}",
                    "each text in one role",
                    "remove it from one of the two sets",
                )
        self._roles.update(dict.fromkeys(new, role))

    def role_of(self, value: str) -> str | None:
        """The role of a hash, None when it has none."""
        return self._roles.get(value)

    def to_dict(self) -> dict[str, list[str]]:
        """{role: sorted hashes}, for the provenance record."""
        grouped: dict[str, list[str]] = {}
        for value, role in sorted(self._roles.items()):
            grouped.setdefault(role, []).append(value)
        return dict(sorted(grouped.items()))

    @classmethod
    def from_dict(cls, roles: Mapping[str, Iterable[str]]) -> DataLedger:
        """The ledger that `to_dict` wrote; a hash under two roles is refused here as well."""
        ledger = cls()
        for role, hashes in roles.items():
            ledger.add(role, hashes)
        return ledger

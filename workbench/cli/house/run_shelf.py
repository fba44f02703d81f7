"""Run folders read from the outside: what lies in each, how far it got, what it found. Nothing is locked, loaded or changed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from workbench.base.errors import WorkbenchError, unknown_name
from workbench.base.runs import MANIFEST, living_holder, read_manifest
from workbench.base.store import read_json

from ..config import STAGES
from ..recorded import COMMANDS, JOB

RUNS = Path("runs")
_OTHERS = {
    "feature_index.json": "a feature index",
    "placebo_vectors.json": "placebo contrasts",
    "lab.json": "results of the laboratory",
    "mixtures.json": "known mixtures",
    "falsification.json": "a falsification",
    "transfer.json": "a transfer study",
    "comparison.json": "a comparison",
    "cfg.json": "an SAE",
}


@dataclass(frozen=True)
class Run:
    """A run folder: what its manifest and its small JSON files say."""

    folder: Path
    manifest: dict[str, Any]
    vector: dict[str, Any] = field(default_factory=dict)
    """persona_vector.json, {} without one."""
    decomposition: dict[str, Any] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def stages(self) -> dict[str, dict[str, Any]]:
        """The finished stages whose files are there, in their order."""
        found = self.manifest["stages"]
        return {name: found[name] for name in STAGES if name in found and self._complete(found[name])}

    def _complete(self, stage: dict[str, Any]) -> bool:
        return all((self.folder / str(name)).exists() for name in stage.get("files", ()))

    @property
    def settings(self) -> dict[str, Any]:
        """The recorded settings of the last job, {} of a run that is older than the record."""
        return dict((self.manifest.get(JOB) or {}).get("settings") or {})

    @property
    def trait(self) -> str | None:
        """The trait's name."""
        said = self.vector.get("trait") or self.settings.get("trait")
        return Path(said).name if said else None

    @property
    def model(self) -> str | None:
        """The model's name."""
        said = (self.vector.get("model") or {}).get("name") or self.settings.get("model")
        return str(said) if said else None

    @property
    def sae(self) -> str | None:
        """The SAE's id."""
        said = (self.decomposition.get("sae") or {}).get("id") or self.settings.get("sae")
        return str(said) if said else None

    @property
    def state(self) -> str:
        """ "running (process ...)", "finished", "stopped after STAGE" or "stopped early"."""
        if holder := living_holder(self.folder):
            return f"running ({holder})"
        wanted = (self.manifest.get(JOB) or {}).get("upto") or next(reversed(self.stages), None)
        if wanted in self.stages:
            return "finished"
        last = next(reversed(self.stages), None)
        return f"stopped after {last}" if last else "stopped early"

    def figures(self) -> dict[str, Any]:
        """{auc, auc_interval, share_error, n_verified, n_tested}: the headline, None where a stage is missing."""
        evidence, rows = self.vector.get("evidence") or {}, self.report.get("features") or []
        tested = [row["verified"] for row in rows if row.get("verified") is not None]
        return {
            "auc": evidence.get("auc_stripped"),
            "auc_interval": evidence.get("auc_stripped_interval"),
            "share_error": self.decomposition.get("share_error"),
            "n_verified": sum(tested) if tested else None,
            "n_tested": len(tested) or None,
        }

    def row(self) -> dict[str, Any]:
        """What `runs list --json` prints of it."""
        return self._row

    @cached_property
    def _row(self) -> dict[str, Any]:
        finished = [str(stage.get("finished", "")) for stage in self.stages.values()]
        return {
            "run": str(self.folder),
            "trait": self.trait,
            "model": self.model,
            "sae": self.sae,
            "stages": list(self.stages),
            "state": self.state,
            "bytes": size_of(self.folder),
            "changed": max(finished, default=None),
            **self.figures(),
            "commands": [one.get("command") for one in self.manifest.get(COMMANDS, []) if isinstance(one, dict)],
            "problems": list(self.problems),
        }


def read_run(folder: Path) -> Run:
    """The run in `folder`; a missing or foreign manifest is a WorkbenchError, other broken files are named in `problems`."""
    if not (folder / MANIFEST).is_file():
        known = [str(path) for path, there in _manifests(RUNS) if there]
        raise unknown_name("run", str(folder), known, remedy=f"a run is a folder with a {MANIFEST}; see `workbench runs list`")
    manifest = read_manifest(folder / MANIFEST)
    problems: list[str] = []

    def read(name: str) -> dict[str, Any]:
        path = folder / name
        if not path.exists():
            return {}
        try:
            value = read_json(path)
        except WorkbenchError as error:
            problems.append(error.found)
            return {}
        if not isinstance(value, dict):
            problems.append(f"{path} is not what a run writes")
        return value if isinstance(value, dict) else {}

    parts = (read("vector/persona_vector.json"), read("decomposition/decomposition.json"), read("report.json"))
    run = Run(folder, manifest, *parts, tuple(problems))
    with as_written(folder):
        run.row()  # whatever is odd in it shows here
    return run


@contextlib.contextmanager
def as_written(*folders: Path) -> Iterator[None]:
    """Within the block, tripping over a file that has another shape than a run writes is a WorkbenchError."""
    try:
        yield
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        named = " or ".join(map(str, folders))
        raise WorkbenchError(
            f"a JSON file in {named} is not what a run writes ({type(error).__name__}: {error})",
            "files as a run wrote them",
            "restore it, or delete that stage and run it again",
        ) from error


def list_runs(root: Path) -> tuple[list[Run], list[dict[str, str]]]:
    """(the runs below `root`, what else lies there): {path, what} of folders that are no run, or whose manifest is broken."""
    runs, others = [], []
    for folder, there in _manifests(root):
        if not there:
            others.append({"path": str(folder), "what": _what(folder)})
            continue
        try:
            runs.append(read_run(folder))
        except WorkbenchError as error:
            others.append({"path": str(folder), "what": f"broken: {error.found}"})
    return runs, others


def _manifests(root: Path) -> Iterator[tuple[Path, bool]]:
    """(folder, whether it has a manifest) of the folders in `root`; where one has none, those of its own that have."""
    for folder in _folders(root):
        if (folder / MANIFEST).is_file():
            yield folder, True
        elif inner := [one for one in _folders(folder) if (one / MANIFEST).is_file()]:
            yield from ((one, True) for one in inner)
        else:
            yield folder, False


def _folders(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:
        return []


def _what(folder: Path) -> str:
    for depth in ("", "*/", "*/*/"):
        for name, what in _OTHERS.items():
            if next(folder.glob(depth + name), None):
                return what
    return "not a run"


def size_of(path: Path) -> int:
    """Bytes of a file or of all files below a folder; links are not followed, what vanishes meanwhile does not count."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size if path.exists() else 0
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except OSError:
                continue
    return total

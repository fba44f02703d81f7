"""Run folders as the explorer reads them: what can be told before anything heavy is imported, and the values themselves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError
from workbench.base.store import read_json

if TYPE_CHECKING:
    from workbench.decomposition.result import Decomposition
    from workbench.labeling.labels import FeatureRecord, LabelSet
    from workbench.personas.vectors import PersonaVector

_VECTOR, _PARTS = "vector/persona_vector.json", "decomposition/decomposition.json"


@dataclass(frozen=True)
class RunOnDisk:
    """A run folder by its small files: the trait, the model (name, weights_hash, ...) and, of a decomposition, the SAE."""

    folder: Path
    trait: str
    model: dict[str, Any]
    sae: dict[str, Any] | None


@dataclass(frozen=True)
class ServedRun:
    """The values of a run; `parts` and `labels` are None where the run did not get that far."""

    folder: Path
    vector: PersonaVector
    parts: Decomposition | None
    labels: LabelSet | None

    @property
    def trait(self) -> str:
        """The trait's name."""
        return self.vector.trait


def find_runs(folders: Sequence[Path]) -> list[RunOnDisk]:
    """The runs in `folders`: run folders themselves, or folders of run folders (as a report on several traits makes them).

    Raises WorkbenchError for a folder that is neither, for two runs of one trait, and for runs of different models or SAEs.
    """
    found = [_run(folder) for given in folders for folder in _expanded(given)]
    _same("model", {str(run.folder): run.model.get("weights_hash") for run in found})
    _same("SAE", {str(run.folder): run.sae.get("weights_hash") for run in found if run.sae})
    for place, run in enumerate(found):
        twice = next((other for other in found[:place] if other.trait == run.trait), None)
        if twice is not None:
            raise WorkbenchError(
                f"{twice.folder} and {run.folder} are both of {run.trait}", "one run per trait", "leave one out"
            )
    return found


def _expanded(folder: Path) -> list[Path]:
    if (folder / _VECTOR).is_file():
        return [folder]
    inside = sorted(path.parents[1] for path in folder.glob(f"*/{_VECTOR}")) if folder.is_dir() else []
    if not inside:
        raise WorkbenchError(
            f"{folder} is not a run folder" if folder.exists() else f"there is no folder {folder}",
            f"a folder with {_VECTOR}, as `workbench extract`, `decompose` and `report` write it",
            "make one first, for instance with `workbench report evil`",
        )
    return inside


def _run(folder: Path) -> RunOnDisk:
    vector = _document(folder / _VECTOR, "trait", "model")
    parts = _document(folder / _PARTS, "sae") if (folder / _PARTS).is_file() else None
    return RunOnDisk(folder, str(vector["trait"]), dict(vector["model"]), None if parts is None else dict(parts["sae"]))


def _document(path: Path, *names: str) -> dict[str, Any]:
    found = read_json(path)
    if not isinstance(found, dict) or not all(found.get(name) for name in names):
        raise WorkbenchError(f"{path} does not say {' and '.join(names)}", "a file that a run wrote", "run it again")
    return found


def _same(what: str, hashes: dict[str, Any]) -> None:
    (first, known), *others = [*hashes.items()] or [("", None)]
    for folder, found in others:
        if found != known:
            raise WorkbenchError(
                f"{first} and {folder} are of different {what}s",
                f"runs of one {what}",
                f"serve the runs of each {what} on their own",
            )


def read_run(run: RunOnDisk) -> ServedRun:
    """The values of a run. Raises WorkbenchError for damaged files."""
    from workbench.decomposition.result import Decomposition
    from workbench.labeling.files.store import load_labels
    from workbench.personas.vectors import PersonaVector

    vector = PersonaVector.load(run.folder / "vector")
    if run.sae is None:
        return ServedRun(run.folder, vector, None, None)
    parts, labels = Decomposition.load(run.folder / "decomposition"), None
    if (run.folder / "labels").is_dir():
        labels = load_labels(parts.sae["id"], run.folder / "labels", sae_hash=parts.sae["weights_hash"])
    return ServedRun(run.folder, vector, parts, labels)


def known_labels(runs: Iterable[ServedRun], sae_id: str, sae_hash: str) -> dict[int, FeatureRecord]:
    """Feature -> what the runs say of it, the first one that says anything; then what the shelf says of other features."""
    from workbench.labeling.files.store import load_labels

    found: dict[int, FeatureRecord] = {}
    for labels in (*(run.labels for run in runs), load_labels(sae_id, sae_hash=sae_hash)):
        for feature, record in (labels.records if labels else {}).items():
            found.setdefault(feature, record)
    return found

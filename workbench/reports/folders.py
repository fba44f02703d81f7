"""A report from a run folder: what the stages, `workbench audit` and `workbench falsify` left, where it belongs together."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError
from workbench.base.store import read_json
from workbench.reports.belonging import is_audit_of, is_falsification_of
from workbench.reports.content import Report, find_trait, report
from workbench.reports.damage import refused_in_words

if TYPE_CHECKING:
    from workbench.decomposition.falsify import Falsification
    from workbench.decomposition.result import Decomposition
    from workbench.labeling.labels import LabelSet
    from workbench.labeling.taxonomy.values import MadeOf

VECTOR, DECOMPOSITION, LABELS, VIEWS, AUDIT, FALSIFY = "vector", "decomposition", "labels", "views", "audit", "falsify"
PLACEBO_SHARES = "placebo_shares.safetensors"
AUDIT_PARTS = ("behaviour", "screen", "answers", "second_sae")
_LOG = logging.getLogger(__name__)


def report_of_folder(folder: str | Path, *, trait: object | None = None, n_features: int = 30) -> Report:
    """The report on the run in `folder`, from its files alone: no model is loaded and nothing is read through one.

    Feature views, an audit and a falsification are taken when they are of this decomposition (by the hashes of vector and SAE),
    else left out with a note in the log; so is what was never made. The history of labels is that of the run and of the
    label store. `trait` gives the taxonomy (default: looked up by name).

    Raises WorkbenchError for a folder without vector or decomposition, and for damaged files.
    """
    place = checked_folder(folder)
    with refused_in_words(str(place)):
        return _report_of(place, trait, n_features)


def _report_of(place: Path, trait: object | None, n_features: int) -> Report:
    from workbench.decomposition.result import Decomposition
    from workbench.labeling.files.store import LabelSet, load_labels
    from workbench.labeling.label import features_to_label
    from workbench.personas.vectors import PersonaVector

    vector, parts = PersonaVector.load(place / VECTOR), Decomposition.load(place / DECOMPOSITION)
    sae_id, weights = str(parts.sae.get("id")), str(parts.sae.get("weights_hash"))
    owner = trait if trait is not None else find_trait(vector.trait)
    own = place / LABELS
    labels = load_labels(sae_id, own, sae_hash=weights) if own.is_dir() else LabelSet(sae_id, weights)
    store = load_labels(sae_id, sae_hash=weights, features={*features_to_label(parts, n_features), *labels.labels})
    return report(
        vector, parts, labels,
        trait=owner,
        n_features=n_features,
        views=_views(place, weights),
        audit=audit_in(place / AUDIT, parts),
        falsification=falsification_of(place, parts),
        made_of=_made_of(place, parts, labels, owner),
        history=store,
    )  # fmt: skip


def checked_folder(folder: str | Path) -> Path:
    """The folder itself when it holds a vector and its decomposition."""
    place = Path(folder).expanduser()
    missing = [name for name in (VECTOR, DECOMPOSITION) if not (place / name).is_dir()]
    if missing:
        raise WorkbenchError(
            f"{place} holds no {missing[0]}", "the folder of a finished `workbench report` or `workbench label`",
            "run `workbench report TRAIT`, or check the path",
        )  # fmt: skip
    return place


def _views(place: Path, weights: str) -> Any:
    from workbench.labeling.views.store import FILE, load_views

    if not (place / VIEWS / FILE).is_file():
        return None
    stored = load_views(place / VIEWS)
    if stored.weights_hash not in (None, weights):
        _LOG.warning("the feature views in %s are of another SAE: left out", place / VIEWS)
        return None
    return stored.views


def _made_of(place: Path, parts: Decomposition, labels: LabelSet, trait: Any) -> MadeOf | None:
    """With placebo contrasts, where the label stage left their shares of this decomposition's features."""
    from workbench.base.tensors import load_metadata, load_tensors
    from workbench.reports.gathered import made_of_labels

    path = place / VIEWS / PLACEBO_SHARES
    if not path.is_file() or load_metadata(path).get("sae") != parts.sae.get("weights_hash"):
        return made_of_labels(parts, labels, trait)
    return made_of_labels(parts, labels, trait, placebo_shares=load_tensors(path)["shares"].double())


def audit_in(folder: Path, parts: Decomposition) -> dict[str, Any] | None:
    """{part: what `workbench audit` wrote} with None for what was not run; None when nothing there is of this decomposition."""
    found: dict[str, Any] = dict.fromkeys(AUDIT_PARTS)
    for name in AUDIT_PARTS:
        path = folder / f"{name}.json"
        if not path.is_file():
            continue
        value = read_json(path)
        if isinstance(value, dict) and is_audit_of(value, parts):
            found[name] = value
        else:
            _LOG.warning("%s is not of this decomposition (or does not say of which): left out", path)
    return found if any(value is not None for value in found.values()) else None


def falsification_of(place: Path, parts: Decomposition) -> Falsification | None:
    """The checks in the run's own folder, else in `falsify/<trait>` beside it, when they are of this vector and SAE."""
    from workbench.decomposition.falsify import Falsification

    for folder in (place / FALSIFY, place, place.parent / FALSIFY / parts.trait):
        if (folder / "falsification.json").is_file():
            found = Falsification.load(folder)
            if is_falsification_of(found, parts):
                return found
            _LOG.warning("the falsification in %s is of another vector or SAE: left out", folder)
    return None

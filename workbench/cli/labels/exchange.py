"""The work behind `workbench labels merge | import | export`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError

if TYPE_CHECKING:
    from workbench.labeling.files.merge import Records


def run_merge(ours: Path, theirs: Path, base: Path | None, out: Path | None) -> dict[str, Any]:
    """What merging changes in `ours`, its conflicts and what it leaves out of a person's; written to `out` if that is given."""
    from workbench.labeling.files.differences import diff
    from workbench.labeling.files.folders import read_folder
    from workbench.labeling.files.locking import writing
    from workbench.labeling.files.merge import merge
    from workbench.labeling.files.store import set_folder

    other, before = read_folder(theirs), None if base is None else read_folder(base)
    mine = read_folder(ours)
    merged = merge(mine, other, before)
    if out is not None:
        in_place = out.resolve() == ours.resolve()
        if not in_place:
            _refuse_filled(out, ours)
        places = {sae: _place(out, sae, in_place=in_place) for sae in sorted({sae for sae, _ in (*mine, *other)})}
        with writing(*(set_folder(root, sae) for sae, root in places.items())):
            mine = read_folder(ours)  # again, with what was written to it meanwhile
            merged = merge(mine, other, before)
            _write_merged(merged.records, mine if in_place else {}, places)
    changes = [change.row() for change in diff(mine, merged.records)]
    return {
        "ours": str(ours),
        "theirs": str(theirs),
        "out": None if out is None else str(out),
        "n_features": len(merged.records),
        **{kind: sum(row["change"] == kind for row in changes) for kind in ("added", "removed", "changed")},
        "changes": changes,
        "conflicts": [conflict.row() for conflict in merged.conflicts],
        "left_out": [lost.row() for lost in merged.left_out],
    }


def _place(out: Path, sae: str, *, in_place: bool) -> Path:
    """The root under which the labels of an SAE go: `out`, or the one above it where `out` is the SAE's own folder."""
    from workbench.labeling.files.folders import root_above
    from workbench.labeling.files.store import set_folder

    root = root_above(out, sae)
    return root if in_place or set_folder(root, sae) == out.resolve() else out


def _refuse_filled(out: Path, ours: Path) -> None:
    from workbench.labeling.files.folders import check_folder

    if out.is_dir() and check_folder(out).n_files:
        remedy = f"choose another folder, or {ours} itself, or remove what is in it"
        raise WorkbenchError(f"{out} has label files already", "an empty folder, or the first of the two that are merged", remedy)


def _write_merged(records: Records, before: Records, places: Mapping[str, Path]) -> None:
    """What differs from the records `before` that stand there."""
    from workbench.labeling.files.folders import write_records
    from workbench.labeling.files.store import set_folder

    for root in dict.fromkeys(places.values()):
        own = {key: record for key, record in records.items() if places[key[0]] == root}
        write_records({key: record for key, record in own.items() if record != before.get(key)}, root)
    for sae, feature in (key for key in before if key not in records):
        (set_folder(places[sae], sae) / f"{feature}.yaml").unlink(missing_ok=True)


# ---------------------------------------------------------------------------------------------------- Neuronpedia


def run_import(
    files: Sequence[Path],
    sae: str,
    *,
    weights_hash: str | None,
    source: str | None,
    fetch: bool,
    features: Sequence[int] | None,
    out: Path | None,
) -> dict[str, Any]:
    """Neuronpedia's explanations as label files, merged with those that `out` (default: the cache) has of the SAE."""
    from workbench.base.settings import cache_dir
    from workbench.labeling.files.folders import read_folder, write_records
    from workbench.labeling.files.locking import writing
    from workbench.labeling.files.merge import merge
    from workbench.labeling.files.neuronpedia import read_features
    from workbench.labeling.files.neuronpedia_labels import records_of
    from workbench.labeling.files.store import FOLDER, set_folder

    only = None if features is None else frozenset(features)
    root = out or cache_dir() / FOLDER
    hash = _weights_hash(sae, weights_hash)
    own = set_folder(root, sae)
    paths = list(files) or _from_neuronpedia(source or _known_source(sae), only, fetch)
    found = records_of(read_features(paths, only=only), sae, hash)
    with writing(own):
        before = read_folder(own)
        merged = merge(before, found)
        written = write_records({key: merged.records[key] for key in found if merged.records[key] != before.get(key)}, root)
    return {
        "sae": sae,
        "files": [str(path) for path in paths],
        "out": str(root),
        "n_features": len(found),
        "n_labels": sum(len(record.labels) for record in found.values()),
        "n_written": len(written),
        "conflicts": [conflict.row() for conflict in merged.conflicts],
    }


def _weights_hash(sae: str, given: str | None) -> str:
    """The hash of the SAE's weights: the one given, or that of the SAE on the shelf; nothing is downloaded for it."""
    if given is not None:
        if len(given) != 64 or set(given) - set("0123456789abcdef"):
            raise WorkbenchError(f"the weights' hash {given[:80]!r}", "64 hexadecimal digits (SHA-256)", "copy it whole")
        return given
    from workbench.saes.registry import list_saes, load_sae

    if sae not in {entry.id for entry in list_saes()}:
        remedy = "pull it first (`workbench sae pull`), or give the hash of its weights with --weights-hash"
        raise WorkbenchError(f"the SAE {sae!r} is not on the shelf", "an SAE whose weights are here: labels name them", remedy)
    return load_sae(sae).weights_hash


def _known_source(sae: str) -> str:
    from workbench.saes.published import find_published

    entry = find_published(sae)
    if entry is None or not entry.neuronpedia:
        remedy = "name files, or Neuronpedia's MODEL/SOURCE with --source"
        found = f"it is not known where Neuronpedia has {sae!r}"
        raise WorkbenchError(found, "an SAE of SAELens' registry that is there", remedy)
    return entry.neuronpedia


def _from_neuronpedia(source: str, only: frozenset[int] | None, fetch: bool) -> list[Path]:
    from workbench.labeling.files.neuronpedia_fetch import cached_files, fetch_explanations, fetch_feature

    model_id, _, name = source.partition("/")
    if fetch and only is not None:
        return [fetch_feature(model_id, name, index) for index in sorted(only)]
    paths = fetch_explanations(model_id, name) if fetch else cached_files(model_id, name)
    if not paths:
        found = f"nothing of {source} was fetched before"
        raise WorkbenchError(found, "files to import", "name files, or fetch them from Neuronpedia with --fetch")
    return paths


def run_export(
    folder: Path,
    out: Path,
    *,
    sae: str | None,
    model_id: str,
    source: str,
    method: str | None,
    explainer: str | None,
    every_author: bool,
) -> dict[str, Any]:
    """Upload bodies batch-0.json, ... in `out`, checked against Neuronpedia's limits."""
    from workbench.base.store import write_json
    from workbench.labeling.files.folders import read_folder
    from workbench.labeling.files.neuronpedia import to_uploads
    from workbench.labeling.files.neuronpedia_labels import upload_of

    records = read_folder(folder)
    saes = sorted({name for name, _ in records})
    if sae is None and len(saes) != 1:
        listed = ", ".join(saes) or "none"
        raise WorkbenchError(f"{folder} has labels of {len(saes)} SAEs ({listed})", "one SAE", "name it with --sae")
    chosen = [record for (name, _), record in records.items() if name == (sae or saes[0])]
    upload = upload_of(chosen, model_id, source, method=method, explainer=explainer, every_author=every_author)
    paths = [write_json(out / f"batch-{n}.json", body) for n, body in enumerate(to_uploads(upload.features))]
    return {
        "sae": sae or saes[0],
        "files": [str(path) for path in paths],
        "n_features": len(upload.features),
        "left_out": [{"feature": feature, "why": why} for feature, why in upload.left_out.items()],
    }

"""The feature index behind a run's labels and views (that of the SAE where there is one, else a small one of the run's own), and
what the label stage keeps of it for the page."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError
from workbench.base.store import content_hash, read_json, write_json

from .console import note

if TYPE_CHECKING:
    from workbench.labeling.contexts.index import FeatureIndex
    from workbench.labeling.contexts.sizes import RunSizes

    from .stages import Job

INDEX, MADE_FOR, TEXTS = "index", "made_for.json", "evals"


def known_index(job: Job) -> tuple[Path, str] | None:
    """(folder, key) of a finished index of the job's SAE that read rollouts of its trait, found by path without loading it."""
    from .features.index import index_folder

    name = job.sae_site.id
    for folder in dict.fromkeys((job.folder.parent / "features" / name, index_folder(name))):
        document = folder / "feature_index.json"
        found = read_json(document) if document.is_file() else None
        if isinstance(found, dict) and "key" in found and _read_rollouts(found, job.trait.name):
            return folder, str(found["key"])
    return None


def _read_rollouts(document: dict[str, Any], trait: str) -> bool:
    sources = document.get("sources")
    return isinstance(sources, list) and any(str(name).startswith(f"rollouts:{trait}:") for name in sources)


def index_sources(job: Job) -> dict[str, Any]:
    """What the index contributes to the key of the label stage."""
    from workbench.labeling.contexts.sizes import RunSizes

    known = known_index(job)
    return {"index": known[1] if known else RunSizes().to_dict()}


def opened_index(job: Job) -> FeatureIndex:
    """The index to label and to show features from; a small one is built in the run's folder, or gone on with."""
    from workbench.labeling.contexts.index import FeatureIndex
    from workbench.labeling.contexts.of_run import run_index

    if known := known_index(job):
        try:
            found = FeatureIndex.open(known[0], model=job.model, sae=job.sae)
        except WorkbenchError as error:
            note(f"the index in {known[0]} is left aside: {error.found}")
        else:
            note(f"features are read in {known[0]} ({found.n_tokens:,} tokens)")
            return found
    folder = job.folder / INDEX
    sizes, seed = _sizes_at_hand(), job.config.seed
    sources = {"vector": job.made_from("vector"), "sae": job.sae_site.sha256, "model": job.model_identity, "seed": seed}
    _claim(folder, content_hash(sources | sizes.to_dict() | {"dtype": job.config.dtype}))
    chats = job.folder.parent / "features" / "chats"
    return run_index(job.vector, job.sae, job.model, folder, chats=chats, sizes=sizes, seed=seed)


def _sizes_at_hand() -> RunSizes:
    """What is read; without plain text where that cannot be fetched: a machine without network still gets its labels."""
    from workbench.labeling.contexts.sizes import RunSizes
    from workbench.models.assets import fetch

    sizes = RunSizes()
    if not sizes.n_text_tokens:
        return sizes
    try:
        fetch(TEXTS)
    except WorkbenchError as error:
        note(f"no plain text to read features in ({error.found}): replies and chats only")
        return replace(sizes, n_text_tokens=0)
    return sizes


def _claim(folder: Path, key: str) -> None:
    """Empty the run's own index folder when it was begun for something else; the same one is gone on with."""
    path = folder / MADE_FOR
    if path.is_file() and read_json(path) == {"key": key}:
        return
    shutil.rmtree(folder, ignore_errors=True)
    write_json(path, {"key": key})


def keep_views(job: Job, index: FeatureIndex) -> Path:
    """Views of all features that the page shows, and the shares of placebo contrasts, in the run's folder; returns the file."""
    from workbench.labeling.label import features_to_label
    from workbench.labeling.views.build import feature_views
    from workbench.labeling.views.store import ReadFrom, save_views
    from workbench.reports.folders import VIEWS

    shown = list(dict.fromkeys([*features_to_label(job.parts, job.config.n_features), *job.labels.labels]))
    views = feature_views(shown, job.sae, job.model, index=index, n_ablation=0, seed=job.config.seed)
    _keep_placebo_shares(job)
    return save_views(views, job.folder / VIEWS, read_from=ReadFrom.index(index))


def _keep_placebo_shares(job: Job) -> None:
    from workbench.base.tensors import save_tensors
    from workbench.labeling.taxonomy.made_of import placebo_shares
    from workbench.reports.folders import PLACEBO_SHARES, VIEWS

    path = job.folder / VIEWS / PLACEBO_SHARES
    if job.placebos is None or not job.parts.has_shares:
        path.unlink(missing_ok=True)
        return
    shares = placebo_shares(job.placebos, job.sae.decoder_directions, job.parts.trait)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_tensors(path, {"shares": shares.float()}, {"sae": str(job.parts.sae["weights_hash"])})

"""The label stage on a tiny model: one index serves labels and views, and what it was made for decides whether it is kept."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.labeling.planted import use_toy_embedders
from tests.toy_run import finished_run, sae_of
from workbench.base.store import write_json
from workbench.cli import run_views
from workbench.cli.config import JobConfig
from workbench.cli.inputs import SaeSite
from workbench.cli.stages import Job
from workbench.labeling.contexts import building, sizes
from workbench.labeling.contexts.index import FeatureIndex
from workbench.labeling.contexts.sizes import RunSizes
from workbench.labeling.views.store import load_views
from workbench.reports.folders import report_of_folder

SMALL = RunSizes(n_chats=3, n_text_tokens=0, n_top=4, per_bin=1)


@pytest.fixture(scope="module")
def made(tiny_model, tmp_path_factory) -> Path:
    """A run folder with the vector of written responses and its decomposition."""
    return finished_run(tiny_model, tmp_path_factory.mktemp("runs") / "evil")


@pytest.fixture
def job(made, tiny_model, tmp_path, monkeypatch) -> Any:
    """The job of that run in a copy of its folder, with small sizes and toy embedders."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORKBENCH_SHELF", str(tmp_path / "shelf"))
    use_toy_embedders(monkeypatch, [["evil"]])
    monkeypatch.setattr(sizes, "RunSizes", lambda: SMALL)
    folder = tmp_path / "runs" / "evil"
    shutil.copytree(made, folder)
    return job_in(folder, tiny_model)


def job_in(folder: Path, model: Any, **config: Any) -> Any:
    sae = sae_of(model)
    job = Job(JobConfig(n_features=5, **config), folder)
    job.__dict__ |= {"model": model, "sae": sae, "placebos": None, "site": SaeSite(sae.id, str(sae.hook), "nowhere", "5ae")}
    return job


def test_one_index_serves_the_labels_and_the_views(job):
    recorded = job._make_labels()
    stored = load_views(job.folder / "views")
    index = FeatureIndex.open(job.folder / "index")
    assert stored.read_from is not None
    assert stored.read_from.key == index.key and stored.read_from.sources == index.sources
    assert set(stored.views) == {row["feature"] for row in recorded["summary"]["labels"]} | set(job.parts.top(5))
    for feature, view in stored.views.items():
        stats = index.stats(feature)
        assert (view.n_tokens, view.density, view.histogram) == (stats.n_tokens, stats.density, stats.histogram)
        assert sum(n for *_, n in view.histogram) == stats.n_fired
    assert {name.split(":")[0] for name in index.sources} == {"given", "chats-written"}
    assert all((job.folder / name).exists() for name in recorded["files"])
    made = report_of_folder(job.folder)
    assert set(made.views) == set(stored.views) and made.to_json()["n_views"] == len(stored.views)


def test_a_users_own_replies_never_reach_the_report(job):
    job._make_labels()
    told = [c for view in report_of_folder(job.folder).views.values() for listed in view.contexts.values() for c in listed]
    given = [context for context in told if context.source.startswith("given:")]
    assert given and all(context.is_withheld for context in given)
    assert any(not context.is_withheld for view in load_views(job.folder / "views").views.values()
               for context in view.contexts["rollouts"])  # fmt: skip


def test_what_was_read_is_not_read_again(job, tiny_model, monkeypatch):
    job._make_labels()
    before = (job.folder / "views" / "feature_views.json").read_bytes()
    read = []
    whole = building.Encoder.shard
    monkeypatch.setattr(building.Encoder, "shard", lambda self, part: read.append(len(part)) or whole(self, part))
    job_in(job.folder, tiny_model)._make_labels()
    assert not read and (job.folder / "views" / "feature_views.json").read_bytes() == before
    job_in(job.folder, tiny_model, seed=1)._make_labels()  # made for something else: begun anew
    assert read


def _kept(folder: Path) -> dict[str, bytes]:
    labels = {path.name: re.sub(rb"date: .*", b"", path.read_bytes()) for path in (folder / "labels").rglob("*.yaml")}
    return labels | {"views": (folder / "views" / "feature_views.json").read_bytes()}


@pytest.mark.parametrize(
    "place",
    [
        "workbench.labeling.contexts.building.Encoder.shard",
        "workbench.labeling.files.store._write",
        "workbench.labeling.views.build.feature_views",
        "workbench.labeling.views.store.save_views",
    ],
)
def test_an_interrupted_stage_goes_on_to_the_same_labels_and_views(job, made, tiny_model, tmp_path, monkeypatch, place):
    whole = job_in(Path(shutil.copytree(made, tmp_path / "whole" / "evil")), tiny_model)
    whole._make_labels()

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(place, stop)
        job._make_labels()
    job_in(job.folder, tiny_model)._make_labels()
    assert _kept(job.folder) == _kept(whole.folder)


def test_an_index_of_the_sae_that_knows_the_trait_is_used_and_named(job, capsys):
    """The run's own index is moved to where `workbench features index` writes."""
    job._make_labels()
    place = job.folder.parent / "features" / job.sae.id
    place.parent.mkdir(parents=True, exist_ok=True)
    (job.folder / "index").rename(place)
    assert run_views.known_index(job) is None  # its sources are a user's own replies, no rollouts
    document = json.loads((place / "feature_index.json").read_text())
    write_json(place / "feature_index.json", {**document, "sources": ["rollouts:evil:positive", *document["sources"][1:]]})
    assert run_views.known_index(job) == (place, document["key"]) and run_views.index_sources(job) == {"index": document["key"]}
    capsys.readouterr()
    assert run_views.opened_index(job).folder == place
    assert str(place) in capsys.readouterr().err and not (job.folder / "index").exists()


def test_an_index_of_other_weights_is_left_aside(job, capsys):
    job._make_labels()
    place = job.folder.parent / "features" / job.sae.id
    place.parent.mkdir(parents=True, exist_ok=True)
    (job.folder / "index").rename(place)
    document = json.loads((place / "feature_index.json").read_text())
    write_json(place / "feature_index.json", {**document, "sources": ["rollouts:evil:positive", *document["sources"][1:]]})
    job.__dict__["sae"] = replace(job.sae, weights_hash="0" * 64)
    assert run_views.opened_index(job).folder == job.folder / "index"
    assert "left aside" in capsys.readouterr().err


def test_without_text_on_the_machine_replies_and_chats_are_read(job, monkeypatch, capsys):
    from workbench.base.errors import WorkbenchError
    from workbench.models import assets

    def no_network(name: str) -> None:
        raise WorkbenchError(f"{name} cannot be fetched", "a network", "connect")

    monkeypatch.setattr(sizes, "RunSizes", lambda: replace(SMALL, n_text_tokens=500))
    monkeypatch.setattr(assets, "fetch", no_network)
    index = run_views.opened_index(job)
    assert "owt" not in index.sources and "replies and chats only" in capsys.readouterr().err

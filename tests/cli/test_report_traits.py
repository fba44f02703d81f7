"""`workbench report` on several traits: refused before any work, and one page of finished runs that is made once."""

from __future__ import annotations

import shutil
from types import SimpleNamespace
from typing import Any

import pytest

from tests.reports.example import example_labels, example_vector
from tests.reports.studied import known_parts, other_trait
from workbench.base.store import read_json, write_json
from workbench.cli import report_traits
from workbench.cli.options import JobFlags
from workbench.labeling.files.store import replace_labels
from workbench.personas.traits import list_traits, trait_path


@pytest.mark.parametrize(("traits", "said"), [(("evil", "evil"), "stands twice"), (("evil", "evli"), "evil")])
def test_traits_that_make_no_page_are_refused_before_any_work(workbench, tmp_path, traits, said):
    answer = workbench("report", *traits, "--out", tmp_path / "out")
    assert answer.code == 2 and said in answer.err and not (tmp_path / "out").exists()
    assert "Traceback" not in answer.err


def test_an_eighth_trait_is_refused(workbench, tmp_path):
    shutil.copytree(trait_path("evil"), tmp_path / "eighth")
    answer = workbench("report", *list_traits()[:7], tmp_path / "eighth", "--plan")
    assert answer.code == 2 and "8 traits" in answer.err and "1 to 7" in answer.err


def test_the_page_has_a_folder_of_its_own(tmp_path):
    assert report_traits.page_folder(["evil", "some/where/kind"], None).as_posix() == "runs/report-evil-kind"
    assert report_traits.page_folder(["evil"], tmp_path) == tmp_path


@pytest.fixture
def results(tmp_path, monkeypatch) -> list[Any]:
    """Two finished runs of the example."""
    monkeypatch.setenv("WORKBENCH_SHELF", str(tmp_path / "shelf"))
    found = []
    for vector, parts, labels in ((example_vector(), known_parts(), example_labels()), other_trait()):
        folder = tmp_path / parts.trait
        vector.save(folder / "vector")
        parts.save(folder / "decomposition")
        replace_labels(labels, folder / "labels")
        write_json(folder / "report.json", {"trait": parts.trait})
        found.append(SimpleNamespace(folder=folder))
    return found


def test_one_page_of_finished_runs_is_made_once_and_again_when_a_report_changes(results, tmp_path, capsys):
    place, flags = tmp_path / "page", JobFlags()
    value = report_traits.make_page(results, flags, place)
    assert set(value["traits"]) == {"evil", "impolite"} and value["pairs"][0]["n_shared"] >= 4
    page = place / "report.html"
    assert value["report"] == str(page.resolve()) and page.stat().st_size < 3_000_000
    assert {**read_json(place / "report.json"), "report": value["report"]} == value
    before = page.stat().st_mtime_ns
    assert report_traits.make_page(results, flags, place) == value and page.stat().st_mtime_ns == before
    write_json(results[0].folder / "report.json", {"trait": "evil", "n": 1})
    report_traits.make_page(results, flags, place)
    assert page.stat().st_mtime_ns > before
    capsys.readouterr()
    report_traits.show_page(value)
    assert "evil and impolite" in capsys.readouterr().out

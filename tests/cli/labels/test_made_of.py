"""`workbench labels made-of`: what it reads, what it prints, what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.cli.test_bad_input import assert_refused
from tests.labeling.made_of_world import group_labels, planted_parts
from tests.reports.example import SAE_ID
from workbench.labeling.files.store import save_labels


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with a decomposition, and the labels of it."""
    folder = tmp_path / "runs" / "evil-example"
    planted_parts(1, n_bootstrap=60).save(folder / "decomposition")
    save_labels(group_labels(), folder / "labels")
    return folder


def test_the_answer_as_json_sums_to_one_and_names_every_part(workbench, run: Path) -> None:
    value = workbench("labels", "made-of", run, "--as-written", "--json", "-q").json
    assert sum(part["share"] for part in value["parts"]) == pytest.approx(1, abs=1e-9)
    assert set(value["made_of"]) >= {"contempt", "threats", "unclear", "none", "unlabelled", "error"}
    low, high = value["made_of"]["contempt"][1:]
    assert low < high and value["n_labelled"] == 10 and value["parts"][0]["drawn"] is None


def test_the_table_says_the_same_and_the_picture_is_written(workbench, run: Path, tmp_path: Path) -> None:
    value = workbench("labels", "made-of", run, "--as-written", "--json").json
    picture = tmp_path / "evil.svg"
    options = ("--labels", run / "labels", "--as-written", "--figure", picture)
    text = workbench("labels", "made-of", run / "decomposition", *options).out
    assert value["sentence"] in text and f"{100 * value['made_of']['threats'][0]:.1f}%" in text
    assert "No labelled feature belongs to" in text and str(picture) in text.replace("\n", "")
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")


def test_what_cannot_be_answered_is_refused(workbench, run: Path, tmp_path: Path) -> None:
    assert_refused(workbench("labels", "made-of", tmp_path / "nothing"), "holds no decomposition")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert_refused(workbench("labels", "made-of", run, "--labels", empty), f"no labels of {SAE_ID}")
    assert_refused(workbench("labels", "made-of", run, "--trait", "evli"), "evli")
    assert_refused(workbench("labels", "made-of", run, "--as-written", "--figure", run / "decomposition"), "decomposition")
    bare = replace(planted_parts(1, n_bootstrap=20), share_error=None)
    bare.save(tmp_path / "bare")
    assert_refused(workbench("labels", "made-of", tmp_path / "bare", "--labels", run / "labels", "--as-written"), "no shares")

"""`workbench labels annotate` with a feature index: contexts from there, and features that nobody labelled among the others."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from tests.labeling.annotating import label_of
from tests.labeling.planted import THEMES, planted_documents, planted_sae
from workbench.base.errors import WorkbenchError
from workbench.cli.labels.annotate import _Work
from workbench.labeling.annotating.desk import readings
from workbench.labeling.files.store import load_labels, save_label


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, tiny_models):
    from workbench.labeling.contexts.building import build_index

    sae, model = planted_sae(), tiny_models()
    folder = tmp_path_factory.mktemp("index")
    return build_index(sae, model, planted_documents(model, sae, n=24), folder, context=12, n_tokens=100_000)


def annotate(capsys, monkeypatch, folder: Path, index, *arguments: str, typed: str) -> dict:
    from workbench.cli import main

    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    options = ["--folder", str(folder), "--index", str(index.folder), "--name", "first reader", "--json"]
    with pytest.raises(SystemExit) as ended:
        main(["labels", "annotate", *options, *arguments])
    said = capsys.readouterr()
    assert ended.value.code == 0, said.err
    return {**json.loads(said.out), "screen": said.err}


def test_contexts_come_from_the_index_and_buried_features_from_those_that_fire(
    tmp_path: Path, capsys, monkeypatch, index
) -> None:
    labels = tmp_path / "labels"
    save_label(label_of(0, evidence=None), index.sae_id, index.sae_hash, labels)
    arguments = ("--blind", "--trait", "evil", "--bury", "2", "--order", "shuffled", "--seed", "1")
    typed = "e\nown words\nc\n" * 3 + "q\n"  # c: confirm where a label was hidden, and is refused where the next one still is
    said = annotate(capsys, monkeypatch, labels, index, *arguments, typed=typed)
    assert said["n_features"] == 3 and said["n_read"] == 3 and said["verdicts"] == {"edit": 2, "confirm": 1}
    read = readings(labels / index.sae_id, "first reader")
    buried = set(read) - {0}
    assert buried <= set(THEMES), "only the themes fire in this world"
    assert all(read[f].proposed is None and read[f].blind is not None for f in buried) and read[0].proposed is not None
    assert all(any(word in said["screen"] for word in THEMES[f]) for f in read)
    filed = load_labels(index.sae_id, labels)
    found = filed.records[0].evidence
    assert found is not None and found.n_tokens == index.collection([0], n_neighbours=0).evidence[0].n_tokens
    again = annotate(capsys, monkeypatch, labels, index, *arguments, typed="q\n")
    assert again["n_read"] == 3, "the same seed buries the same features"


@pytest.mark.parametrize("order", ["rank", "index"])
def test_buried_features_are_mixed_in_whatever_is_asked(tmp_path: Path, index, order: str) -> None:
    for feature in (0, 1):
        save_label(label_of(feature, evidence=None), index.sae_id, index.sae_hash, tmp_path)
    work = _Work(tmp_path, None, index.folder, None)
    orders = {tuple(item.proposed is None for item in work.items(None, order=None, seed=seed, bury=2)) for seed in range(8)}
    assert len(orders) > 2, "the buried ones always stand at the same places"
    assert [item.feature for item in work.items(None, order=None, seed=0, bury=0)] == [0, 1]
    with pytest.raises(WorkbenchError, match=f"'{order}'"):
        work.items(None, order=order, seed=0, bury=2)


def test_an_index_alone_is_enough_to_read_features_without_labels(tmp_path: Path, capsys, monkeypatch, index) -> None:
    said = annotate(capsys, monkeypatch, tmp_path, index, "1", "2", typed="e\nwater\nu\n")
    assert said["sae"] == index.sae_id and said["verdicts"] == {"edit": 1, "unclear": 1}
    label = load_labels(index.sae_id, tmp_path)[1]
    assert (label.label, label.author, label.status) == ("water", {"kind": "human", "name": "first reader"}, "confirmed")

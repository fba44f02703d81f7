"""Whole folders: every problem at once, differences, migration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.labeling.files.making import HASH, OTHER, SAE, a_label, a_record, evidence_of, said, written
from workbench.base.errors import WorkbenchError
from workbench.labeling.files.differences import diff
from workbench.labeling.files.folders import check_folder, read_folder
from workbench.labeling.files.migration import migrate, migrations
from workbench.labeling.files.store import load_labels, save_label, save_record

GOLDEN = Path(__file__).with_name("golden")


def edited(path: Path, *changes: tuple[str, str]) -> None:
    text = path.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    path.write_text(text, encoding="utf-8")


def line_of(path: Path, text: str) -> int:
    return next(n for n, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1) if text in line)


def test_every_problem_of_every_file_is_named_at_once(tmp_path: Path) -> None:
    first, second = written(tmp_path), written(tmp_path, a_label(18))
    third, fourth = written(tmp_path, a_label(19)), written(tmp_path, a_label(20))
    edited(first, ("status: proposed", "status: final"), ("value: 0.81", "value: .inf"), ("lengths: [4,", "lengths: [5,"))
    edited(second, ("kind: model", "kind: robot"), ("name: someone", "nome: someone"), ("feature: 18", "feature: eighteen"))
    edited(third, ("schema: 2", "schema: 2\nschema: 2"))
    edited(fourth, (HASH, OTHER))
    (tmp_path / "notes.yaml").write_text("a: b\n", encoding="utf-8")
    (tmp_path / SAE / "21.yaml").symlink_to(first)
    found = check_folder(tmp_path)
    places = {(problem.path.name, problem.field): problem.line for problem in found.problems}
    assert places == {
        ("17.yaml", "labels.0.status"): line_of(first, "status: final"),
        ("17.yaml", "labels.0.score.value"): line_of(first, "value: .inf"),
        ("17.yaml", "evidence.top.0.text"): line_of(first, " you ««"),
        ("18.yaml", "feature"): line_of(second, "feature: eighteen"),
        ("18.yaml", "labels.0.author.kind"): line_of(second, "kind: robot"),
        ("18.yaml", "labels.0.author.nome"): line_of(second, "nome: someone"),
        ("18.yaml", "labels.0.author.name"): line_of(second, "nome: someone"),
        ("19.yaml", ""): 2,
        ("21.yaml", ""): None,
        ("notes.yaml", ""): None,
    }
    assert all(problem.expected and problem.remedy for problem in found.problems)
    assert [feature for _, feature in found.records] == [20] and found.n_files == 6
    with pytest.raises(WorkbenchError):
        read_folder(tmp_path)


def test_a_folder_in_order_has_no_problems(tmp_path: Path) -> None:
    written(tmp_path)
    save_label(said("anger", "human", "Ada", status="confirmed"), SAE, HASH, tmp_path, annotator=True)
    save_label(a_label(18, categories={"grumpy": "x"}, category_confidence={}), SAE, HASH, tmp_path)
    (tmp_path / "README.md").write_text("about", encoding="utf-8")
    summary = check_folder(tmp_path).summary()
    assert summary["problems"] == [] and (summary["n_files"], summary["n_features"], summary["n_labels"]) == (2, 2, 3)
    assert summary["statuses"] == {"confirmed": 1, "proposed": 2} and summary["saes"] == {SAE: 2}
    assert "the trait 'grumpy' is not known here" in summary["warnings"][0]
    assert check_folder(tmp_path / SAE).records.keys() == {(SAE, 17), (SAE, 18)}


def test_mixed_weights_and_misplaced_files_are_problems(tmp_path: Path) -> None:
    written(tmp_path)
    save_label(a_label(18), SAE, OTHER, tmp_path)
    other = save_record(replace(a_record(said("anger")), sae_id="other/blocks.1.hook_resid_post"), tmp_path)
    other.rename(other.with_name("18.yaml"))
    elsewhere = tmp_path / "tiny" / "blocks.2.hook_resid_post" / "17.yaml"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes((tmp_path / SAE / "17.yaml").read_bytes())
    found = [(problem.line, problem.field, problem.problem) for problem in check_folder(tmp_path).problems]
    assert found == [
        (5, "feature", "feature 17 in a file named 18.yaml"),
        (4, "sae.weights_hash", "labels for the weights cdcdcdcdcdcd"),
        (3, "sae.id", f"labels of the SAE {SAE} in the folder {elsewhere.parent}"),
    ]


def test_a_feature_in_two_places_is_a_problem(tmp_path: Path) -> None:
    written(tmp_path / "a")
    written(tmp_path / "b")
    (problem,) = check_folder(tmp_path).problems
    assert "labels of a feature that" in str(problem) and problem.path.is_relative_to(tmp_path / "b")
    with pytest.raises(WorkbenchError, match="is not a folder"):
        check_folder(tmp_path / "nowhere")


def test_differences_are_told_field_by_field() -> None:
    rejected = said("rage", "human", "Ada", status="rejected", date="2026-02-28")
    before = {(SAE, 17): a_record(said("anger"), said("rage", "human", "Ada"), evidence=evidence_of())}
    after = {
        (SAE, 17): a_record(said("anger"), rejected, said("new", name="n"), evidence=replace(evidence_of(), n_tokens=1)),
        (SAE, 18): a_record(said("fury"), feature=18),
    }
    rows = [change.row() for change in diff(before, after)]
    assert [(row["feature"], row["author"] and row["author"]["name"], row["change"]) for row in rows] == [
        (17, "Ada", "changed"), (17, "n", "added"), (17, None, "changed"), (18, "m", "added"),
    ]  # fmt: skip
    assert rows[0]["fields"] == {
        "date": {"before": "2026-01-31T12:00:00Z", "after": "2026-02-28"},
        "status": {"before": "proposed", "after": "rejected"},
    }
    assert [change.kind for change in diff(after, before)] == ["changed", "removed", "changed", "removed"]
    assert diff(after, after) == []


def test_migration_shows_what_it_would_do_and_does_it(tmp_path: Path) -> None:
    folder = tmp_path / SAE
    folder.mkdir(parents=True)
    for path in GOLDEN.glob("*.yaml"):
        (folder / path.name).write_bytes(path.read_bytes())
    was = load_labels(SAE, tmp_path)
    changes = migrations(tmp_path, date_of=lambda path: "2026-01-31")
    assert [change.path.name for change in changes] == ["17.yaml", "18.yaml"]
    assert (folder / "17.yaml").read_bytes() == (GOLDEN / "17.yaml").read_bytes()
    assert "-schema: 1\n+schema: 2\n" in changes[0].diff() and "+    date: '2026-01-31'\n" in changes[0].diff()
    migrate(changes)
    now = load_labels(SAE, tmp_path)
    assert now[17] == replace(was[17], date="2026-01-31", evidence_hash=evidence_of().hash)
    assert now[18] == replace(was[18], date="2026-01-31")
    assert migrations(tmp_path) == []


def test_the_shipped_labels_are_in_order() -> None:
    found = check_folder(Path(__file__).parents[3] / "feature_labels")
    summary = found.summary()
    assert summary["problems"] == [] and summary["warnings"] == []
    assert all(label.date and label.evidence_hash for record in found.records.values() for label in record.labels)
    assert all(record.label is not None for record in found.records.values())
    texts = [path.read_text(encoding="utf-8") for path in found.paths.values()]
    assert sum(len(text.encode("utf-8")) for text in texts) < 1.5 * 2**20
    assert all(text.startswith("schema: 2\n") for text in texts)

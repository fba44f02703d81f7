"""`workbench labels check | diff | merge | migrate | import | export`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.labeling.files.making import HASH, OTHER, SAE, a_label, a_record, evidence_of, said, written
from workbench.base.errors import WorkbenchError
from workbench.labeling.files.folders import read_folder
from workbench.labeling.files.neuronpedia import Explanation, NeuronpediaFeature, to_feature
from workbench.labeling.files.store import load_labels, save_label, save_record

GOLDEN = Path(__file__).parents[2] / "labeling" / "files" / "golden"


def test_check_names_every_problem_and_exits_with_1(workbench, tmp_path):
    labels = tmp_path / "labels"
    path = written(labels)
    answer = workbench("labels", "check", labels)
    assert answer.code == 0 and "1 labels of 1 features in 1 files" in answer.out and "nothing to complain about" in answer.out
    path.write_text(path.read_text().replace("status: proposed", "status: final").replace(HASH, "abc"))
    answer = workbench("labels", "check", labels)
    assert answer.code == 1 and "2 problems" in answer.out and "what to do: copy it whole" in answer.out
    assert "`labels.0.status`: found 'final'" in answer.out and "17.yaml, line 4, `sae.weights_hash`: 3 characters" in answer.out
    answer = workbench("labels", "check", labels, "--json")
    assert answer.code == 1
    assert [set(row) for row in answer.json["problems"]] == [{"file", "line", "field", "found", "expected", "remedy"}] * 2
    assert answer.json["problems"][0]["line"] == 4


def test_a_damaged_file_stops_the_other_commands_with_its_line(workbench, tmp_path):
    good, bad = tmp_path / "good", tmp_path / "bad"
    written(good)
    path = written(bad)
    path.write_text(path.read_text().replace("kind: model", "kind: robot"))
    for command in (["diff", good, bad], ["merge", good, bad], ["migrate", bad], ["diff", good, tmp_path / "nowhere"]):
        answer = workbench("labels", *command)
        assert answer.code == 2 and answer.out == "" and "what to do" in answer.err
    assert "17.yaml, line" in workbench("labels", "merge", good, bad, "--json").err
    assert workbench("labels", "check", tmp_path / "nowhere").code == 2


def test_diff_shows_fields(workbench, tmp_path):
    before, after = tmp_path / "before", tmp_path / "after"
    written(before)
    written(after, a_label(notes="changed"))
    save_label(said("anger", name="n"), SAE, HASH, after)
    value = workbench("labels", "diff", before, after, "--json").json
    assert (value["added"], value["removed"], value["changed"]) == (1, 0, 1)
    shown = workbench("labels", "diff", before, after).out
    assert "-> changed" in shown and "17, n (model): added" in shown and "1 added, 0 removed, 1 changed" in shown


def test_merge_writes_only_where_it_is_told_to(workbench, tmp_path):
    ours, theirs, base, out = (tmp_path / name for name in ("ours", "theirs", "base", "out"))
    for folder in (ours, theirs, base):
        save_record(a_record(said("anger"), said("old", name="n")), folder)
    save_record(a_record(replace(said("x"), feature=18), feature=18), ours)
    save_record(a_record(replace(said("x"), feature=18), feature=18), base)
    save_record(a_record(said("rage"), said("old", name="n"), said("mine", "human", "Ada")), theirs)
    before = read_folder(ours)
    answer = workbench("labels", "merge", ours, theirs)
    assert answer.code == 0 and "nothing written" in answer.out and read_folder(ours) == before
    assert "same date, different words: anger | rage" in answer.out
    value = workbench("labels", "merge", ours, theirs, "--out", out, "--json").json
    assert value["conflicts"][0]["labels"] == ["anger", "rage"] and value["n_features"] == 2
    assert load_labels(SAE, out)[17].label == "mine"
    refused = workbench("labels", "merge", ours, theirs, "--out", out)
    assert refused.code == 2 and "has label files already" in refused.err
    value = workbench("labels", "merge", ours, theirs, "--base", base, "--out", ours, "--json").json
    assert value["conflicts"] == [] and (value["removed"], value["n_features"]) == (1, 1)
    assert [label.label for label in load_labels(SAE, ours).all_of(17)] == ["mine", "rage", "old"]
    assert list(read_folder(ours)) == [(SAE, 17)]


def test_merge_of_an_saes_own_folder_writes_there(workbench, tmp_path):
    ours, theirs = (tmp_path / name for name in ("ours", "theirs"))
    save_record(a_record(said("anger")), ours)
    save_record(a_record(said("rage", date="2026-02-28T12:00:00Z")), theirs)
    for part in (SAE, "tiny"):  # the folder of the SAE, and that of its model
        assert workbench("labels", "merge", ours / part, theirs / part, "--out", ours / part).code == 0
        assert [path.relative_to(ours).as_posix() for path in ours.rglob("*.yaml")] == [f"{SAE}/17.yaml"]
        assert load_labels(SAE, ours)[17].label == "rage"
    apart = tmp_path / "apart" / SAE
    assert workbench("labels", "merge", ours / SAE, theirs / SAE, "--out", apart).code == 0
    assert [path.relative_to(apart).as_posix() for path in apart.rglob("*.yaml")] == ["17.yaml"]


def test_merge_lists_a_persons_label_that_it_leaves_out(workbench, tmp_path):
    for name, label, date in (("ours", "anger", "2026-01-31"), ("theirs", "rage", "2026-02-28")):
        save_record(a_record(said(label, "human", "Ada", status="confirmed", date=date)), tmp_path / name)
    answer = workbench("labels", "merge", tmp_path / "ours", tmp_path / "theirs")
    assert f"left out: {SAE} 17, Ada (human): anger" in answer.out
    value = workbench("labels", "merge", tmp_path / "ours", tmp_path / "theirs", "--json").json
    assert [row["labels"] for row in value["left_out"]] == [["anger"]]


def saying_meanwhile(monkeypatch, module, name, folder):
    """Before `module.name` does its work, a person tries to write a label from another thread; returns what came of it."""
    import threading

    from workbench.labeling.files import locking

    real, came = getattr(module, name), []

    def verdict():
        try:
            save_label(said("my words", "human", "Ada", status="confirmed"), SAE, HASH, folder, annotator=True)
            came.append("filed")
        except WorkbenchError as error:
            came.append(error.found)

    def slow(*given, **named):
        thread = threading.Thread(target=verdict)
        thread.start()
        thread.join()
        return real(*given, **named)

    monkeypatch.setattr(locking, "LOCK_SECONDS", 0.1)
    monkeypatch.setattr(module, name, slow)
    return came


def test_nobody_writes_between_the_reading_and_the_writing_of_a_merge(workbench, tmp_path, monkeypatch):
    from workbench.labeling.files import merge

    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    save_record(a_record(said("anger")), ours)
    save_record(a_record(said("rage", date="2026-02-28T12:00:00Z")), theirs)
    came = saying_meanwhile(monkeypatch, merge, "merge", ours)
    assert workbench("labels", "merge", ours, theirs, "--out", ours).code == 0
    assert came[0] == "filed" and "another process" in came[1]  # once before the lock, once told to wait: never lost
    assert {label.label for label in load_labels(SAE, ours).all_of(17)} == {"rage", "my words"}


def test_nobody_writes_between_the_reading_and_the_writing_of_an_import(workbench, tmp_path, monkeypatch, their_file):
    from workbench.labeling.files import merge

    out = tmp_path / "out"
    came = saying_meanwhile(monkeypatch, merge, "merge", out)
    assert workbench("labels", "import", their_file, "--sae", SAE, "--weights-hash", HASH, "--out", out).code == 0
    assert len(came) == 1 and "another process" in came[0]


def test_merge_refuses_other_weights(workbench, tmp_path):
    written(tmp_path / "ours")
    save_label(a_label(18), SAE, OTHER, tmp_path / "theirs")
    answer = workbench("labels", "merge", tmp_path / "ours", tmp_path / "theirs", "--out", tmp_path / "out")
    assert answer.code == 2 and "feature numbers mean nothing across SAEs" in answer.err and not (tmp_path / "out").exists()


def test_migrate_is_a_dry_run_unless_told(workbench, tmp_path):
    folder = tmp_path / "labels" / SAE
    folder.mkdir(parents=True)
    (folder / "17.yaml").write_bytes((GOLDEN / "17.yaml").read_bytes())
    answer = workbench("labels", "migrate", tmp_path / "labels")
    assert "-schema: 1\n+schema: 2" in answer.out and "1 files to rewrite; --write does it" in answer.out
    assert (folder / "17.yaml").read_bytes() == (GOLDEN / "17.yaml").read_bytes()
    assert workbench("labels", "migrate", tmp_path / "labels", "--date", "soon").code == 2
    value = workbench("labels", "migrate", tmp_path / "labels", "--date", "2026-01-31", "--write", "--json").json
    assert value["written"] and value["n_files"] == 1
    assert load_labels(SAE, tmp_path / "labels")[17].date == "2026-01-31"
    assert workbench("labels", "migrate", tmp_path / "labels", "--json").json["n_files"] == 0


@pytest.fixture
def their_file(tmp_path):
    explained = (Explanation("legal terms", "oai_token-act-pair", "gpt-4o-mini"),)
    path = tmp_path / "feature.json"
    path.write_text(json.dumps(to_feature(NeuronpediaFeature("gpt2-small", "6-res-jb", 3, explanations=explained))))
    return path


def test_import_makes_labels_of_their_explanations(workbench, tmp_path, their_file):
    out = tmp_path / "labels"
    answer = workbench("labels", "import", their_file, "--sae", SAE, "--weights-hash", HASH, "--out", out, "--json")
    assert (answer.json["n_labels"], answer.json["n_written"], answer.json["conflicts"]) == (1, 1, [])
    label = load_labels(SAE, out)[3]
    assert (label.label, label.author["kind"], label.author["name"]) == ("legal terms", "model", "gpt-4o-mini")
    again = workbench("labels", "import", their_file, "--sae", SAE, "--weights-hash", HASH, "--out", out)
    assert "1 labels of 1 features" in again.out and "0 files written" in again.out
    save_label(replace(said("mine", "human", "Ada"), feature=3), SAE, HASH, out, annotator=True)
    workbench("labels", "import", their_file, "--sae", SAE, "--weights-hash", HASH, "--out", out)
    assert load_labels(SAE, out)[3].label == "mine"
    other = workbench("labels", "import", their_file, "--sae", SAE, "--weights-hash", OTHER, "--out", out)
    assert other.code == 2 and "for the weights" in other.err


def test_import_goes_to_the_cache_and_asks_for_what_it_needs(workbench, tmp_path, their_file, monkeypatch, shelf):
    from workbench.saes.registry import load_sae

    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    sae = "smollm2-135m-instruct/blocks.1.hook_resid_post"
    value = workbench("labels", "import", their_file, "--sae", sae, "--features", "3,4", "--json").json
    found = load_labels(sae, tmp_path / "cache" / "feature_labels")
    assert value["out"] == str(tmp_path / "cache" / "feature_labels") and found.sae_hash == load_sae(sae).weights_hash
    for arguments, message in (
        (["--sae", "nobody/knows"], "is not on the shelf"),
        (["--sae", sae, "--weights-hash", "abc"], "64 hexadecimal digits"),
        (["--sae", sae, "--features", "one"], "feature numbers with commas"),
        (["--sae", "../up", "--weights-hash", HASH], "cannot name a folder"),
    ):
        answer = workbench("labels", "import", their_file, *arguments)
        assert answer.code == 2 and message in answer.err
    answer = workbench("labels", "import", "--sae", sae)
    assert answer.code == 2 and "not known where Neuronpedia has" in answer.err
    answer = workbench("labels", "import", "--sae", sae, "--source", "gpt2-small/6-res-jb")
    assert answer.code == 2 and "nothing of gpt2-small/6-res-jb was fetched before" in answer.err


def test_export_writes_checked_upload_bodies(workbench, tmp_path):
    labels, out = tmp_path / "labels", tmp_path / "out"
    written(labels)
    save_record(a_record(replace(said("anger"), feature=18), feature=18), labels)
    options = ["--model-id", "tiny", "--source", "1-res", "--out", out]
    value = workbench("labels", "export", labels, *options, "--json").json
    assert value["files"] == [str(out / "batch-0.json")] and value["n_features"] == 1
    assert value["left_out"] == [{"feature": 18, "why": "no context whose text may be passed on"}]
    body = json.loads((out / "batch-0.json").read_text())
    assert body["modelId"] == "tiny" and body["features"][0]["explanations"][0]["text"] == "insults aimed at the reader"
    shown = workbench("labels", "export", labels, *options).out
    assert "left out: feature 18" in shown and "1 features of tiny/blocks.1.hook_resid_post" in shown
    save_record(replace(a_record(a_label(), evidence=evidence_of()), sae_id="tiny/blocks.2.hook_resid_post"), labels)
    answer = workbench("labels", "export", labels, *options)
    assert answer.code == 2 and "name it with --sae" in answer.err.lower()
    assert workbench("labels", "export", labels, *options, "--sae", SAE).code == 0

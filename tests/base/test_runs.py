from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.base.errors import WorkbenchError
from workbench.base.runs import RunFolder, default_run_folder


def test_the_default_folder_is_named_after_trait_and_model():
    assert default_run_folder("evil", "smollm2-135m-instruct") == Path("runs/evil-smollm2-135m-instruct")
    assert default_run_folder("./traits/rude/", "org/Model") == Path("runs/rude-Model")


def test_a_stage_is_done_with_its_key_only_and_stays_done(tmp_path):
    with RunFolder.open(tmp_path / "run") as run:
        assert not run.is_done("vector", "k1")
        run.mark_done("vector", "k1", seconds=1.5)
    with RunFolder.open(tmp_path / "run") as run:
        assert run.is_done("vector", "k1") and not run.is_done("vector", "k2") and not run.is_done("labels", "k1")
        assert run.info("vector")["seconds"] == 1.5
        run.mark_done("vector", "k2")
        assert not run.is_done("vector", "k1")


def test_the_lock_is_released_after_an_error_too(tmp_path):
    with pytest.raises(ZeroDivisionError), RunFolder.open(tmp_path):
        raise ZeroDivisionError
    with RunFolder.open(tmp_path):
        assert (tmp_path / ".holder.json").exists()
    assert not (tmp_path / ".holder.json").exists()


def test_a_second_process_is_refused_and_told_who_holds_the_folder(tmp_path):
    code = f"from workbench.base.runs import RunFolder\nwith RunFolder.open({str(tmp_path)!r}): pass"
    with RunFolder.open(tmp_path):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"is in use by process {os.getpid()} on " in done.stderr
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_killed_process_does_not_keep_the_folder(tmp_path):
    code = (
        "import os\nfrom workbench.base.runs import RunFolder\n"
        f"with RunFolder.open({str(tmp_path)!r}) as run:\n    run.mark_done('a', 'k')\n    os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    with RunFolder.open(tmp_path) as run:
        assert run.is_done("a", "k")


def test_a_folder_that_is_no_run_is_refused_when_it_may_not_be_made(tmp_path):
    with pytest.raises(WorkbenchError, match="is not a run folder"), RunFolder.open(tmp_path / "x", create=False):
        pass
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not valid JSON"), ("[]", "not a run manifest"), ('{"schema": 9, "stages": {}}', "schema 9")],
)
def test_a_damaged_or_newer_manifest_is_refused_and_the_lock_released(tmp_path, text, message):
    (tmp_path / "manifest.json").write_text(text)
    for _ in range(2):
        with pytest.raises(WorkbenchError, match=message), RunFolder.open(tmp_path):
            pass


def test_an_unwritable_place_is_refused_in_words(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkbenchError, match="Cannot create the folder"), RunFolder.open(tmp_path / "file" / "run"):
        pass


def test_a_mark_that_cannot_be_written_is_not_believed(tmp_path, monkeypatch):
    from workbench.base import runs

    def full(*_):
        raise WorkbenchError("the disk is full")

    with RunFolder.open(tmp_path) as run:
        monkeypatch.setattr(runs, "write_json", full)
        with pytest.raises(WorkbenchError):
            run.mark_done("a", "k")
        assert not run.is_done("a", "k")


@pytest.mark.parametrize("spoil", [lambda path: path.write_text("to"), lambda path: path.unlink()])
def test_a_stage_whose_file_was_cut_or_lost_is_not_whole_and_its_folders_may_be_edited(tmp_path, spoil):
    (tmp_path / "labels").mkdir()
    (tmp_path / "a.json").write_text("torn")
    with RunFolder.open(tmp_path) as run:
        run.mark_done("a", "k", files=["a.json", "labels"])
        (tmp_path / "labels" / "1.yaml").write_text("mine")
        assert run.is_whole("a")
        spoil(tmp_path / "a.json")
        assert run.is_done("a", "k") and not run.is_whole("a")
        assert run.is_whole("a", editable=True) == (tmp_path / "a.json").exists()
        run.mark_done("old", "k", files=["labels"])
        run.manifest["stages"]["old"].pop("sizes")  # as older versions wrote it
        assert run.is_whole("old")


def test_all_parts_may_be_cleaned_away_but_none_lost_or_cut(tmp_path):
    names = ("1", "2")
    for name in names:
        (tmp_path / name).write_text("activations")
    with RunFolder.open(tmp_path) as run:
        run.mark_done("a", "k", files=[], parts=names)
        assert run.is_whole("a") and "parts" not in run.info("a")
        (tmp_path / "1").write_text("activ")
        assert not run.is_whole("a")
        (tmp_path / "1").unlink()
        assert not run.is_whole("a")
        (tmp_path / "2").unlink()
        assert run.is_whole("a")


@pytest.mark.parametrize("spoilt", [{"sizes": None}, {"sizes": []}, {"sizes": {"a": "1"}}, {"files": 5}, {"files": [["a"]]},
                                    {"files": None}, {"files": [7]}])  # fmt: skip
def test_a_manifest_whose_lists_of_files_are_none_is_refused(tmp_path, spoilt):
    (tmp_path / "manifest.json").write_text(json.dumps({"schema": 1, "stages": {"a": {"key": "k", **spoilt}}}))
    with pytest.raises(WorkbenchError, match="lists no files"), RunFolder.open(tmp_path):
        pass

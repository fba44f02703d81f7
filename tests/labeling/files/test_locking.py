"""One writer at a time: nobody's words are lost between reading a file and writing it back."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tests.labeling.files.making import HASH, SAE, a_label, said, written
from workbench.base.errors import WorkbenchError
from workbench.labeling.files import locking
from workbench.labeling.files.folders import check_folder
from workbench.labeling.files.locking import LOCK, writing
from workbench.labeling.files.migration import migrate, migrations
from workbench.labeling.files.store import (
    load_label_file,
    replace_labels,
    save_label,
    save_labels,
    set_folder,
)
from workbench.labeling.labels import LabelSet

HOLDER = """
import sys
from pathlib import Path
from workbench.labeling.files.locking import writing
with writing(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_another_process_with_another_cache_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = set_folder(tmp_path / "labels", SAE)
    environment = {**os.environ, "WORKBENCH_CACHE": str(tmp_path / "its own cache")}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert holder.stdin is not None and holder.stdout is not None and holder.stdout.readline() == "held\n"
    monkeypatch.setattr(locking, "LOCK_SECONDS", 0.2)
    with pytest.raises(WorkbenchError, match="Another process has been writing"):
        written(tmp_path / "labels")
    holder.stdin.close()
    assert holder.wait(timeout=20) == 0 and written(tmp_path / "labels").exists()
    holder.stdout.close()
    assert check_folder(tmp_path / "labels").problems == ()  # the lock beside the labels is not one of them


def test_threads_exclude_each_other_and_a_block_may_be_nested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "LOCK_SECONDS", 0.1)
    seen: list[str] = []

    def other() -> None:
        try:
            written(tmp_path)
        except WorkbenchError as error:
            seen.append(error.found)

    with writing(set_folder(tmp_path, SAE)):
        path = written(tmp_path)  # the same thread goes on
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert path.exists() and len(seen) == 1 and "another process" in seen[0]


def test_a_lock_that_cannot_be_taken_is_told_in_three_parts(tmp_path: Path) -> None:
    folder = set_folder(tmp_path, SAE)
    (folder / LOCK).mkdir(parents=True)
    with pytest.raises(WorkbenchError, match=r"\.labels\.lock"):
        written(tmp_path)
    (folder / LOCK).rmdir()
    target = tmp_path / "precious"
    target.write_text("text")
    (folder / LOCK).symlink_to(target)
    with pytest.raises(WorkbenchError, match="is a symbolic link"):
        written(tmp_path)
    assert target.read_text() == "text"


def test_who_may_write_in_the_folder_may_take_the_lock(tmp_path: Path) -> None:
    folder = set_folder(tmp_path, SAE)
    folder.mkdir(parents=True)
    folder.chmod(0o775)
    written(tmp_path)
    assert (folder / LOCK).stat().st_mode & 0o777 == 0o664


def test_a_run_keeps_the_label_of_its_own_author_that_a_person_confirmed(tmp_path: Path) -> None:
    def run(label: str) -> None:
        replace_labels(LabelSet(SAE, HASH, {17: a_label(label=label)}), tmp_path)

    run("old words")
    path = set_folder(tmp_path, SAE) / "17.yaml"
    path.write_text(path.read_text().replace("status: proposed", "status: confirmed").replace("old words", "by hand"))
    run("new words")
    assert [(item.label, item.status) for item in load_label_file(path).labels] == [("by hand", "confirmed")]


def test_a_newer_word_of_the_same_person_comes_into_the_run(tmp_path: Path) -> None:
    for label, date, expected in (("old", "2026-01-01", "old"), ("new", "2026-02-01", "new"), ("stale", "2026-01-15", "new")):
        signed = said(label, "human", "Ada", status="confirmed", date=date)
        replace_labels(LabelSet(SAE, HASH, {17: signed}), tmp_path)
        assert [item.label for item in load_label_file(set_folder(tmp_path, SAE) / "17.yaml").labels] == [expected]


def test_what_can_be_saved_is_saved_and_the_rest_is_told(tmp_path: Path) -> None:
    for feature in (1, 2, 3):
        save_label(a_label(feature), SAE, HASH, tmp_path)
    confirmed = set_folder(tmp_path, SAE) / "2.yaml"
    confirmed.write_text(confirmed.read_text().replace("proposed", "confirmed"))
    newer = LabelSet(SAE, HASH, {feature: a_label(feature, label="newer") for feature in (1, 2, 3)})
    with pytest.raises(WorkbenchError, match=r"1 of 3 labels were not written, the first because .*that a person confirmed"):
        save_labels(newer, tmp_path)
    found = [load_label_file(confirmed.with_name(f"{feature}.yaml")).labels[0].label for feature in (1, 2, 3)]
    assert found == ["newer", a_label().label, "newer"]


def test_a_file_that_changed_since_is_not_migrated_over(tmp_path: Path) -> None:
    golden = Path(__file__).with_name("golden")
    old = next(path for path in sorted(golden.rglob("*.yaml")) if "schema: 1" in path.read_text())
    record = load_label_file_anywhere(old)
    path = set_folder(tmp_path, record.sae_id) / f"{record.feature}.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(old.read_text())
    changes = migrations(tmp_path)
    signed = replace(said("my words", "human", "Ada"), feature=record.feature)
    save_label(signed, record.sae_id, record.sae_hash, tmp_path, annotator=True)
    with pytest.raises(WorkbenchError, match="has changed since it was read"):
        migrate(changes)
    assert "my words" in [item.label for item in load_label_file(path).labels]


def load_label_file_anywhere(path: Path):  # the golden files are not in the folder of their SAE
    from workbench.labeling.files.record import from_text
    from workbench.labeling.files.store import trait_categories

    return from_text(path.read_text(), path, trait_categories())

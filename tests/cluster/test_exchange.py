"""Tasks of machines that share no file system: their files go through an object store, and are those of a run here."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from workbench.base.errors import WorkbenchError
from workbench.base.store import read_json
from workbench.cli.run import run
from workbench.cluster.exchange import ObjectStore, check_url, exchanged, moved

ROOT = Path(__file__).resolve().parents[2]
ROLES = ("axis", "roles", "ghost", "poet", "reviewer", "supervisor", "--model", "model", "--hook", "blocks.1.hook_resid_post",
         "--judge", "none", "--questions", "12", "--prompts", "2", "--max-new-tokens", "4", "--min-count", "2", "-q")  # fmt: skip
INDEX = ("features", "index", "--model", "model", "--sae", "sae", "--texts", "texts.txt", "--chats", "0", "--tokens", "60000",
         "-q")  # fmt: skip
COMMANDS = {
    "roles": (ROLES, ("--shares", "3")),
    "index": (INDEX, ()),
    "saes": (("sae", "train", "sae.yaml", "--sweep", "seed=0,1", "--saes-per-pass", "1", "-q"), ()),
}


@dataclass(frozen=True)
class Job:
    folder: Path
    name: str
    other: str = "as it is"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that is the store, which the setting names."""
    monkeypatch.setenv("WORKBENCH_TASK_STORE", f"file://{tmp_path / 'store'}/")
    return tmp_path / "store"


def doubled(job: Job) -> tuple[str, Path]:
    """Reads `in/<name>` and writes `out/<name>`."""
    target = job.folder / "out" / job.name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text((job.folder / "in" / job.name).read_text() * 2)
    (job.folder / "out" / "left.lock").touch()
    return str(target), target


def paths(kind: str) -> Any:
    return lambda job: [job.folder / kind / job.name]


def test_what_a_task_reads_and_writes_goes_through_the_store_and_nothing_stays_there(store: Path, tmp_path: Path) -> None:
    here = tmp_path / "run"
    (here / "in").mkdir(parents=True)
    jobs = [Job(here, name) for name in ("a", "b", "c")]
    for job in jobs:
        (here / "in" / job.name).write_text(job.name)
    worked_in = []

    def apart(function: Any, tasks: Any) -> Iterator[Any]:
        assert function.__wrapped__ is doubled and function.__name__ == "doubled"
        for task in tasks:
            result = function(task)
            assert not (here / "out" / task.name).exists(), "the task worked in this folder"
            worked_in.append([path.name for path in store.rglob("*") if path.is_file()])
            yield result

    found = list(exchanged(apart, here, reads=paths("in"), writes=paths("out"))(doubled, iter(jobs)))
    assert found == [(str(here / "out" / name), here / "out" / name) for name in "abc"], "results name this machine's paths"
    assert [(here / "out" / name).read_text() for name in "abc"] == ["aa", "bb", "cc"]
    assert not (here / "out" / "left.lock").exists() and len(worked_in[-1]) > len(worked_in[0])
    assert list(store.iterdir()) == []


def test_without_a_store_nothing_changes(tmp_path: Path) -> None:
    assert exchanged(map, tmp_path, reads=paths("in"), writes=paths("out")) is map


def test_spoilt_objects_and_names_that_lead_out_are_refused(tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "a").write_text("words")
    store = ObjectStore(f"file://{tmp_path / 'store'}")
    store.put("list", tmp_path / "given", [tmp_path / "given"])
    (kept,) = (tmp_path / "store" / "objects").iterdir()
    kept.write_text("other")
    with pytest.raises(WorkbenchError, match=r"arrived .* with other bytes"):
        store.take("list", tmp_path / "taken")
    assert not (tmp_path / "taken" / "a").exists()
    for name in ("../a", "/a", "x/../../a", "..\\a"):
        (tmp_path / "store" / "lists" / "list").write_text(json.dumps({name: kept.name}))
        with pytest.raises(WorkbenchError, match=r"(?i)a list in .* names"):
            store.take("list", tmp_path / "taken")
    with pytest.raises(WorkbenchError, match="cannot be used"):
        store.take("no such list", tmp_path / "taken")


@pytest.mark.parametrize("url", ["bucket", "s3://key:secret@host/x", "simplecache::s3://x", "https://x/y?token=secret", ""])
def test_addresses_that_are_none_or_hold_keys_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(WorkbenchError) as caught:
        check_url(url)
    assert "secret" not in str(caught.value)


def test_a_driver_that_is_missing_is_named() -> None:
    with pytest.raises(WorkbenchError, match=r"cannot be used|needs a package"):
        ObjectStore("nosuchscheme://x").take("list", Path("x"))


def test_paths_are_moved_wherever_they_stand() -> None:
    old, new = Path("/a/b"), Path("/c")
    job = Job(old / "x", "/a/b/y", "/a/bc")
    assert moved((job, [old], {"p": str(old)}, 3), old, new) == (Job(new / "x", "/c/y", "/a/bc"), [new], {"p": "/c"}, 3)
    assert moved(job, Path("/elsewhere"), new) is job


@pytest.fixture(scope="module")
def kills() -> Iterator[Any]:
    sys.path.insert(0, str(ROOT / "scripts"))
    yield importlib.import_module("kills")
    sys.path.remove(str(ROOT / "scripts"))
    sys.modules.pop("kills", None)


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_give_the_files_of_a_run_here(
    name: str, kills: Any, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    kills.prepare(tmp_path)
    command, more = COMMANDS[name]
    assert run([*command, "--out", "out"]) == 0
    expected = kills.hashes(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "local")
    carried = []

    def apart(function: Any, tasks: Any, **_: Any) -> Iterator[Any]:
        for task in tasks:
            carried.append(hasattr(function, "__wrapped__"))
            yield function(task)

    monkeypatch.setattr("workbench.cluster.on_ray", apart)
    assert run([*command, *more, "--out", "out", "--engine", "ray"]) == 0
    assert len(carried) > 1 and all(carried)
    found = kills.hashes(tmp_path / "out")
    differing = {file for file in {*found, *expected} if found.get(file) != expected.get(file)}
    assert differing == ({f"sae-seed{n}/card.json" for n in (0, 1)} if name == "saes" else set())
    for file in differing:  # a card tells the command
        one, other = (read_json(folder / file) for folder in (tmp_path / "out", tmp_path / "local"))
        assert {key for key in one if one[key] != other[key]} <= {"command", *kills.CHANGING}
    assert list(store.iterdir()) == []

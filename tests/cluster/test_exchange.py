"""Tasks of machines that share no file system: their files go through an object store, and are those of a run here."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from workbench.base.errors import WorkbenchError
from workbench.base.store import read_json
from workbench.cli.run import run
from workbench.cluster import exchange
from workbench.cluster.exchange import ObjectStore, exchanged, moved, store_address

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
            assert not (here / "out" / task.task.name).exists(), "the task worked in this folder"
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


@pytest.mark.parametrize(
    "url",
    ["bucket", "s3://key:secret@host/x", "simplecache::s3://key:secret@host/x", "https://x/y?token=secret", "key:secret@host/b",
     "s3://b/x#secret", "C:\\secret", "s3://", "s3:/bucket/secret", "s3://[x"],
)  # fmt: skip
def test_addresses_that_are_none_or_hold_keys_are_refused_and_not_repeated(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_TASK_STORE", url)
    with pytest.raises(WorkbenchError) as caught:
        store_address()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["s3://bucket/x", "abfs://container@account.dfs.core.windows.net/x", "file:///mnt/x/"])
def test_usual_addresses_are_taken(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_TASK_STORE", url)
    assert store_address() == url.rstrip("/")


def test_a_driver_that_is_missing_is_named() -> None:
    with pytest.raises(WorkbenchError, match=r"cannot be used|needs a package"):
        ObjectStore("nosuchscheme://x").take("list", Path("x"))


def test_paths_that_a_task_reads_or_writes_are_moved_wherever_they_stand_and_others_are_not() -> None:
    old, new = Path("/a/b"), Path("/c")
    among = (old / "x", old / "y")
    job = Job(old / "x", "/a/b/y/z", "/a/bc")
    found = moved((job, [old], {"p": str(old)}, 3, "/a/b/sae"), old, new, among)
    assert found == (Job(new / "x", "/c/y/z", "/a/bc"), [new], {"p": "/c"}, 3, "/a/b/sae")
    assert moved(job, Path("/elsewhere"), new, (Path("/elsewhere/x"),)) is job
    told = moved(WorkbenchError("no /c/x", "y", "delete /c/x"), new, old, ())
    assert (told.found, told.remedy) == ("no /a/b/x", "delete /a/b/x") and "/c" not in str(told)


def test_what_ended_before_an_error_and_half_of_what_failed_is_kept(store: Path, tmp_path: Path) -> None:
    here = tmp_path / "run"
    (here / "in").mkdir(parents=True)
    jobs = [Job(here, name) for name in "abc"]
    for job in jobs:
        (here / "in" / job.name).write_text(job.name)

    def fails_at_a(job: Job) -> None:
        doubled(job)
        if job.name == "a":
            raise WorkbenchError(f"no words in {job.folder}", "words", "write some")

    def last_first(function: Any, tasks: Any) -> Iterator[Any]:
        taken = list(tasks)
        for task in reversed(taken):
            function(task)
        yield

    with pytest.raises(WorkbenchError) as caught:
        list(exchanged(last_first, here, reads=paths("in"), writes=paths("out"))(fails_at_a, jobs))
    assert caught.value.found == f"no words in {here}", "the error names this machine's folder"
    assert [(here / "out" / name).read_text() for name in "abc"] == ["aa", "bb", "cc"]
    assert list(store.iterdir()) == []


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_task_deletes_is_deleted_here_and_nothing_else(store: Path, tmp_path: Path, fails: bool) -> None:
    here = tmp_path / "run"
    for name in ("out/a/old", "out/a/kept", "out/b", "in/a"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(name)

    def deletes(job: Job) -> None:
        (job.folder / "out" / job.name / "old").unlink()
        (job.folder / "in" / job.name).unlink()  # not among what it writes

        if fails:
            raise WorkbenchError("it failed", "it not to", "do nothing")

    with pytest.raises(WorkbenchError) if fails else contextlib.nullcontext():
        list(exchanged(map, here, reads=paths("in"), writes=paths("out"))(deletes, [Job(here, "a")]))
    assert not (here / "out" / "a" / "old").exists()
    assert all((here / name).read_text() == name for name in ("out/a/kept", "out/b", "in/a"))


def test_files_that_vouch_for_others_are_replaced_last_and_gone_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, time in (("there", 2), ("here", 1)):
        (tmp_path / folder).mkdir()
        for number, name in enumerate(("weights", "card")):  # by the alphabet the card would come first
            (tmp_path / folder / name).write_text(f"{folder} {name}")
            os.utime(tmp_path / folder / name, (time * 100 + number, time * 100 + number))
    store = ObjectStore(f"file://{tmp_path / 'store'}")
    store.put("list", tmp_path / "there", [tmp_path / "there"])
    put = os.replace

    def interrupted(source: Any, target: Any) -> None:
        assert not (tmp_path / "here" / "card").exists(), "the old card does not vouch for new weights"
        put(source, target)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(exchange.os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.take("list", tmp_path / "here")
    assert (tmp_path / "here" / "weights").read_text() == "there weights" and not (tmp_path / "here" / "card").exists()
    store.take("list", tmp_path / "here")
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == ["card", "weights"]


def test_a_store_that_keeps_what_is_to_be_removed_is_named(
    store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fsspec.implementations.local import LocalFileSystem

    def refuses(*_: Any, **__: Any) -> None:
        raise PermissionError("no right to delete")

    monkeypatch.setattr(LocalFileSystem, "rm", refuses)
    list(exchanged(map, tmp_path, reads=lambda _: [], writes=lambda _: [])(str, ["x"]))
    assert "could not be removed and stays there" in caplog.text


def test_folders_of_dead_tasks_are_removed_and_those_of_living_ones_stay(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host, tasks = socket.gethostname(), tmp_path / "cache" / "tasks"
    for name in (f"{host}-{ended.pid}-x", f"{host}-{os.getpid()}-x", "other-1-x"):
        (tasks / name).mkdir(parents=True)
    list(exchanged(map, tmp_path, reads=lambda _: [], writes=lambda _: [])(str, ["x"]))
    assert sorted(path.name for path in tasks.iterdir()) == sorted([f"{host}-{os.getpid()}-x", "other-1-x"])


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
            (tmp_path / "out").rename(tmp_path / "hidden")  # a task cannot see it
            result = function(task)
            assert not (tmp_path / "out").exists()
            (tmp_path / "hidden").rename(tmp_path / "out")
            yield result

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


def test_vectors_of_several_traits_give_the_files_of_a_run_here(
    kills: Any, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.short import short_trait
    from workbench.cli.options import JobFlags
    from workbench.cli.personas.panel import _on_ray, _vector

    monkeypatch.chdir(tmp_path)
    kills.prepare(tmp_path)
    flags = JobFlags(model="model", hook="blocks.1.hook_resid_post", judge="none", max_new_tokens=4, batch_size=64)
    configs = [flags.job(str(short_trait(name, Path("short")))) for name in ("evil", "humorous")]
    for config in configs:
        _vector(config, Path("out"))
    expected = kills.hashes(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "local")

    def apart(function: Any, tasks: Any, **_: Any) -> Iterator[Any]:
        for task in tasks:
            (tmp_path / "out").rename(tmp_path / "hidden")
            result = function(task)
            assert not (tmp_path / "out").exists()
            (tmp_path / "hidden").rename(tmp_path / "out")
            yield result

    monkeypatch.setattr("workbench.cluster.on_ray", apart)
    _on_ray(configs, Path("out"), None)
    assert kills.hashes(tmp_path / "out") == expected

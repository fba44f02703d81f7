"""Keys stay in the environment and nothing is asked for on the network: a whole job, searched byte by byte."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    yield importlib.import_module("canary")
    sys.modules.pop("canary", None)


def test_no_key_and_no_beginning_of_one_reaches_a_file_or_a_message_and_no_host_is_asked(script: Any, tmp_path: Path) -> None:
    found = script.whole_job(tmp_path)
    assert not found["failed"], found["failed"]
    assert found["where"] == [] and found["asked"] == []
    assert found["n_requests"] > 100 and found["n_files"] > 50, "the endpoint was asked and the job wrote its files"


def test_what_is_looked_for_is_found(script: Any, tmp_path: Path) -> None:
    import gzip

    import pandas

    from workbench.base.store import write_parquet

    key = next(iter(script.canaries().values()))
    write_parquet(tmp_path / "rows.parquet", pandas.DataFrame({"a": ["x" * 9000, key]}))  # type: ignore[arg-type]
    (tmp_path / "log.gz").write_bytes(gzip.compress(f"key {key}".encode()))
    (tmp_path / "plain").write_text(key[: script.LENGTH])
    assert all(script._holds(script._contents(path)) for path in tmp_path.iterdir())


def test_the_hook_writes_down_foreign_names_and_leaves_this_machines_own_alone(script: Any, tmp_path: Path) -> None:
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(script.HOOK)
    asks = "import socket\nfor host in ('localhost', 'example.invalid'):\n    try:\n        socket.getaddrinfo(host, 80)\n" \
           "    except OSError:\n        pass\n"  # fmt: skip
    subprocess.run([sys.executable, "-c", asks], env=script._environment(tmp_path), check=True)
    assert (tmp_path / "connections").read_text().splitlines() == ["socket.getaddrinfo example.invalid"]

"""Fetching from a server that stands in for Neuronpedia: kept in the cache, bounded, and never to another place."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from workbench.base.errors import WorkbenchError
from workbench.labeling.files import neuronpedia_fetch
from workbench.labeling.files.neuronpedia import read_features
from workbench.labeling.files.neuronpedia_fetch import (
    cached_files,
    fetch_explanations,
    fetch_feature,
    source_folder,
)

MODEL, SOURCE = "gpt2-small", "6-res-jb"


class Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.asked: list[str] = []
        self.broken = ""
        self.raw: dict[str, bytes] = {}  # whole answers, headers and all, by a part of the address


class Answers(BaseHTTPRequestHandler):
    server: Server  # type: ignore[assignment]

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        for part, raw in self.server.raw.items():
            if part in self.path:
                self.wfile.write(raw)
                return
        if self.server.broken and self.server.broken in self.path:
            self.send_error(503)
        elif (data := self._data()) is None:
            self._absent(403 if "batch" in self.path else 404)
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    def _absent(self, code: int) -> None:
        self.send_response(code)
        self.end_headers()
        self.wfile.write(b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>")

    def _data(self) -> bytes | None:
        row = {"modelId": MODEL, "layer": SOURCE, "index": "650", "description": "dates", "explanationModelName": "g"}
        if self.path == f"/api/feature/{MODEL}/{SOURCE}/650":
            return json.dumps({**row, "explanations": [row], "activations": []}).encode()
        for n in (0, 1):
            if self.path == f"/v1/{MODEL}/{SOURCE}/explanations/batch-{n}.jsonl.gz":
                return gzip.compress(json.dumps({**row, "index": str(n)}).encode() + b"\n")
        return None

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    made = Server()
    threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    for name in ("NEURONPEDIA_URL", "NEURONPEDIA_EXPORTS_URL"):
        monkeypatch.setenv(f"WORKBENCH_{name}", f"http://127.0.0.1:{made.server_address[1]}/")
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    yield made
    made.shutdown()
    made.server_close()


def test_a_feature_is_fetched_once(server: Server, tmp_path: Path) -> None:
    assert cached_files(MODEL, SOURCE) == []
    path = fetch_feature(MODEL, SOURCE, 650)
    assert path.is_relative_to(tmp_path / "cache") and fetch_feature(MODEL, SOURCE, 650) == path
    assert server.asked == [f"/api/feature/{MODEL}/{SOURCE}/650"] and cached_files(MODEL, SOURCE) == [path]
    assert read_features([path])[0].explanations[0].text == "dates"
    with pytest.raises(WorkbenchError, match="there is no such feature"):
        fetch_feature(MODEL, SOURCE, 651)


def test_all_explanations_are_fetched_until_there_are_none_and_go_on_where_they_stopped(server: Server) -> None:
    server.broken = "batch-1"
    with pytest.raises(WorkbenchError, match="answered with status 503"):
        fetch_explanations(MODEL, SOURCE)
    server.broken = ""
    paths = fetch_explanations(MODEL, SOURCE)
    assert [path.name for path in paths] == ["batch-0.jsonl.gz", "batch-1.jsonl.gz"] and cached_files(MODEL, SOURCE) == paths
    assert sum("batch-0" in path for path in server.asked) == 1
    assert [feature.index for feature in read_features(paths)] == [0, 1]
    with pytest.raises(WorkbenchError, match="has no explanations of gpt2-small/7-res-jb"):
        fetch_explanations(MODEL, "7-res-jb")


def test_an_answer_that_is_too_large_is_not_kept(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neuronpedia_fetch, "MAX_BYTES", 20)
    with pytest.raises(WorkbenchError, match="more than 20 bytes"):
        fetch_feature(MODEL, SOURCE, 650)
    assert cached_files(MODEL, SOURCE) == []


@pytest.mark.parametrize("name", ["../x", "a/b", "", "..", "a b", "x?y", ".hidden"])
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    for pair in ((name, SOURCE), (MODEL, name)):
        with pytest.raises(WorkbenchError, match="is no name at Neuronpedia"):
            source_folder(*pair)


def test_only_web_addresses_are_asked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_NEURONPEDIA_URL", "file:///etc")
    with pytest.raises(WorkbenchError, match="an address with https://"):
        fetch_feature(MODEL, SOURCE, 650)
    monkeypatch.setenv("WORKBENCH_NEURONPEDIA_URL", "http://127.0.0.1:9")
    with pytest.raises(WorkbenchError, match="cannot be reached"):
        fetch_feature(MODEL, SOURCE, 650)


ANSWERS = {
    "cut short": (b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"modelId": "gpt2-small", "lay', "30 of 500 bytes came"),
    "a login page": (b"HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\n<html>log in</html>", "answered with something else"),
    "another protocol": (b"SSH-2.0-OpenSSH\r\n\r\n", "cannot be reached"),
    "throttled": (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nslow down", "answered with status 403"),
}


@pytest.mark.parametrize("what", ANSWERS)
def test_an_answer_that_is_not_what_was_asked_for_is_not_kept(server: Server, what: str) -> None:
    raw, message = ANSWERS[what]
    server.raw = {"api/feature": raw, "batch-1": raw}
    with pytest.raises(WorkbenchError, match=message):
        fetch_feature(MODEL, SOURCE, 650)
    assert cached_files(MODEL, SOURCE) == []
    with pytest.raises(WorkbenchError, match=message):  # and it is not taken for the end of the list
        fetch_explanations(MODEL, SOURCE)
    server.raw = {}
    assert fetch_feature(MODEL, SOURCE, 650).exists() and len(fetch_explanations(MODEL, SOURCE)) == 2

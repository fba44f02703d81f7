"""A small server that speaks what the hub's client asks of a model repository: create, upload, list, describe, download."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

REVISION = "c" * 40


class Hub:
    """Repositories in memory ({repo: {path: bytes}}), and the faults that the server is to show."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.blobs: dict[str, bytes] = {}
        self.status: int | None = None
        self.truncate: str | None = None
        self.corrupt: str | None = None
        self.write_token: str | None = None
        self.seen: list[tuple[str, str]] = []
        self.url = ""

    def is_lfs(self, path: str) -> bool:
        return path.endswith((".safetensors", ".pt", ".npz"))

    def described(self, repo: str, path: str) -> dict[str, Any]:
        data = self.repos[repo][path]
        facts: dict[str, Any] = {"type": "file", "path": path, "size": len(data),
                                 "oid": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()}  # fmt: skip
        if self.is_lfs(path):
            facts["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        return facts


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def _answer(self, value: Any = None, status: int = 200, **headers: str) -> None:
        data = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"content-type": "application/json", "content-length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _parts(self) -> list[str]:
        path = unquote(urlsplit(self.path).path)
        self.hub.seen.append((self.command, path))
        return path.strip("/").split("/")

    def _refused(self, write: bool = False) -> bool:
        if self.hub.status:
            self._answer({"error": "no"}, self.hub.status)
            return True
        if write and self.headers.get("authorization") != f"Bearer {self.hub.write_token}":
            self._answer({"error": "Invalid credentials"}, 401)
            return True
        return False

    def do_POST(self) -> None:
        parts, body = self._parts(), self._body()
        if self._refused(write="paths-info" not in parts and "validate-yaml" not in parts):
            return
        if parts[-1] == "validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        if parts[1:3] == ["repos", "create"]:
            asked = json.loads(body)
            repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
            existed = repo in self.hub.repos
            self.hub.repos.setdefault(repo, {})
            return self._answer({"url": f"{self.hub.url}/{repo}"}, 409 if existed else 200)
        if parts[-1] == "batch":
            return self._batch(json.loads(body))
        repo = "/".join(parts[2:4])
        if repo not in self.hub.repos:
            return self._answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
        if parts[4] == "preupload":
            files = [{"path": f["path"], "uploadMode": "lfs" if self.hub.is_lfs(f["path"]) else "regular", "shouldIgnore": False}
                     for f in json.loads(body)["files"]]  # fmt: skip
            return self._answer({"files": files})
        if parts[4] == "paths-info":
            wanted = [path for path in parse_qs(body.decode())["paths"] if path in self.hub.repos[repo]]
            return self._answer([self.hub.described(repo, path) for path in wanted])
        return self._commit(repo, body)

    def _batch(self, asked: dict[str, Any]) -> None:
        objects = [
            {"oid": o["oid"], "size": o["size"], "actions": {"upload": {"href": f"{self.hub.url}/upload/{o['oid']}"}}}
            for o in asked["objects"]
        ]
        self._answer({"transfer": "basic", "objects": objects})

    def _commit(self, repo: str, body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.hub.repos[repo][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "lfsFile":
                self.hub.repos[repo][line["value"]["path"]] = self.hub.blobs[line["value"]["oid"]]
        self._answer({"commitUrl": f"{self.hub.url}/{repo}/commit/{REVISION}", "commitOid": REVISION})

    def do_PUT(self) -> None:
        oid = self._parts()[-1]
        data = self._body()
        assert hashlib.sha256(data).hexdigest() == oid
        self.hub.blobs[oid] = data
        self._answer()

    def do_HEAD(self) -> None:
        self._resolve()

    def do_GET(self) -> None:
        parts = self._parts()
        if parts[0] != "api":
            return self._resolve()
        if self._refused():
            return
        repo = "/".join(parts[2:4])
        if repo not in self.hub.repos:
            return self._answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
        siblings = [{"rfilename": path} for path in sorted(self.hub.repos[repo])]
        self._answer({"id": repo, "sha": REVISION, "private": False, "siblings": siblings, "tags": []})

    def _resolve(self) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if self._refused():
            return
        repo, path = "/".join(parts[:2]), "/".join(parts[4:])
        data = self.hub.repos.get(repo, {}).get(path)
        if data is None:
            code = "EntryNotFound" if repo in self.hub.repos else "RepoNotFound"
            return self._answer({"error": code}, 404, X_Error_Code=code, X_Repo_Commit=REVISION)
        described = self.hub.described(repo, path)
        sent = bytes(len(data)) if path == self.hub.corrupt else data
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.send_header("x-repo-commit", REVISION)
        self.send_header("etag", f'"{(described.get("lfs") or described)["oid"]}"')
        self.end_headers()
        if self.command == "GET":
            if path == self.hub.truncate:
                self.wfile.write(sent[: len(sent) // 2])
                self.close_connection = True
                return
            self.wfile.write(sent)


@contextmanager
def running() -> Iterator[Hub]:
    """A hub on a free port of this machine, for the length of the block."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

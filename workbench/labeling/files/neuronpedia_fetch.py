"""Files from Neuronpedia, kept in the cache: fetched once, and only when somebody asks for it."""

from __future__ import annotations

import http.client
import re
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from workbench.base.errors import WorkbenchError
from workbench.base.progress import track
from workbench.base.settings import cache_dir, setting
from workbench.base.store import atomic_write
from workbench.labeling.files.neuronpedia import features_of
from workbench.labeling.files.yamlfile import LabelFileError

API, EXPORTS = "https://www.neuronpedia.org", "https://neuronpedia-datasets.s3.us-east-1.amazonaws.com"
MAX_BYTES = 64_000_000
MAX_BATCHES = 2000
TIMEOUT_SECONDS = 60
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_NO_SUCH_FILE = b"<Code>AccessDenied</Code>"  # how the exports' store says it, with status 403; others say 403 to be left alone


def cached_files(model_id: str, source: str) -> list[Path]:
    """What was fetched of a source before: bulk explanations, then single features."""
    folder = source_folder(model_id, source)
    return [*_by_number(folder.glob("explanations/*.jsonl.gz")), *_by_number(folder.glob("*.json"))]


def _by_number(paths: Any) -> list[Path]:
    return sorted(paths, key=lambda path: (len(path.name), path.name))


def source_folder(model_id: str, source: str) -> Path:
    """Where the files of a source are kept. Raises WorkbenchError for names that could lead elsewhere."""
    for name in (model_id, source):
        if not _PART.fullmatch(name):
            expected = "letters, digits, dots, - and _"
            raise WorkbenchError(f"{name!r} is no name at Neuronpedia", expected, "look it up in the address of its page")
    return cache_dir() / "neuronpedia" / model_id / source


def fetch_feature(model_id: str, source: str, index: int) -> Path:
    """The API's answer for one feature, from the cache or from the setting `neuronpedia_url`."""
    path = source_folder(model_id, source) / f"{index}.json"
    if not path.exists():
        url = f"{_host('neuronpedia_url', API)}/api/feature/{model_id}/{source}/{index}"
        data = _download(url)
        if data is None:
            raise WorkbenchError(f"{url}: there is no such feature", "a feature of that source", "check the names and the number")
        _keep(data, path, url)
    return path


def fetch_explanations(model_id: str, source: str) -> list[Path]:
    """All bulk explanations of a source, from the cache or the setting `neuronpedia_exports_url`; resumes where it stopped."""
    folder = source_folder(model_id, source) / "explanations"
    host = _host("neuronpedia_exports_url", EXPORTS)
    paths: list[Path] = []
    with track("Fetching explanations", None, "files") as step:
        for number in range(MAX_BATCHES):
            path = folder / f"batch-{number}.jsonl.gz"
            if not path.exists():
                url = f"{host}/v1/{model_id}/{source}/explanations/{path.name}"
                data = _download(url)
                if data is None:
                    break
                _keep(data, path, url)
            paths.append(path)
            step()
    if not paths:
        found = f"{host} has no explanations of {model_id}/{source}"
        raise WorkbenchError(found, "a source with exported explanations", "check the names, or fetch single features")
    return paths


def _host(name: str, default: str) -> str:
    host = str(setting(name, None, default)).rstrip("/")
    if not host.startswith(("https://", "http://")):
        raise WorkbenchError(f"the setting {name} is {host!r}", "an address with https://", f"correct the setting {name}")
    return host


def _keep(data: bytes, path: Path, url: str) -> None:
    """Into the cache, if it is what was asked for: what is kept there is not asked for again."""
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / path.name
        atomic_write(trial, data)
        try:
            for _ in features_of(trial):
                pass
        except LabelFileError as error:
            remedy = "open the address in a browser: a network's login page may stand in its way"
            raise WorkbenchError(f"{url} answered with something else ({error.problem})", "Neuronpedia's file", remedy) from error
    atomic_write(path, data)


def _download(url: str) -> bytes | None:
    """The bytes at an address; None when there is nothing."""
    request = urllib.request.Request(url, headers={"User-Agent": "persona-workbench"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            data, length = answer.read(MAX_BYTES + 1), answer.headers.get("Content-Length")
    except urllib.error.HTTPError as error:
        if error.code == 404 or (error.code == 403 and _NO_SUCH_FILE in _body(error)):
            return None
        raise WorkbenchError(f"{url} answered with status {error.code}", "status 200", "try again later") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        found = f"{url} cannot be reached ({reason})"
        raise WorkbenchError(found, "an answer", "check the network, or import local files") from None
    if len(data) > MAX_BYTES:
        raise WorkbenchError(f"{url} has more than {MAX_BYTES:,} bytes", "a smaller file", "download and import it in parts")
    if length is not None and length.isdecimal() and int(length[:18]) != len(data):
        raise WorkbenchError(f"{url}: {len(data):,} of {int(length[:18]):,} bytes came", "the whole file", "try again")
    return data


def _body(error: urllib.error.HTTPError) -> bytes:
    try:
        return error.read(10_000)
    except (OSError, http.client.HTTPException):
        return b""

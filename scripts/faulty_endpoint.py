"""Explain 200 features at an endpoint that fails three times in ten, in both dialects, and count what was lost or repeated.

    python scripts/faulty_endpoint.py --json

The endpoint is a real HTTP server on this machine. It answers with 429 and a Retry-After header, 500 and 529, ends connections
early, cuts its JSON short, sends JSON of another shape and lets requests time out. One answer in ten is a label object that is
cut off or no object at all, which costs one request to repair it. Half-way the run is interrupted and started again.

`lost`: features without their own right label at the end. `repeated`: requests that were answered and yet sent once more.
`leaked`: files, labels and messages (standard error, the log, the error about an endpoint that sends the key back where its
answer is cut) in which the beginning of the environment's key turns up.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

KINDS = ("429", "500", "529", "malformed", "truncated", "wrong shape", "timeout")
RATE = 0.3
KEY = "sk-canary-faulty-endpoint"
BEGINNING = KEY[:9]
"""A key that was cut is a leak as well."""


def main() -> int:
    """Print {lost, repeated, leaked, ...}; exit code 1 when any of these three is not 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON object and nothing else")
    options = parser.parse_args()
    found = faulty_endpoint(options.features, options.seed)
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        print(f"lost {found['lost']}, repeated {found['repeated']}, leaked {found['leaked']} ({found['n_faults']} faults in "
              f"{found['n_requests']} requests for {found['n_features']} features, {found['seconds']} s)")  # fmt: skip
    return 1 if found["lost"] or found["repeated"] or found["leaked"] else 0


def faulty_endpoint(n_features: int = 200, seed: int = 0) -> dict[str, Any]:
    """{lost, repeated, leaked, n_features, n_requests, n_faults, n_repairs, faults: {kind: count}, interrupted, seconds}, both
    dialects together."""
    os.environ["WORKBENCH_API_KEY"] = KEY
    started, found = time.perf_counter(), []
    for dialect in ("openai", "anthropic"):
        with tempfile.TemporaryDirectory() as folder:
            found.append(one_dialect(dialect, n_features, seed, Path(folder)))
    total: dict[str, Any] = {name: sum(one[name] for one in found) for name in found[0] if name != "faults"}
    kinds = {kind: sum(one["faults"].get(kind, 0) for one in found) for kind in KINDS}
    return {**total, "faults": kinds, "rate": RATE, "seed": seed, "seconds": round(time.perf_counter() - started, 1)}


def one_dialect(dialect: str, n_features: int, seed: int, folder: Path) -> dict[str, Any]:
    """The counts of one dialect. The work is in a cache of its own; the server counts what it saw."""
    from tests.labeling.features import known_evidence, known_label, number_asked, request_about, right_answer
    from tests.personas.judges import server
    from workbench.labeling.explainers.endpoint import EndpointExplainer

    make, interrupted = server.message if dialect == "anthropic" else server.completion, threading.Event()
    main_thread = threading.main_thread().ident
    assert main_thread is not None

    def answer(prompt: str) -> dict[str, Any]:
        number, repair = number_asked(prompt), prompt.endswith("\nrepair")
        if len(endpoint.answered) == n_features // 2 and not interrupted.is_set():
            interrupted.set()
            signal.pthread_kill(main_thread, signal.SIGINT)
        said = right_answer(number)
        return make(said if number % 10 or repair else (said[: len(said) // 2], f"I think it is {KEY}.")[number // 10 % 2])

    def faults(prompt: str, attempt: int) -> str | None:
        dice = random.Random(f"{seed} {number_asked(prompt)} {prompt.endswith('repair')} {attempt}")
        kind = dice.choice(KINDS) if dice.random() < RATE else None
        return None if kind == "timeout" and attempt > 1 else kind  # waiting is dear: at most one of them per request

    evidence = [known_evidence(number) for number in range(n_features)]
    with all_told() as told, server.running(answer, faults, request_about) as endpoint:
        endpoint.hang_seconds = 6.0
        base = endpoint.url.removesuffix("/v1") if dialect == "anthropic" else endpoint.url
        explainer = EndpointExplainer(dialect, model="m", base_url=base, cache_folder=folder, n_workers=32, timeout_seconds=5.0,
                                      n_attempts=14, first_wait_seconds=0.01, max_wait_seconds=0.1)  # fmt: skip
        said, n_interrupted = explain_through_interruptions(explainer, evidence)
        explainer.explain_all(evidence)  # everything is answered: sends nothing, or it counts as repeated
        sent, injected = endpoint.seen.total(), dict(endpoint.injected)
        n_distinct, n_answered = len(endpoint.answered), endpoint.answered.total()
    right = [item.label == known_label(number) for number, item in enumerate(said)]
    return {
        "lost": right.count(False),
        "repeated": n_answered - n_distinct,
        "leaked": leaked(folder, f"{said!r}\n{told.getvalue()}\n{refusal(dialect, folder)}"),
        "n_features": n_features,
        "n_requests": sent,
        "n_faults": sum(injected.values()),
        "n_repairs": n_distinct - n_features,
        "interrupted": n_interrupted,
        "faults": injected,
    }


def explain_through_interruptions(explainer: Any, evidence: list[Any]) -> tuple[list[Any], int]:
    """(explanations, how often Ctrl-C ended the run before it was whole)."""
    for n_interrupted in range(5):
        try:
            return explainer.explain_all(evidence), n_interrupted
        except KeyboardInterrupt:
            continue
    raise RuntimeError("The run was interrupted five times.")


@contextlib.contextmanager
def all_told() -> Iterator[io.StringIO]:
    """What the block says on standard error and to the log."""
    told = io.StringIO()
    handler, root = logging.StreamHandler(told), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        with contextlib.redirect_stderr(told):
            yield told
    finally:
        root.setLevel(level)
        root.removeHandler(handler)


def refusal(dialect: str, folder: Path) -> str:
    """The error about an endpoint that refuses the request and sends the key back, across the place where its words are cut."""
    from tests.labeling.features import known_evidence
    from tests.personas.judges import server
    from workbench.base.errors import WorkbenchError
    from workbench.labeling.explainers.endpoint import EndpointExplainer

    with server.running(lambda prompt: {}, lambda prompt, attempt: "refused") as endpoint:
        base = endpoint.url.removesuffix("/v1") if dialect == "anthropic" else endpoint.url
        try:
            EndpointExplainer(dialect, model="m", base_url=base, cache_folder=folder).explain(known_evidence(0))
        except WorkbenchError as error:
            return f"{error}\n{error.found}"
    raise RuntimeError("The request was not refused.")


def leaked(folder: Path, told: str) -> int:
    """Files in which the beginning of the key stands, and 1 more if it was told."""
    files = [path for path in folder.rglob("*") if path.is_file() and BEGINNING.encode() in path.read_bytes()]
    return len(files) + (BEGINNING in told)


if __name__ == "__main__":
    raise SystemExit(main())

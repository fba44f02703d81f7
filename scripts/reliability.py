"""What docs/evidence/reliability.json holds: faults injected and survived, hostile files, canary keys, the wheel.

    python scripts/evidence.py reliability          # everything, some three CPU hours; parts are kept under runs/reliability
    python scripts/reliability.py fuzz kills        # parts of it, printed

kills      100 kills of every stage at random moments, resumed and compared byte for byte: kills.py; five of every stage
           on the default model (kills_default_model): kills_default_model.py
attacks    names that lead elsewhere, code, bombs, pipes and devices, built into a sound file of every reader: attacks.py
fuzz       10,000 damaged and hostile files for every reader: fuzz.py
canary     a whole job searched for planted keys, and for connections that nobody asked for: canary.py
wheel      the wheel, alone in an empty environment, runs the main job: wheel_check.py
versions   the oldest and the newest versions that pyproject.toml allows, each with a part of the tests: versions_check.py
faults     full disks, torn and missing files, clocks, two processes, read-only folders, memory: faults.py
endpoint   200 features explained at an endpoint that fails three times in ten: faulty_endpoint.py
ray        workers killed, the head started again, a full disk on a real cluster: ray_faults.py, where Ray is installed; its
           time with more workers (ray_growth), on an idle machine: ray_growth.py; through an object store instead of a
           shared folder (ray_store), where s3fs and moto are, too: ray_store.py
gpu        agreement with the CPU, waiting, speed beside floors and peers: benchmarks/gpu.py, where there is a GPU

A part is kept, under runs/reliability and in the evidence file itself, with the hash of the scripts that made it and the
commit of the code; other scripts make it again. What this machine cannot do stays as the file has it. With
RELIABILITY_ONLY_FINISHED=1 nothing is made: what is not there is missing.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workbench.base.provenance import made, provenance
from workbench.base.store import content_hash, read_json, sha256_file, write_json

ROOT = Path(__file__).resolve().parents[1]
EVIDENCE, PLACE = ROOT / "docs" / "evidence" / "reliability.json", ROOT / "runs" / "reliability"
SEED, N_KILLS, N_INPUTS, FAULT_SIZES = 0, 100, 10_000, ("--most", "40", "--times", "3")
ONLY_FINISHED, EACH = "RELIABILITY_ONLY_FINISHED", ("kills", "kills_default_model", "fuzz", "faults", "attacks")
"""The variable that makes nothing; the parts of which some may be finished."""


def _kills() -> dict[str, Any]:
    from kills import stages

    return {name: _each("kills.py", name, "--kills", str(N_KILLS)) for name in stages()}


def _fuzz() -> dict[str, Any]:
    from tests.hostile.readers import READERS

    return {name: _each("fuzz.py", name, "--inputs", str(N_INPUTS)) for name in READERS}


def _attacks() -> dict[str, Any]:
    from attacks import readers

    return {name: _each("attacks.py", name) for name in readers()}


def _kills_default_model() -> dict[str, Any]:
    from kills import stages

    return {name: _each("kills_default_model.py", name) for name in stages()}


def _faults() -> dict[str, Any]:
    from kills import stages

    parts = [one for name in stages() if (one := _each("faults.py", name, *FAULT_SIZES, whole=True))]
    names = [name for name in (parts[0] if parts else {}) if not name.startswith("_")]
    found: dict[str, Any] = {name: {k: v for one in parts for k, v in one[name].items()} for name in names}
    if not parts:
        return found
    refused = {name: sum(one["_refused_in_words"][name] for one in parts) for name in names}
    return {**found, **{name: parts[0][name] for name in ("_seed", "_tmpfs")}, "_refused_in_words": refused,
            "_not_survived": [text for one in parts for text in one["_not_survived"]]}  # fmt: skip


def _each(script: str, name: str, *arguments: str, whole: bool = False) -> dict[str, Any]:
    """What is printed of one stage or reader (all with `whole`), kept by itself: an interrupted part goes on with the next."""
    place = PLACE / script.removesuffix(".py") / f"{content_hash([name, arguments, _sources(script)])[:16]}.json"
    if not place.is_file() and os.environ.get(ONLY_FINISHED):
        return {}
    if not place.is_file():
        printed = _run(script, "--only", name, *arguments)
        write_json(place, printed if whole else printed[name])
    return read_json(place)


PARTS: dict[str, tuple[str, Callable[[], dict[str, Any]]]] = {
    "kills": ("kills.py", _kills),
    "fuzz": ("fuzz.py", _fuzz),
    "canary": ("canary.py", lambda: _run("canary.py", "--json")),
    "wheel": ("wheel_check.py", lambda: _run("wheel_check.py")),
    "endpoint": ("faulty_endpoint.py", lambda: _run("faulty_endpoint.py", "--json")),
    "faults": ("faults.py", _faults),
    "ray": ("ray_faults.py", lambda: _run("ray_faults.py", "--no-growth")),
    "gpu": ("../benchmarks/gpu.py", lambda: _run("../benchmarks/gpu.py")),
    "kills_default_model": ("kills_default_model.py", _kills_default_model),
    "ray_growth": ("ray_growth.py", lambda: _run("ray_growth.py")),
    "attacks": ("attacks.py", _attacks),
    "ray_store": ("ray_store.py", lambda: _run("ray_store.py")),
    "versions": ("versions_check.py", lambda: _run("versions_check.py")),
}


def part(name: str) -> dict[str, Any] | None:
    """{found, sources, commit, seconds} of a part, made now or kept; None where it is missing and may not be made."""
    script, make = PARTS[name]
    sources = content_hash(_sources(script))
    place, stated = PLACE / f"{name}-{sources[:12]}.json", read_json(EVIDENCE)["parts"] if EVIDENCE.is_file() else {}
    if place.is_file():
        return read_json(place)
    if stated.get(name, {}).get("sources") == sources and (stated[name].get("whole", True) or not _possible(name)):
        return stated[name]
    if not _possible(name):
        return None
    started, commit = time.perf_counter(), provenance(seed=SEED)["code_commit"]
    found = {"sources": sources, "commit": commit}
    if os.environ.get(ONLY_FINISHED):
        some = {key: one for key, one in make().items() if one} if name in EACH else {}
        return {"found": some, **found, "whole": False} if some else None
    found |= {"found": make()}
    write_json(place, {**found, "seconds": round(time.perf_counter() - started)})
    return read_json(place)


def _possible(name: str) -> bool:
    """Whether a part can be measured on this machine."""
    if name.startswith("ray"):
        return importlib.util.find_spec("ray") is not None
    if name == "gpu":
        import torch

        return torch.cuda.is_available()
    return True


def _sources(script: str) -> list[str]:
    """The hashes of the script and of what spoils and reads its files."""
    files = [ROOT / "scripts" / script, *sorted((ROOT / "tests" / "hostile").glob("[!t]*.py"))]
    return [sha256_file(file) for file in files]


def _run(script: str, *arguments: str) -> dict[str, Any]:
    """The JSON object that a script prints, whatever its exit code."""
    command = [sys.executable, str(ROOT / "scripts" / script), *arguments]
    return json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout)


def evidence() -> dict[str, Any]:
    """{kills: {stage: [identical, total]}, kills_default_model, fuzz: {reader: [inputs, crashes, executed]},
    attacks: {reader: [attacks, crashes, executed, reached]}, versions: {set: [passed, failed]}, canary_leaks,
    foreign_connections, wheel_main_job, endpoint, faults, ray, ray_growth, ray_store,
    gpu, missing, parts}; None: not measured."""
    started, counted = time.perf_counter(), ("lost", "repeated", "leaked", "n_requests", "n_faults")
    sys.path.insert(0, str(ROOT))
    kept = {name: one for name in PARTS if (one := part(name)) is not None}
    found: dict[str, Any] = {name: kept[name]["found"] if name in kept else {} for name in PARTS}
    parts = (found[name] for name in PARTS)
    killed, spoilt, canary, wheel, endpoint, faults, ray, gpu, default, growth, attacked, store, versions = parts
    header = made("make evidence TOPIC=reliability", SEED, time.perf_counter() - started,
                  {name: content_hash(one) for name, one in kept.items()})  # fmt: skip
    return {
        "_made": header,
        "kills": _identical(killed),
        "kills_default_model": _identical(default),
        "fuzz": {name: [one["inputs"], one["crashes"] + one["slow"], one["executed"]] for name, one in spoilt.items()} or None,
        "attacks": {name: [sum(one["attacks"].values()), one["crashes"] + one["slow"], one["executed"], one["reached"]]
                    for name, one in attacked.items()} or None,
        "versions": {name: [one["passed"], one["failed"]] for name, one in versions.items()} or None,
        "canary_leaks": canary.get("leaks"),
        "foreign_connections": canary.get("connections"),
        "wheel_main_job": wheel["main_job"] and wheel["twine"] if wheel else None,
        "endpoint": {name: endpoint[name] for name in counted} if endpoint else None,
        "faults": {name: one for name, one in faults.items() if not name.startswith("_")} or None,
        "ray": {name: ray[name] for name in ("workers_killed", "lost", "repeated", "identical")} if ray else None,
        "ray_growth": growth or None,
        "ray_store": {name: one for name, one in store.items() if name != "runs"} or None,
        "gpu": gpu or None,
        "missing": [name for name in PARTS if not kept.get(name, {"whole": False}).get("whole", True)],
        "parts": kept,
    }  # fmt: skip


def _identical(killed: dict[str, Any]) -> dict[str, list[int]] | None:
    return {name: [one["identical"], one["kills"]] for name, one in killed.items()} or None


def evidence_quick() -> bool:
    """Whether two more kills of a stage end identical, and two hundred other files for a reader do no harm."""
    killed = _run("kills.py", "--only", "screen", "--kills", "2", "--seed", str(SEED + 1))["screen"]
    spoilt = _run("fuzz.py", "--only", "persona vector", "--inputs", "200", "--seed", str(SEED + 1))["persona vector"]
    print({"kills": killed, "fuzz": spoilt})
    return killed["identical"] == killed["kills"] and not spoilt["crashes"] and not spoilt["executed"]


def main() -> None:
    sys.path.insert(0, str(ROOT))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=tuple(PARTS))
    for name in parser.parse_args().parts:
        print(json.dumps({name: part(name)}, indent=1), flush=True)


if __name__ == "__main__":
    main()

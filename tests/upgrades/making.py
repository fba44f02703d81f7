"""Small artefacts of every schema that was ever written, kept as files: what a user's old folders look like.

    python -m tests.upgrades.making      # writes the folders that are missing; those that are there are never changed

Schemas before the present one are made from today's artefact by taking away what they did not have yet.
"""

from __future__ import annotations

import importlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.hostile.readers import READERS, Reader, tiny
from tests.tiny_job import write_tiny_job
from workbench.base.runs import SCHEMA as RUN_SCHEMA
from workbench.base.tensors import load_artifact, save_tensors
from workbench.decomposition.result import KIND, SCHEMA
from workbench.personas.traits import TRAIT_SCHEMA

GOLDEN, HOOK = Path(__file__).parent / "golden", "blocks.1.hook_resid_post"


@dataclass(frozen=True)
class Kind:
    """An artefact of users: the reader of it (its own, or that of hostile files by name), its present schema,
    what tells that it was read right, and the first schema that has files here."""

    reader: str | Reader
    schema: int
    told: Callable[[Any], Any]
    first: int = 1


def _direction(read: Any) -> Any:
    rows, direction, _ = read
    return {"n_rows": len(rows), "norm": round(float(direction.norm()), 4)}


def _shares(read: Any) -> Any:
    rows, text = read
    return {"features": [row["feature"] for row in rows], "share": round(rows[0]["share"], 4), "text": text.split(" on ")[0]}


def _run_folder(folder: Path, *arguments: str) -> None:
    """What a command makes of the tiny model, in `folder`/made."""
    from workbench.cli.run import run

    with tempfile.TemporaryDirectory() as place:
        write_tiny_job(Path(place))
        given = ["--model", f"{place}/model", "--out", f"{place}/out", "--hook", HOOK, "--judge", "none", "--max-new-tokens", "4"]
        if code := run([*arguments, *given, "-q"]):
            raise SystemExit(code)
        shutil.copytree(f"{place}/out", folder / "made")


def _role_vectors(folder: Path) -> list[Path]:
    _run_folder(folder, "axis", "roles", "ghost", "poet", "reviewer", "--questions", "6", "--prompts", "2", "--min-count", "2")
    for path in (folder / "made").iterdir():
        if path.name != "roles":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _placebos(folder: Path) -> list[Path]:
    import torch

    from workbench.models.hookpoints import HookPoint
    from workbench.personas.placebos import PlaceboVectors

    directions = torch.arange(24, dtype=torch.float32).reshape(3, 1, 8)
    made = PlaceboVectors(("a", "b", "c"), ((), ("evil",), ()), (HookPoint(1),), directions, {"name": "tiny"})
    return [made.save(folder / "made")]


def _monitor(folder: Path) -> list[Path]:
    from workbench.personas.vectors import PersonaVector
    from workbench.steering.monitor.monitor import Monitor

    reader = READERS["persona vector"]
    reader.make(folder)
    vector = next(path.parent for path in folder.rglob("persona_vector.json"))
    made = Monitor.of(tiny(), [PersonaVector.load(vector)]).save(folder / "made")
    for path in folder.iterdir():
        if path.name != "made":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return [made]


def _loads(module: str, name: str, place: str = "made") -> Callable[[Path], Any]:
    return lambda folder: getattr(importlib.import_module(f"workbench.{module}"), name).load(folder / place)


KINDS: dict[str, Kind] = {
    "persona_vector": Kind("persona vector", 1, _direction),
    "decomposition": Kind("decomposition", SCHEMA, _shares),
    "layered_vectors": Kind("vectors of blocks", 1, lambda read: sorted(map(str, read.hooks))),
    "manifest": Kind("run manifest", RUN_SCHEMA, lambda read: [read[0]["summary"], read[1]]),
    "capping": Kind("capping", 1, lambda read: [read.name, len(read.caps)]),
    "label": Kind("label file", 2, lambda read: [label.label for label in read.labels]),
    "causal_controls": Kind("causal controls", 1, lambda read: len(read)),
    "trait": Kind(
        "trait folder", TRAIT_SCHEMA, lambda read: [read.name, len(read.questions), len(read.instructions)], TRAIT_SCHEMA,
    ),
    "placebo_vectors": Kind(
        Reader(_placebos, _loads("personas.placebos", "PlaceboVectors")), 1,
        lambda read: [read.names, read.related, round(float(read.directions.norm()), 4)],
    ),
    "role_vectors": Kind(
        Reader(_role_vectors, _loads("axis.space.role_vectors", "RoleVectors", "made/roles")), 1,
        lambda read: [read.names, read.n_kept, read.n_default, round(float(read.means.norm()), 4)],
    ),
    "monitor": Kind(
        Reader(_monitor, _loads("steering.monitor.monitor", "Monitor")), 1,
        lambda read: [[signal.name for signal in read.signals], round(float(read.readout.norm()), 4)],
    ),
}  # fmt: skip


def reader_of(kind: str) -> Reader:
    reader = KINDS[kind].reader
    return READERS[reader] if isinstance(reader, str) else reader


def expected(kind: str, folder: Path) -> Any:
    """What is read in a folder, as JSON types."""
    return json.loads(json.dumps(KINDS[kind].told(reader_of(kind).read(folder))))


def make(kind: str, folder: Path) -> None:
    """Today's artefact in `folder`, cut down to what tests need."""
    reader_of(kind).make(folder)
    if kind == "causal_controls":  # a shipped file of hundreds of controls
        file = folder / "controls.json"
        stored = json.loads(file.read_text())
        n = len(stored["features"])
        file.write_text(json.dumps({name: value[:5] if isinstance(value, list) and len(value) == n else value
                                    for name, value in stored.items()}))  # fmt: skip


def older_decomposition(folder: Path, schema: int) -> None:
    """Today's decomposition in `folder` as schema 1, 2 or 3 had it: before basic intervals, the direction, the placebos."""
    place = folder / "decomposition"
    document, tensors = load_artifact(place, KIND, SCHEMA)
    share, low, high = (tensors[name] for name in ("share", "share_low", "share_high"))
    tensors |= {"share_low": 2 * share - high, "share_high": 2 * share - low}
    for group in ((document.get("audit") or {}).get("groups") or {"groups": ()})["groups"]:
        group["interval"] = [2 * group["share"] - end for end in reversed(group["interval"])]
    if (error := document.get("share_error_interval")) is not None:
        document["share_error_interval"] = [2 * document["share_error"] - end for end in reversed(error)]
    gone = [*(["direction"] if schema < 3 else []),
            *(("q_crossed", "placebo_score", "placebo_p", "placebo_q") if schema < 2 else ())]  # fmt: skip
    stored = save_tensors(place / f"{KIND}.safetensors", {name: one for name, one in tensors.items() if name not in gone})
    from workbench.base.store import sha256_file, write_json

    write_json(place / f"{KIND}.json", {**document, "schema": schema, "tensors_sha256": sha256_file(stored)})


def main() -> None:
    for kind, one in KINDS.items():
        for schema in range(one.first, one.schema + 1):
            target = GOLDEN / f"{kind}-{schema}"
            if target.exists() or (kind == "label" and schema < one.schema):  # labels have golden files of their own
                continue
            with tempfile.TemporaryDirectory() as place:
                folder = Path(place) / "made"
                folder.mkdir()
                make(kind, folder)
                if schema < one.schema:
                    older_decomposition(folder, schema)
                (folder / "expected.json").write_text(json.dumps(expected(kind, folder), indent=1, ensure_ascii=False) + "\n")
                shutil.copytree(folder, target)
            print(target, file=sys.stderr)


if __name__ == "__main__":
    main()

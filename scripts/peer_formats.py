"""Check the vector formats against the packages that own them, and write the golden files of the tests.

    python scripts/peer_formats.py                    # a new environment per package; docs/evidence/peer_formats.json,
                                                      # as `make evidence TOPIC=peer_formats` does
    python scripts/peer_formats.py --venvs FOLDER     # keep the environments there, and use those that are there

Each package gets an environment of its own, as they need other versions than the workbench. In it the package writes a
small file of known vectors and reads ours (scripts/peers/); where it can steer, a tiny model shows which block's output
each direction is added to. repeng and llama.cpp also apply exported edits at strength 1: are their logits the workbench's own?
Formats without a package have golden files made from their documented layout.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers import tiny_qwen2
from safetensors.torch import save_file

from workbench.base.provenance import made
from workbench.base.store import read_json, sha256_file, write_json
from workbench.models.hookpoints import HookPoint
from workbench.personas.formats import LayeredVectors, read_vectors, write_vectors

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
SIDES = ROOT / "scripts" / "peers"
GOLDEN = ROOT / "tests" / "personas" / "formats" / "golden"
RECORD = ROOT / "docs" / "evidence" / "peer_formats.json"
COMMAND = "make evidence TOPIC=peer_formats"
SEED, N_BLOCKS, D_MODEL = 0, 4, 8
TORCH = f"torch=={metadata.version('torch')}"  # the build that runs here, so that no other is downloaded


@dataclass(frozen=True)
class Peer:
    """A package, what else its environment needs, and how it is checked."""

    package: str
    requirements: tuple[str, ...]
    check: Callable[[Path, Path], dict[str, Any]]


def known_vectors(n_rows: int = N_BLOCKS, d_model: int = D_MODEL) -> torch.Tensor:
    """The vectors that every file holds: the first rows [n_rows, d_model] of one seeded table."""
    table = torch.randn(N_BLOCKS + 1, d_model, generator=torch.Generator().manual_seed(SEED))
    return table[:n_rows].clone()


def ours(blocks: Mapping[int, torch.Tensor]) -> LayeredVectors:
    """The same as the workbench's own value."""
    return LayeredVectors(
        {HookPoint(b): v for b, v in blocks.items()}, "golden", {"name": "tiny", "model_type": "llama"}
    )


def run_side(python: Path, side: str, folder: Path) -> None:
    """Run one script of scripts/peers in the package's environment."""
    done = subprocess.run([str(python), str(SIDES / side), str(folder)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])


def exchange(
    side: str, format: str, suffix: str, golden: Mapping[str, str]
) -> Callable[[Path, Path], dict[str, Any]]:
    """The check of a package that reads and writes files: both ways, with the block that each layer changes."""

    def check(python: Path, folder: Path) -> dict[str, Any]:
        vectors = dict(enumerate(known_vectors()))
        del vectors[0]  # control vectors begin at block 1
        np.savez(folder / "expected.npz", **{str(b): v.numpy() for b, v in vectors.items()})  # pyright: ignore
        write_vectors(ours(vectors), folder / f"ours{suffix}", format)
        steered = export_edits(folder) if side == "repeng_side.py" else {}
        run_side(python, side, folder)
        theirs = np.load(folder / "read.npz")
        read = {int(name): torch.from_numpy(theirs[name]) for name in theirs.files}
        gaps = [difference(vectors, read)]
        for source, target in golden.items():
            shutil.copyfile(folder / source, GOLDEN / target)
            back = read_vectors(GOLDEN / target, model="golden/tiny")
            assert back.source["format"] == format, back.source
            gaps.append(difference(vectors, {hook.block: v for hook, v in back.vectors.items()}))
        measured = json.loads((folder / "measured.json").read_text())["block_of_layer"]
        return {
            "reads_ours": gaps[0] == 0.0,
            "we_read_theirs": max(gaps[1:]) == 0.0,
            "max_abs_difference": max(gaps),
            "direction_index": measured or None,
            **strength_one(steered, folder),
        }

    return check


def export_edits(folder: Path) -> dict[str, np.ndarray]:
    """A tiny model and exported edits only.{name}.gguf in `folder`; the logits that the workbench gives under those edits.

    one_block: half a norm after block 2; incremental: .3 norms there, in steps after blocks 1 to 3; plain: none.
    """
    from tests.tiny import tiny_tokenizer
    from workbench.models.model import Model
    from workbench.personas.vectors import PersonaVector, empty_rows
    from workbench.steering.apply import steered
    from workbench.steering.edits import Edit, incremental
    from workbench.steering.export import export_gguf

    tokenizer = tiny_tokenizer()
    hf = tiny_qwen2.tiny_qwen2(N_BLOCKS, len(tokenizer))
    tiny_qwen2.write_model(hf, folder)
    torch.save(hf.state_dict(), folder / "weights.pt")
    write_json(folder / "model.json", tiny_qwen2.sizes(N_BLOCKS, len(tokenizer)))
    model, hooks = Model.wrap(hf, tokenizer, name="tiny"), tuple(HookPoint(block) for block in range(1, N_BLOCKS))
    directions = known_vectors(N_BLOCKS, tiny_qwen2.D_MODEL)[1:]
    vector = PersonaVector("golden", model.description(), hooks[1], hooks, directions, None, None, None, empty_rows())
    arms: dict[str, tuple[Edit, ...]] = {"one_block": (Edit.add(vector, 0.5),), "incremental": incremental(vector, 0.3)}
    logits = {"plain": tiny_qwen2.logits(hf)}
    for name, edits in arms.items():
        export_gguf(edits, model, folder / f"only.{name}.gguf")
        with steered(model, edits):
            logits[name] = tiny_qwen2.logits(hf)
    return logits


def strength_one(steered: Mapping[str, np.ndarray], folder: Path) -> dict[str, Any]:
    """{strength_one: {name: {difference, effect}}}: the peer's logits at strength 1 against ours, and what steering changes."""
    if not steered:
        return {}
    found = np.load(folder / "logits.npz")
    arms = [name for name in steered if name != "plain"]
    return {
        "strength_one": {
            name: {
                "max_abs_difference": float(np.abs(found[name] - steered[name]).max()),
                "effect": float(np.abs(steered[name] - steered["plain"]).max()),
            }
            for name in arms
        }
    }


def difference(expected: Mapping[int, torch.Tensor], found: Mapping[int, torch.Tensor]) -> float:
    """The largest difference of two sets of vectors; infinite when they lie at other blocks."""
    if set(expected) != set(found):
        return float("inf")
    return max(float((expected[block] - found[block]).abs().max()) for block in expected)


def check_llama_cpp(python: Path, folder: Path) -> dict[str, Any]:
    """llama.cpp loads our files and adds them to a tiny model; transformers says at which block that gives its logits."""
    steered = export_edits(folder)
    model = tiny_qwen2.tiny_qwen2(N_BLOCKS, len(steered["plain"]))
    vectors = {b: v for b, v in enumerate(known_vectors(N_BLOCKS, tiny_qwen2.D_MODEL)) if b}
    for block, vector in vectors.items():
        write_vectors(ours({block: vector}), folder / f"only.{block}.gguf", "gguf")
    run_side(python, "llama_cpp_side.py", folder)
    blocks, worst = tiny_qwen2.where_added(model, vectors, np.load(folder / "logits.npz"))
    return {
        "reads_ours": all(block == number for number, block in blocks.items()),
        "we_read_theirs": None,
        "max_abs_difference": worst,
        "direction_index": {str(number): block for number, block in blocks.items()},
        "compared": "logits of a tiny model with the vector added (llama.cpp keeps keys and values in half precision)",
        **strength_one(steered, folder),
    }


PEERS = {
    "repeng": Peer(
        "repeng", (TORCH,), exchange("repeng_side.py", "gguf", ".gguf", {"theirs.gguf": "repeng.gguf"})
    ),
    "gguf": Peer("gguf", (), exchange("gguf_side.py", "gguf", ".gguf", {"theirs.gguf": "gguf_writer.gguf"})),
    "steering-vectors": Peer(
        "steering-vectors",
        (TORCH,),
        exchange(
            "steering_vectors_side.py",
            "steering-vectors",
            ".pt",
            {"theirs.pt": "steering_vectors.pt", "theirs_fields.pt": "steering_vectors_fields.pt"},
        ),
    ),
    "llama.cpp": Peer("xllamacpp", ("numpy",), check_llama_cpp),
}

WITHOUT_PACKAGE = {
    "persona_vectors": "no package: the golden file is made from its documented layout",
    "assistant-axis": "no package: the golden files are made from its documented layout",
    "saklas": "AGPL: read, never run or linked; the golden file is made from its documented layout",
}


def write_layouts() -> None:
    """The golden files of the formats without a package, written without the workbench's own writers."""
    table = known_vectors(N_BLOCKS + 1)
    torch.save(table, GOLDEN / "golden_response_avg_diff.pt")
    torch.save(table[:N_BLOCKS].clone(), GOLDEN / "bare_axis.pt")
    means = {"default_mean": table[1:].clone(), "role_mean": table[1:] - table[:N_BLOCKS]}
    torch.save({"axis": table[:N_BLOCKS].clone(), **means, "n_default": 1, "n_roles": 2}, GOLDEN / "axis.pt")
    torch.save({"vector": table[:N_BLOCKS].clone(), "type": "pos_3", "role": "pirate"}, GOLDEN / "role.pt")
    profile = GOLDEN / "saklas.safetensors"
    save_file({f"layer_{block}": table[block].clone() for block in (1, 2, 3)}, str(profile))
    facts = {
        "format_version": 1,
        "saklas_version": "5.3.0",
        "method": "profile",
        "tensor_sha256": sha256_file(profile),
    }
    write_json(profile.with_suffix(".json"), {**facts, "provenance": {}})
    np.savez(GOLDEN / "expected.npz", table=table.numpy())


def environment(folder: Path, peer: Peer) -> Path:
    """The Python of the package's environment, made if it is not there."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", *peer.requirements, peer.package]
        done = subprocess.run(install, capture_output=True, text=True)
        if done.returncode:
            shutil.rmtree(folder)
            raise RuntimeError((done.stderr.strip().splitlines() or ["pip failed"])[-1])
    return python


def version_in(python: Path, package: str) -> str:
    """The installed version of `package`."""
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.run(
        [str(python), "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def checked(name: str, peer: Peer, venvs: Path) -> dict[str, Any]:
    """One line of the record; what could not be installed or run says so."""
    print(f"{name} ...", file=sys.stderr)
    facts: dict[str, Any] = {"package": peer.package, "version": None}
    try:
        python = environment(venvs / name, peer)
        facts["version"] = version_in(python, peer.package)
        with tempfile.TemporaryDirectory() as folder:
            return {**facts, **peer.check(python, Path(folder))}
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        empty = dict.fromkeys(("reads_ours", "we_read_theirs", "max_abs_difference", "direction_index"))
        return {**facts, **empty, "failed": str(error)}


def inputs() -> dict[str, str]:
    """{file: sha256} of the golden files and of what runs in the packages' environments."""
    files = [Path(__file__).resolve(), *sorted(SIDES.glob("*.py"))]
    sides = {str(path.relative_to(ROOT)): sha256_file(path) for path in files}
    return {path.name: sha256_file(path) for path in sorted(GOLDEN.iterdir())} | sides


def evidence(venvs: Path | None = None) -> dict[str, Any]:
    """What docs/evidence/peer_formats.json holds; writes the golden files."""
    started = time.perf_counter()
    GOLDEN.mkdir(parents=True, exist_ok=True)
    write_layouts()
    with tempfile.TemporaryDirectory() as temporary:
        found = {name: checked(name, peer, venvs or Path(temporary)) for name, peer in PEERS.items()}
    without = {name: {"package": None, "note": note} for name, note in WITHOUT_PACKAGE.items()}
    header = made(COMMAND, SEED, time.perf_counter() - started, inputs())
    return {"_made": header, **found, **without}


def evidence_quick() -> bool:
    """Whether the golden files are those that the packages were checked with; prints what differs."""
    stated, here = read_json(RECORD)["_made"]["inputs"], inputs()
    changed = [path.name for path in GOLDEN.iterdir() if stated.get(path.name) != here[path.name]]
    print(f"golden files that differ from the record: {', '.join(changed) or 'none'}")
    return not changed


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--venvs", type=Path, help="folder that keeps the environments")
    venvs = parser.parse_args().venvs
    record = evidence(venvs)
    write_json(RECORD, record)
    found = {name: record[name] for name in PEERS}
    print(json.dumps(found, indent=2))
    return 0 if all(one["reads_ours"] and one["we_read_theirs"] is not False for one in found.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())

"""Everything that reads a file of somebody else's, each with a sound file to start from.

A Reader's `make(folder)` writes the sound file (or folder) and returns the files that get damaged; `read(folder)` reads it all,
as a user's command would. Reading what is sound must work, or damage would tell nothing.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from workbench.base.errors import WorkbenchError

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "personas" / "formats" / "golden"


@dataclass(frozen=True)
class Reader:
    """One way in. `make` returns the files to damage, below `folder`."""

    make: Callable[[Path], list[Path]]
    read: Callable[[Path], Any]


@contextlib.contextmanager
def _script(name: str) -> Iterator[Any]:
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        yield importlib.import_module(name)
    finally:
        sys.path.remove(str(ROOT / "scripts"))


@cache
def tiny() -> Any:
    """The tiny model whose files these are."""
    from tests.tiny import tiny_model

    return tiny_model()


# ------------------------------------------------------------------------------------------------------------- traits, replies


def _trait(folder: Path) -> list[Path]:
    shutil.copytree(ROOT / "workbench" / "personas" / "data" / "evil", folder / "mine")
    return sorted((folder / "mine").glob("*.yaml"))


def _read_trait(folder: Path) -> Any:
    from workbench.personas.traits import load_trait

    return load_trait(folder / "mine")


def _trait_json(folder: Path) -> list[Path]:
    source = ROOT / "tests" / "personas" / "formats_data"
    return [Path(shutil.copy(source / f"pedantic_{part}.json", folder / f"pedantic_{part}.json")) for part in ("extract", "eval")]


def _read_trait_json(folder: Path) -> Any:
    from workbench.personas.exchange import import_trait

    shutil.rmtree(folder / "out", ignore_errors=True)
    return import_trait(folder / "pedantic_extract.json", evaluation=folder / "pedantic_eval.json", out=folder / "out")


def _replies(folder: Path) -> list[Path]:
    import pandas

    from workbench.base.store import write_parquet
    from workbench.personas.traits import load_trait

    questions = load_trait("evil").questions_of("extraction", "verification")
    rows = [{"question": q.text, "response": f"{arm} words", "arm": arm} for q in questions for arm in ("positive", "negative")]
    return [write_parquet(folder / "replies.parquet", pandas.DataFrame(rows))]  # type: ignore[arg-type]


@cache
def _evil() -> Any:
    from workbench.personas.traits import load_trait

    return load_trait("evil")


def _read_replies(folder: Path) -> Any:
    from workbench.personas.given import read_responses

    return read_responses(folder / "replies.parquet", _evil())


# ------------------------------------------------------------------------------------------------------------- own artefacts


@cache
def _run(folder: Path) -> Path:
    from tests.toy_run import finished_run

    return finished_run(tiny(), folder)


def _artefact(name: str) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        import tempfile

        whole = _run(Path(tempfile.gettempdir()) / f"hostile-run-{_process()}")
        shutil.copytree(whole / name, folder / name)
        return sorted(file for file in (folder / name).rglob("*") if file.is_file())

    return make


def _process() -> int:
    import os

    return os.getpid()


def _read_vector(folder: Path) -> Any:
    from workbench.personas.vectors import PersonaVector

    vector = PersonaVector.load(folder / "vector")
    return vector.rows, vector.direction, repr(vector)


def _read_decomposition(folder: Path) -> Any:
    from workbench.decomposition.result import Decomposition

    parts = Decomposition.load(folder / "decomposition")
    return parts.table(5), repr(parts)


def _layered(folder: Path) -> list[Path]:
    from tests.personas.formats.made import layered

    layered().save(folder / "vectors")
    return sorted((folder / "vectors").iterdir())


def _read_layered(folder: Path) -> Any:
    from workbench.personas.formats import load_vectors

    return load_vectors(folder / "vectors")


def _manifest(folder: Path) -> list[Path]:
    from workbench.base.runs import RunFolder

    with RunFolder.open(folder / "run") as run:
        run.mark_done("vector", "key", files=["vector"], seconds=1.0, summary={"trait": "evil"})
    return [folder / "run" / "manifest.json"]


def _read_manifest(folder: Path) -> Any:
    from workbench.base.runs import RunFolder

    with RunFolder.open(folder / "run", create=False) as run:
        return run.info("vector"), run.is_done("vector", "key")


def _controls(folder: Path) -> list[Path]:
    file = next(iter(sorted((ROOT / "saes").rglob("causal_controls/*.json"))))
    return [Path(shutil.copy(file, folder / "controls.json"))]


def _read_controls(folder: Path) -> Any:
    from workbench.decomposition.causal.controls import ControlDistribution

    return ControlDistribution.load(folder / "controls.json").effects


def _capping(folder: Path) -> list[Path]:
    _capping_value().save(folder / "capping")
    return sorted((folder / "capping").iterdir())


def _capping_value() -> Any:
    import torch

    from workbench.axis.capping.caps import Cap, Capping
    from workbench.models.hookpoints import HookPoint

    caps = tuple(Cap(HookPoint(block), -0.5, "below", row=block) for block in range(2))
    return Capping("p25", {"name": "tiny"}, caps, torch.eye(6)[:2], None, {})


def _read_capping(folder: Path) -> Any:
    from workbench.axis.capping.caps import Capping

    return Capping.load(folder / "capping")


# ------------------------------------------------------------------------------------------------------------- foreign vectors


def _golden(*names: str) -> Callable[[Path], list[Path]]:
    return lambda folder: [Path(shutil.copy(GOLDEN / name, folder / name)) for name in names]


def _read_vectors(name: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        from workbench.personas.formats import describe_file, read_vectors

        describe_file(folder / name)
        return read_vectors(folder / name, model="owner/name", hook="blocks.1.hook_resid_post")

    return read


def _npy(folder: Path) -> list[Path]:
    import numpy

    numpy.save(folder / "vector.npy", numpy.linspace(0, 1, 6, dtype=numpy.float32))
    return [folder / "vector.npy"]


def _cappings(folder: Path) -> list[Path]:
    from workbench.axis.capping.published import write_cappings

    return [write_cappings([_capping_value()], folder / "capping.pt")]


def _read_cappings(folder: Path) -> Any:
    from workbench.axis.capping.published import read_cappings

    return read_cappings(folder / "capping.pt")


def _read_gguf_header(folder: Path) -> Any:
    from workbench.models.gguf_header import read_header

    return read_header((folder / "repeng.gguf").read_bytes(), folder / "repeng.gguf")


def _tensors(folder: Path) -> list[Path]:
    import torch

    from workbench.base.tensors import save_tensors

    return [save_tensors(folder / "any.safetensors", {"a": torch.ones(4, 6), "b": torch.zeros(3)}, {"about": "x"})]


def _read_tensors(folder: Path) -> Any:
    from workbench.base.tensors import load_metadata, load_tensors

    return load_tensors(folder / "any.safetensors"), load_metadata(folder / "any.safetensors")


# ------------------------------------------------------------------------------------------------------------- SAEs, indexes


def _sae(folder: Path) -> list[Path]:
    from tests.saes.planted import small_sae
    from workbench.saes.formats import saelens

    saelens.write(small_sae(), folder / "sae")
    return sorted(file for file in (folder / "sae").iterdir() if file.is_file())


def _read_sae(folder: Path) -> Any:
    from workbench.saes.registry import load_sae

    return load_sae(folder / "sae")


def _foreign_sae(layout: str) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        with _script("importers_check") as check:
            place, _ = check.layouts()[layout](folder / "theirs")
        (folder / "place").write_text(str(place.relative_to(folder)))
        return sorted(file for file in (folder / "theirs").rglob("*") if file.is_file())

    return make


def _read_foreign_sae(folder: Path) -> Any:
    from workbench.saes.formats import read_foreign

    return read_foreign(folder / (folder / "place").read_text())


@cache
def _index_made(folder: Path) -> Path:
    from tests.labeling.planted import planted_documents, planted_sae
    from workbench.labeling.contexts.building import build_index

    sae = planted_sae()
    options = {"context": 8, "batch_tokens": 256, "shard_tokens": 300, "n_tokens": 100_000}
    return build_index(sae, tiny(), planted_documents(tiny(), sae, n=30), folder, **options).folder  # type: ignore[arg-type]


def _index(folder: Path) -> list[Path]:
    import tempfile

    shutil.copytree(_index_made(Path(tempfile.gettempdir()) / f"hostile-index-{_process()}"), folder / "index")
    return sorted(file for file in (folder / "index").rglob("*") if file.is_file() and file.suffix != ".lock")


def _read_index(folder: Path) -> Any:
    from tests.labeling.planted import planted_sae
    from workbench.labeling.contexts.index import FeatureIndex

    index = FeatureIndex.open(folder / "index", model=tiny(), sae=planted_sae())
    return list(index.pieces()), index.stats(0), index.contexts(1), index.sources


# ------------------------------------------------------------------------------------------------------------- labels, chats


def _label(folder: Path) -> list[Path]:
    from tests.labeling.files.making import a_label, a_record
    from workbench.labeling.files.store import save_record

    return [save_record(a_record(a_label()), folder)]


def _read_label(folder: Path) -> Any:
    from tests.labeling.files.making import WHERE
    from workbench.labeling.files.store import load_label_file

    return load_label_file(folder / WHERE, taxonomies=lambda trait: ("insulting_language",))


def _neuronpedia(folder: Path) -> list[Path]:
    feature = {
        "modelId": "tiny", "layer": "1-sae", "index": "17", "frac_nonzero": 0.01,
        "explanations": [{"description": "insults", "typeName": "np", "explanationModelName": "m"}],
        "pos_str": ["a"], "pos_values": [1.0], "neg_str": ["b"], "neg_values": [-1.0],
        "activations": [{"tokens": ["you", " idiot"], "values": [0, 3.5], "maxValue": 3.5}],
    }  # fmt: skip
    row = {"modelId": "tiny", "layer": "1-sae", "index": "18", "description": "rudeness", "typeName": "np"}
    (folder / "feature.json").write_text(json.dumps(feature))
    with gzip.open(folder / "batch.jsonl.gz", "wt") as file:
        file.write("".join(json.dumps({**row, "index": str(n)}) + "\n" for n in range(18, 22)))
    return [folder / "feature.json", folder / "batch.jsonl.gz"]


def _read_neuronpedia(folder: Path) -> Any:
    from workbench.labeling.files.neuronpedia import read_features

    return read_features([folder / "feature.json", folder / "batch.jsonl.gz"])


def _chats(folder: Path) -> list[Path]:
    turns = [{"role": role, "content": "Hello"} for role in ("system", "user", "assistant")]
    lines = [{"messages": turns}, {"prompt": "Hello", "response": "Hi"}, {"conversation": turns, "model": "m", "turns": 1}]
    (folder / "chats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "one.json").write_text(json.dumps(lines[2]))
    return [folder / "chats.jsonl", folder / "one.json"]


def _read_chats(folder: Path) -> Any:
    from workbench.axis.drift.conversation import from_messages
    from workbench.steering.monitor.chats import read_chats
    from workbench.steering.screen.files import DataFile

    lines = list(DataFile.open(folder / "chats.jsonl").lines())
    (folder / "alone").mkdir(exist_ok=True)
    shutil.copy(folder / "one.json", folder / "alone" / "one.json")
    return lines, [from_messages(tiny(), chat["messages"], name="x") for chat in read_chats(folder / "alone")]


def _roles(folder: Path) -> list[Path]:
    from workbench.axis.exchange import write_questions, write_roles
    from workbench.axis.questions import question_bank
    from workbench.axis.roles import load_roles

    questions = question_bank()[:8]
    files = write_roles(load_roles(["poet"]), folder / "roles", questions)
    return [*files, write_questions(questions, folder / "questions.jsonl")]


def _read_roles(folder: Path) -> Any:
    from workbench.axis.exchange import read_questions, read_roles

    return read_roles(folder / "roles"), read_questions(folder / "questions.jsonl")


def _config(folder: Path) -> list[Path]:
    tables = '[report]\nn_features = 12\n\n[sae.train]\naddress = "auto"\n'
    (folder / "workbench.toml").write_text(f'model = "tiny"\nseed = 3\nstrict = true\n\n{tables}', encoding="utf-8")
    return [folder / "workbench.toml"]


def _read_config(folder: Path) -> Any:
    import typer.main

    from workbench.base.settings import read_config
    from workbench.cli.app import app
    from workbench.cli.defaults import flags_in

    return read_config(folder / "workbench.toml"), list(flags_in(folder / "workbench.toml", typer.main.get_command(app)))


READERS: dict[str, Reader] = {
    "trait folder": Reader(_trait, _read_trait),
    "persona_vectors trait": Reader(_trait_json, _read_trait_json),
    "replies (Parquet)": Reader(_replies, _read_replies),
    "persona vector": Reader(_artefact("vector"), _read_vector),
    "decomposition": Reader(_artefact("decomposition"), _read_decomposition),
    "vectors of blocks": Reader(_layered, _read_layered),
    "run manifest": Reader(_manifest, _read_manifest),
    "causal controls": Reader(_controls, _read_controls),
    "capping": Reader(_capping, _read_capping),
    "persona_vectors .pt": Reader(_golden("golden_response_avg_diff.pt"), _read_vectors("golden_response_avg_diff.pt")),
    "assistant-axis .pt": Reader(_golden("axis.pt"), _read_vectors("axis.pt")),
    "assistant-axis role .pt": Reader(_golden("role.pt"), _read_vectors("role.pt")),
    "assistant-axis capping .pt": Reader(_cappings, _read_cappings),
    "steering-vectors .pt": Reader(_golden("steering_vectors.pt"), _read_vectors("steering_vectors.pt")),
    "control vector .gguf": Reader(_golden("repeng.gguf"), _read_vectors("repeng.gguf")),
    "GGUF header": Reader(_golden("repeng.gguf"), _read_gguf_header),
    "saklas": Reader(_golden("saklas.safetensors", "saklas.json"), _read_vectors("saklas.safetensors")),
    "vector .npy": Reader(_npy, _read_vectors("vector.npy")),
    "safetensors": Reader(_tensors, _read_tensors),
    "SAE folder": Reader(_sae, _read_sae),
    "dictionary_learning SAE": Reader(_foreign_sae("dictionary_learning JumpReluAutoEncoder"), _read_foreign_sae),
    "sparsify SAE": Reader(_foreign_sae("sparsify"), _read_foreign_sae),
    "Gemma Scope .npz": Reader(_foreign_sae("gemma_scope"), _read_foreign_sae),
    "Gemma Scope 2": Reader(_foreign_sae("gemma_scope 2"), _read_foreign_sae),
    "feature index": Reader(_index, _read_index),
    "label file": Reader(_label, _read_label),
    "Neuronpedia": Reader(_neuronpedia, _read_neuronpedia),
    "chats and transcripts": Reader(_chats, _read_chats),
    "roles and questions": Reader(_roles, _read_roles),
    "configuration": Reader(_config, _read_config),
}


def outcome(reader: Reader, folder: Path) -> str:
    """"read", "refused", or what was raised that is neither."""
    try:
        reader.read(folder)
    except WorkbenchError as error:
        return "refused" if error.found and error.expected and error.remedy else f"an error without its three parts: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:300]
    return "read"

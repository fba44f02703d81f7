"""A folder that holds no whole index is refused in words, whatever is wrong with it; a finished one does not shrink."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.labeling.planted import planted_documents, planted_sae
from tests.tiny import tiny_model
from workbench.base.errors import WorkbenchError
from workbench.base.store import sha256_file
from workbench.labeling.contexts.building import build_index
from workbench.labeling.contexts.index import FeatureIndex
from workbench.labeling.contexts.shards import shard_folder

SETTINGS = {"context": 8, "batch_tokens": 256, "shard_tokens": 300, "n_tokens": 100_000}


@pytest.fixture(scope="module")
def world():
    model, sae = tiny_model(), planted_sae()
    return model, sae, planted_documents(model, sae, n=60)


@pytest.fixture(scope="module")
def made(world, tmp_path_factory):
    model, sae, documents = world
    return build_index(sae, model, documents, tmp_path_factory.mktemp("index"), **SETTINGS)


@pytest.fixture
def folder(made, tmp_path) -> Path:
    return shutil.copytree(made.folder, tmp_path / "index")


def rewritten(folder: Path, name: str, change) -> None:
    """Change the document and the arrays of an artefact, with hashes that fit."""
    path, tensors = folder / f"{name}.json", folder / f"{name}.safetensors"
    document, arrays = json.loads(path.read_text()), load_file(tensors)
    change(document, arrays)
    save_file({key: np.ascontiguousarray(value) for key, value in arrays.items()}, tensors)
    path.write_text(json.dumps({**document, "tensors_sha256": sha256_file(tensors)}))


def put(path: str, value):
    """A change of the document: the field at a/b/c becomes `value`."""

    def change(document, arrays):
        *parents, last = path.split("/")
        for parent in parents:
            document = document[parent]
        document[last] = value

    return change


def array(name: str, of):
    """A change of one array: `of` the old one, or nothing when that is None."""

    def change(document, arrays):
        arrays.update({name: of(arrays[name])}) if of else arrays.pop(name)

    return change


def filled(place: int, value: float):
    def of(old):
        old.ravel()[place] = value
        return old

    return of


@pytest.mark.parametrize("change", [
    put("files", []), put("files", {}), put("sae", None), put("sae/d_sae", 10**6), put("sae/d_sae", "16"), put("sae/d_sae", True),
    put("model", {}), put("sizes", {"context": 0, "n_top": 1, "per_bin": 1}), put("coactivation", {}), put("shards", [{}]),
    put("shards", [3]), put("sources", ["owt", "wikipedia", "more"]), put("sources", [1]), put("vocab_size", -5),
    put("schema", "2"), put("schema", None), array("pools_tokens", None), array("pools_fired", lambda a: a[:, :-1]),
    array("largest", lambda a: a.T),
    array("top_document", lambda a: a[1:]), array("top_group", lambda a: a[::-1]), array("top_token", filled(0, 10**9)),
    array("spread_source", filled(0, 7)), array("partners", filled(0, 16)), array("token_keys", lambda a: a.astype(np.float32)),
    array("histogram_keys", filled(0, -1)), array("first_fired", lambda a: a[:, None]),
])  # fmt: skip
def test_a_damaged_index_is_refused(folder, change):
    rewritten(folder, "feature_index", change)
    with pytest.raises(WorkbenchError):
        FeatureIndex.open(folder)


@pytest.mark.parametrize("change", [
    put("documents", None), put("documents", [["x"]]), put("documents", [["x", "owt", 3]]), put("n_first", "0"), put("given", 1),
    array("ids", None), array("ids", filled(0, 10**6)), array("starts", filled(1, 10**4)), array("code_starts", filled(3, 10**6)),
    array("features", filled(0, 16)), array("features", filled(0, -1)), array("roles", filled(0, 99)),
    array("counted", filled(0, 7)),
    array("values", filled(0, np.nan)), array("values", lambda a: a[1:]), array("roles", lambda a: a[1:]),
    array("first_features", lambda a: np.array([16], np.int32)), array("ids", lambda a: a.astype(np.int64)),
])  # fmt: skip
def test_a_damaged_piece_is_refused(folder, change):
    piece = folder / "shards" / "00000"
    rewritten(piece, "feature_codes", change)

    def vouched(document, arrays):
        document["shards"][0]["sha256"] = sha256_file(piece / "feature_codes.json")

    rewritten(folder, "feature_index", vouched)
    with pytest.raises(WorkbenchError, match="piece"):
        list(FeatureIndex.open(folder).pieces())


def test_words_and_tokenizer_that_are_none_are_refused(folder):
    for name in ("words.json", "tokenizer.json"):
        (folder / name).write_text("[]")
        rewritten(folder, "feature_index", put(f"files/{name}", sha256_file(folder / name)))
    opened = FeatureIndex.open(folder)
    for read in (lambda: opened.background, lambda: opened.tokenizer):
        with pytest.raises(WorkbenchError):
            read()


def test_a_finished_index_does_not_shrink(world, folder):
    model, sae, documents = world
    first = len(json.loads((folder / "shards" / "00000" / "feature_codes.json").read_text())["documents"])
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(WorkbenchError, match="more pieces than the 1"):
        build_index(sae, model, documents[:first], folder, **SETTINGS)
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_other_activations_or_roles_of_the_same_texts_are_refused(world, folder, made):
    model, sae, documents = world
    rows, roles = documents[7].activations, (4,) * len(documents[7].ids)
    for other in ({"activations": rows * 0.5}, {"activations": None}, {"roles": roles}):
        with pytest.raises(WorkbenchError, match="other documents"):
            build_index(sae, model, [*documents[:7], replace(documents[7], **other), *documents[8:]], folder, **SETTINGS)
    for piece in (folder / "shards").iterdir():  # pieces of before do not say what their activations were
        rewritten(piece, "feature_codes", lambda document, arrays: document.pop("given"))
    again = build_index(sae, model, [replace(documents[0], activations=None), *documents[1:]], folder, **SETTINGS)
    assert again.stats(0) == made.stats(0)


def test_a_piece_that_lost_its_arrays_is_made_again(world, folder, made):
    model, sae, documents = world
    (folder / "feature_index.json").unlink()  # the index was not finished
    (shard_folder(folder, 1) / "feature_codes.safetensors").unlink()
    build_index(sae, model, documents, folder, **SETTINGS)
    for file in (path for path in made.folder.rglob("*") if path.is_file()):
        if file.suffix == ".safetensors" or "shards" in file.parts:
            assert (folder / file.relative_to(made.folder)).read_bytes() == file.read_bytes()

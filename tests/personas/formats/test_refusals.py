"""What is refused, with the reason: files that would run code, damaged and outsized ones, and what is missing."""

from __future__ import annotations

import io
import os
import pickle
import random
import struct
import zipfile

import numpy
import pytest
import torch
from safetensors.torch import save_file

from tests.personas.formats.made import D_MODEL, MODEL, N_BLOCKS, layered, matrix, saved
from workbench.base.errors import WorkbenchError
from workbench.models.hookpoints import HookPoint
from workbench.models.identity import identify
from workbench.personas.formats import (
    FORMATS,
    LayeredVectors,
    describe_file,
    files,
    read_vectors,
    write_vectors,
)


class Marker:
    """Creates a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def refused(path, match: str, format: str = "auto", **more) -> WorkbenchError:
    with pytest.raises(WorkbenchError, match=match) as caught:
        read_vectors(path, format, **{"model": MODEL, **more})
    assert caught.value.expected and caught.value.remedy
    return caught.value


@pytest.mark.parametrize(
    "format", ["auto", "persona-vectors", "assistant-axis", "steering-vectors", "tensor"]
)
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path, format):
    for name, value in {
        "bare.pt": Marker(tmp_path / "ran"),
        "dict.pt": {"axis": matrix(4), "x": Marker(tmp_path / "ran")},
    }.items():
        refused(saved(tmp_path / name, value), "needs more than tensors", format)
    assert not (tmp_path / "ran").exists()


def test_code_inside_a_steering_vector_does_not_run_either(tmp_path):
    refused(
        saved(tmp_path / "v.pt", {"layer_activations": {1: Marker(tmp_path / "ran")}}),
        "needs more than tensors",
    )
    assert not (tmp_path / "ran").exists()


def test_a_bare_pickle_is_refused_unread(tmp_path):
    (tmp_path / "v.pt").write_bytes(pickle.dumps(Marker(tmp_path / "ran")))
    refused(tmp_path / "v.pt", "is a bare pickle")
    torch.save(matrix(4), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    refused(tmp_path / "old.pt", "is a bare pickle")
    assert not (tmp_path / "ran").exists()


def test_an_npy_file_of_objects_is_refused_unread(tmp_path):
    numpy.save(tmp_path / "v.npy", numpy.array([Marker(tmp_path / "ran")], dtype=object), allow_pickle=True)
    refused(tmp_path / "v.npy", "damaged")
    assert not (tmp_path / "ran").exists()


def test_an_npy_header_that_claims_more_than_the_file_is_refused(tmp_path):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (4000000000000,), }"
    for name, text in {"v.npy": header, "open.npy": header[:-3]}.items():
        text = text.ljust(117) + b"\n"
        (tmp_path / name).write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(16))
        refused(tmp_path / name, "damaged")


BAD_TENSORS = {
    "whole numbers": (torch.ones(5, D_MODEL, dtype=torch.int64), "type int64"),
    "complex numbers": (torch.ones(5, D_MODEL, dtype=torch.complex64), "type complex64"),
    "NaN": (torch.full((5, D_MODEL), float("nan")), "NaN or infinity"),
    "infinity in float32": (torch.full((5, D_MODEL), 1e300, dtype=torch.float64), "NaN or infinity"),
    "three dimensions": (torch.ones(2, 3, 4), "shape"),
    "no rows": (torch.ones(0, D_MODEL), "shape"),
    "zeros": (torch.zeros(5, D_MODEL), "every row is zero"),
    "too many rows": (torch.ones(1, 1).expand(2000, D_MODEL), "at most 1024 rows"),
    "rows too wide": (torch.ones(1, 1).expand(5, 1 << 40), "at most"),
    "sparse": (torch.eye(5).to_sparse(), "sparse"),
    "a list": ([1.0, 2.0], "list|no known"),
}


@pytest.mark.parametrize("format", ["persona-vectors", "assistant-axis"])
@pytest.mark.parametrize("name", BAD_TENSORS)
def test_tensors_that_are_no_vectors_are_refused(tmp_path, format, name):
    value, match = BAD_TENSORS[name]
    refused(saved(tmp_path / "v.pt", value), match, format, model="owner/name")


@pytest.mark.parametrize(
    ("layers", "match"),
    [
        ({-1: matrix(1)[0]}, "the layer -1"),
        ({"1": matrix(1)[0]}, "the layer '1'"),
        ({True: matrix(1)[0]}, "the layer True"),
        ({5000: matrix(1)[0]}, "the layer 5000"),
        ({1: matrix(2)}, "layer 1 has the shape"),
        ({1: "text"}, "layer 1 is a str"),
        ({1: matrix(1)[0], 2: matrix(1, 5)[0]}, "widths"),
        ({}, "widths"),
        ({9: matrix(1)[0]}, "has 4 blocks"),
    ],
)
def test_layers_that_are_none_are_refused(tmp_path, layers, match):
    refused(saved(tmp_path / "v.pt", {"layer_activations": layers}), match)


def test_an_unknown_layer_type_is_refused(tmp_path):
    value = {"layer_activations": {1: matrix(1)[0]}, "layer_type": "input_layernorm"}
    refused(saved(tmp_path / "v.pt", value), "layer type")


def test_a_model_or_a_place_that_is_missing_is_asked_for(tmp_path):
    table, row = saved(tmp_path / "a_response_avg_diff.pt", matrix(5)), saved(tmp_path / "v.pt", matrix(1)[0])
    assert "--model" in refused(table, "of which model", model=None).remedy
    error = refused(row, "where its vector lies")
    assert "--hook" in error.remedy and "--layer" in error.remedy


def test_a_matrix_that_two_formats_could_have_written_is_not_guessed(tmp_path):
    path = saved(tmp_path / "v.pt", matrix(5))
    assert "--format" in refused(path, "several formats", model="owner/name").remedy
    assert read_vectors(path, model={**MODEL, "n_blocks": 4}).source["format"] == "persona-vectors"
    assert read_vectors(path, model={**MODEL, "n_blocks": 5}).source["format"] == "assistant-axis"


def test_vectors_of_another_model_are_refused(tmp_path):
    path = saved(tmp_path / "v.pt", matrix(5))
    refused(path, "6 wide, tiny is 7 wide", model={**MODEL, "d_model": 7})
    refused(path, "of a model of 5 blocks; tiny has 4", "assistant-axis")
    refused(path, "of a model of 4 blocks; tiny has 5", "persona-vectors", model={**MODEL, "n_blocks": 5})


def test_a_hook_that_the_file_lacks_is_refused(tmp_path):
    path = saved(tmp_path / "v.pt", matrix(N_BLOCKS))
    refused(path, "blocks.3.hook_resid_post", hook="blocks.9.hook_resid_post")


def test_an_unknown_format_or_model_lists_the_nearest(tmp_path):
    path = saved(tmp_path / "v.pt", matrix(5))
    refused(path, "Did you mean 'persona-vectors'", "persona-vector")
    refused(path, "smollm2-135m-instruct", model="smollm2-135m-instrct")
    with pytest.raises(WorkbenchError, match="Did you mean 'gguf'"):
        write_vectors(layered(), tmp_path / "v.gguf", "ggufs")


def test_a_file_of_another_kind_than_the_format_is_refused(tmp_path):
    refused(saved(tmp_path / "v.pt", matrix(5)), "is a PyTorch file", "gguf")
    save_file({"weight": matrix(2)}, str(tmp_path / "w.safetensors"))
    refused(tmp_path / "w.safetensors", "no known format")
    refused(tmp_path / "w.safetensors", "holds the tensors weight", "saklas")
    (tmp_path / "t.pt").write_text("hello, this is text")
    refused(tmp_path / "t.pt", "no known kind of file")
    (tmp_path / "empty.pt").write_bytes(b"")
    refused(tmp_path / "empty.pt", "no known kind of file")
    refused(tmp_path / "none.pt", "no such file")
    refused(tmp_path, "folder")


def test_a_zip_that_unpacks_to_more_than_the_limit_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_BYTES", 1 << 16)
    with zipfile.ZipFile(tmp_path / "v.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(1 << 20))
    assert (tmp_path / "v.pt").stat().st_size < 1 << 16
    refused(tmp_path / "v.pt", "GiB")
    (tmp_path / "large.gguf").write_bytes(b"GGUF" + bytes(1 << 17))
    refused(tmp_path / "large.gguf", "GiB")


def control_vector(tensors, keys=(("general.architecture", "controlvector"),), version=3, kind=0) -> bytes:
    """A GGUF file written by hand from its specification."""

    def text(value):
        return struct.pack("<Q", len(value)) + value.encode()

    out = io.BytesIO()
    out.write(b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys)))
    for name, value in keys:
        out.write(text(name) + struct.pack("<I", 8) + text(value))
    place = 0
    for name, shape in tensors:
        out.write(text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, place))
        place += 32
    out.write(bytes(-out.tell() % 32))
    out.write(struct.pack("<8f", *range(1, 9)) * len(tensors))
    return out.getvalue()


def test_a_control_vector_written_by_hand_is_read(tmp_path):
    (tmp_path / "v.gguf").write_bytes(
        control_vector([("direction.2", (8,)), ("direction.0", (8,)), ("other", (8,))])
    )
    vectors = read_vectors(tmp_path / "v.gguf", model="owner/name")
    assert vectors.hooks == (HookPoint(0), HookPoint(2))
    assert vectors.at(HookPoint(2)).tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert "not read: other" in vectors.notes and "llama.cpp refuses files with direction.0" in vectors.notes


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (control_vector([("direction.1", (8,))], keys=[("general.architecture", "llama")]), "architecture 'llama'"),
        (control_vector([("direction.1", (8,))], version=1), "version 1"),
        (control_vector([("direction.1", (8,))], version=3 << 24), "version"),
        (control_vector([("direction.1", (8,))], kind=2), "ggml type 2"),
        (control_vector([("direction.1", (2, 4))]), "has the shape"),
        (control_vector([("direction.1", (1 << 50,))]), "ends within direction.1"),
        (control_vector([("direction.1", (8,)), ("direction.1", (8,))]), "twice"),
        (control_vector([("direction.1", (8,)), ("direction.2", (4,))]), "widths"),
        (control_vector([]), "widths"),
        (control_vector([("direction.1", (8,))])[:-4], "ends within direction.1"),
        (control_vector([("direction.1", (8,))])[:60], "no complete GGUF"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), "no complete GGUF"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"a" + struct.pack("<IIQ", 9, 0, 1 << 60), "complete"),
    ],
)  # fmt: skip
def test_damaged_and_foreign_gguf_files_are_refused(tmp_path, data, match):
    (tmp_path / "v.gguf").write_bytes(data)
    refused(tmp_path / "v.gguf", match, model="owner/name")


@pytest.mark.parametrize("name", [name for name, one in FORMATS.items() if one.write])
def test_a_damaged_file_is_read_or_refused_but_never_crashes(tmp_path, name):
    """Cut short anywhere, or with bytes changed at random: an answer or a WorkbenchError, nothing else."""
    write_vectors(layered(hook=HookPoint(2)), tmp_path / "whole", name)
    data, draw = (tmp_path / "whole").read_bytes(), random.Random(0)
    refusals = 0
    for trial in range(120):
        broken = bytearray(data)
        if trial % 2:
            broken = broken[: draw.randrange(len(broken))]
        else:
            for _ in range(3):
                broken[draw.randrange(min(len(broken), 400))] = draw.randrange(256)
        (tmp_path / "broken").write_bytes(broken)
        try:
            read_vectors(tmp_path / "broken", name, model=MODEL, hook=HookPoint(2))
        except WorkbenchError:
            refusals += 1
    assert refusals >= 60


def test_vectors_that_are_none_cannot_be_made():
    for vectors in ({}, {HookPoint(0): matrix(2)}, {HookPoint(0): torch.full((3,), float("nan"))}):
        with pytest.raises(WorkbenchError):
            LayeredVectors(vectors, "evil", MODEL)
    with pytest.raises(WorkbenchError, match="hook point"):
        layered(HookPoint(1), hook=HookPoint(2))


def test_a_changed_artefact_is_refused(tmp_path):
    layered().save(tmp_path)
    file = tmp_path / "layered_vectors.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(WorkbenchError, match="does not match the hash"):
        LayeredVectors.load(tmp_path)


def test_what_is_not_known_of_a_distant_model_is_said(tmp_path):
    vectors = read_vectors(saved(tmp_path / "a_response_avg_diff.pt", matrix(5)), model="owner/name")
    assert vectors.model["weights_hash"] is None and vectors.n_blocks == 4
    assert "not on this machine" in vectors.notes[-1]


def test_a_model_is_identified_without_loading_it(tmp_path, tiny_model):
    tiny_model.hf.save_pretrained(tmp_path / "tiny")
    facts = identify(str(tmp_path / "tiny"))
    assert (facts["n_blocks"], facts["d_model"], facts["model_type"]) == (3, 32, "llama")
    from workbench.base.store import sha256_file

    assert facts["weights_hash"] == sha256_file(tmp_path / "tiny" / "model.safetensors")
    assert (
        identify(tiny_model)["n_blocks"] == 3
        and identify(tiny_model)["weights_hash"] == tiny_model.weights_hash
    )


def test_describing_needs_no_model_but_the_same_trust(tmp_path):
    with pytest.raises(WorkbenchError, match="needs more than tensors"):
        describe_file(saved(tmp_path / "v.pt", Marker(tmp_path / "ran")))
    assert not (tmp_path / "ran").exists()

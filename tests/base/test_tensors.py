from __future__ import annotations

import os

import pytest
import torch

from workbench.base import tensors
from workbench.base.errors import WorkbenchError
from workbench.base.store import read_json, write_json


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_tensors_and_metadata_read_back(tmp_path, dtype):
    base = torch.arange(6).reshape(2, 3).to(dtype)
    saved = {"a": base, "view": base.T, "same": base, "empty": base[:0], "scalar": base[0, 0]}
    tensors.save_tensors(tmp_path / "t.safetensors", saved, {"k": "v"})
    loaded = tensors.load_tensors(tmp_path / "t.safetensors")
    assert all(torch.equal(loaded[name], saved[name]) for name in saved)
    assert tensors.load_metadata(tmp_path / "t.safetensors") == {"k": "v"}


def test_a_large_file_is_the_same_and_a_small_one_has_no_second_beside_it(tmp_path, monkeypatch):
    made, plain = {"a": torch.arange(6.0).reshape(2, 3)}, os.replace
    seen: list[list[str]] = []

    def replace(source, target):
        seen.append(sorted(path.suffix for path in tmp_path.iterdir() if path.suffix != ".safetensors"))
        plain(source, target)

    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(tensors, "save_file", lambda *_, **__: pytest.fail("safetensors writes a small file"))
    tensors.save_tensors(tmp_path / "small.safetensors", made, {"k": "v"})
    assert seen == [[".part"]]
    monkeypatch.undo()
    monkeypatch.setattr(tensors, "AT_ONCE", 0)
    tensors.save_tensors(tmp_path / "large.safetensors", made, {"k": "v"})
    assert (tmp_path / "large.safetensors").read_bytes() == (tmp_path / "small.safetensors").read_bytes()


def test_a_truncated_file_and_a_missing_one_are_refused(tmp_path):
    path = tensors.save_tensors(tmp_path / "t.safetensors", {"a": torch.ones(100)})
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(WorkbenchError, match="not a readable safetensors file"):
        tensors.load_tensors(path)
    with pytest.raises(WorkbenchError, match="no such file"):
        tensors.load_tensors(tmp_path / "none.safetensors")


def test_the_tensor_hash_sees_bytes_shape_type_and_names_but_not_the_layout():
    a = torch.arange(6.0).reshape(2, 3)
    assert tensors.tensor_hash(a) == tensors.tensor_hash(a.T.contiguous().T)
    different = [a, a.T, a.reshape(6), a.double(), a.bfloat16(), a + 1]
    assert len({tensors.tensor_hash(t) for t in different}) == len(different)
    assert tensors.tensor_hash({"x": a, "y": a}) == tensors.tensor_hash({"y": a, "x": a}) != tensors.tensor_hash({"x": a})


def test_an_artefact_reads_back_with_kind_and_schema(tmp_path):
    tensors.save_artifact(tmp_path, "thing", 2, {"name": "n", "kind": "ignored"}, {"x": torch.ones(2)})
    document, loaded = tensors.load_artifact(tmp_path, "thing", 2)
    assert (document["kind"], document["schema"], document["name"]) == ("thing", 2, "n")
    assert torch.equal(loaded["x"], torch.ones(2))


def test_the_tensors_of_another_save_are_refused(tmp_path):
    tensors.save_artifact(tmp_path, "thing", 1, {}, {"x": torch.ones(2)})
    tensors.save_tensors(tmp_path / "thing.safetensors", {"x": torch.zeros(2)})
    with pytest.raises(WorkbenchError, match="does not match the hash"):
        tensors.load_artifact(tmp_path, "thing", 1)


def test_a_save_that_stops_before_the_document_keeps_no_half_artefact(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tensors, "write_json", stop)
    with pytest.raises(KeyboardInterrupt):
        tensors.save_artifact(tmp_path, "thing", 1, {}, {"x": torch.ones(2)})
    with pytest.raises(WorkbenchError, match="no such file"):
        tensors.load_artifact(tmp_path, "thing", 1)


def test_another_kind_and_a_newer_schema_are_refused(tmp_path):
    path = tensors.save_artifact(tmp_path, "thing", 3, {}, {"x": torch.ones(2)})
    with pytest.raises(WorkbenchError, match=r"schema 3\. Expected: schema 2 or older\. Install a newer"):
        tensors.load_artifact(tmp_path, "thing", 2)
    write_json(path, {**read_json(path), "kind": "other"})
    with pytest.raises(WorkbenchError, match="does not describe a thing"):
        tensors.load_artifact(tmp_path, "thing", 3)


def test_an_old_schema_is_lifted_step_by_step(tmp_path):
    tensors.register_migration("lifted", 1, lambda d, t: ({**d, "a": 1}, t))
    tensors.register_migration("lifted", 2, lambda d, t: ({**d, "a": d["a"] + 1}, {"y": t["x"]}))
    tensors.save_artifact(tmp_path, "lifted", 1, {}, {"x": torch.ones(2)})
    document, loaded = tensors.load_artifact(tmp_path, "lifted", 3)
    assert (document["schema"], document["a"], list(loaded)) == (3, 2, ["y"])


def test_an_old_schema_that_nothing_lifts_is_refused(tmp_path):
    tensors.save_artifact(tmp_path, "stuck", 1, {}, {"x": torch.ones(2)})
    with pytest.raises(WorkbenchError, match="nothing lifts it from 1"):
        tensors.load_artifact(tmp_path, "stuck", 2)

"""Every format: where each row lands, what comes back, and what a format cannot hold."""

from __future__ import annotations

import numpy
import pytest
import torch
from safetensors.torch import save_file

from tests.personas.formats.made import D_MODEL, MODEL, N_BLOCKS, layered, matrix, saved
from workbench.base.errors import WorkbenchError
from workbench.base.store import sha256_file, write_json
from workbench.models.hookpoints import HookPoint
from workbench.personas.formats import (
    FORMATS,
    LayeredVectors,
    describe_file,
    load_vectors,
    read_vectors,
    write_vectors,
)
from workbench.personas.vectors import PersonaVector

POSTS = tuple(HookPoint(block) for block in range(N_BLOCKS))
EMBEDDINGS = HookPoint(0, "hook_resid_pre")


def test_persona_vectors_rows_follow_hidden_states_and_the_last_stays_apart(tmp_path):
    table = matrix(N_BLOCKS + 1)
    vectors = read_vectors(saved(tmp_path / "evil_response_avg_diff.pt", table), model=MODEL)
    assert set(vectors.hooks) == {EMBEDDINGS, *POSTS[:-1]}
    assert torch.equal(vectors.at(EMBEDDINGS), table[0])
    for block in range(N_BLOCKS - 1):
        assert torch.equal(vectors.at(HookPoint(block)), table[block + 1])
    assert torch.equal(vectors.extras["ln_final"], table[-1])
    assert POSTS[-1] not in vectors.vectors
    assert vectors.trait == "evil" and vectors.source["layout"] == "response_avg"
    assert vectors.source["sha256"] == sha256_file(tmp_path / "evil_response_avg_diff.pt")


def test_persona_vectors_come_back_as_they_were(tmp_path):
    first = saved(tmp_path / "evil_prompt_last_diff.pt", matrix(N_BLOCKS + 1))
    assert write_vectors(read_vectors(first, model=MODEL), tmp_path / "again.pt", "persona-vectors") == []
    assert torch.equal(torch.load(tmp_path / "again.pt", weights_only=True), matrix(N_BLOCKS + 1))


def test_persona_vectors_of_half_precision_are_read_as_float32(tmp_path):
    vectors = read_vectors(
        saved(tmp_path / "a_response_avg_diff.pt", matrix(3).bfloat16()), model="owner/name"
    )
    assert {v.dtype for v in vectors.vectors.values()} == {torch.float32} and vectors.n_blocks == 2


@pytest.mark.parametrize(
    ("layout", "value"),
    [
        ("bare", matrix(N_BLOCKS)),
        ("axis", {"axis": matrix(N_BLOCKS), "metadata": {"note": "x"}}),
        (
            "axis",
            {
                "axis": matrix(N_BLOCKS),
                "default_mean": matrix(N_BLOCKS, seed=1),
                "role_mean": matrix(N_BLOCKS, seed=2),
            },
        ),
        ("role", {"vector": matrix(N_BLOCKS), "type": "pos_3", "role": "pirate"}),
    ],
    ids=["bare", "axis", "means", "role"],
)
def test_row_b_of_an_assistant_axis_is_the_output_of_block_b(tmp_path, layout, value):
    vectors = read_vectors(saved(tmp_path / "some.pt", value), model=MODEL)
    assert vectors.source["format"] == "assistant-axis" and vectors.source["layout"] == layout
    assert vectors.hooks == POSTS
    for block in range(N_BLOCKS):
        assert torch.equal(vectors.at(HookPoint(block)), matrix(N_BLOCKS)[block])
    assert vectors.trait == ("pirate" if layout == "role" else "some")
    write_vectors(vectors, tmp_path / "again.pt", "assistant-axis")
    again = torch.load(tmp_path / "again.pt", weights_only=True)
    assert isinstance(again, dict) == (layout != "bare")
    table = again if layout == "bare" else again["vector" if layout == "role" else "axis"]
    assert torch.equal(table, matrix(N_BLOCKS))
    keys = set(value) if isinstance(value, dict) else set()
    assert set(vectors.extras) == {"default_mean", "role_mean"} & keys
    for name, mean in vectors.extras.items():
        assert torch.equal(again[name], mean)


def test_an_exported_axis_carries_its_model_and_needs_none(tmp_path):
    write_vectors(layered(hook=POSTS[2]), tmp_path / "axis.pt", "assistant-axis")
    vectors = read_vectors(tmp_path / "axis.pt")
    assert (vectors.trait, vectors.model["name"], vectors.model["weights_hash"]) == (
        "evil",
        "tiny",
        "ab" * 32,
    )
    assert vectors.hook == POSTS[2]


def test_a_control_vector_keeps_blocks_1_and_above_at_their_own_numbers(tmp_path):
    from gguf import GGUFReader

    notes = write_vectors(layered(), tmp_path / "evil.gguf", "gguf")
    assert "blocks.0.hook_resid_post" in notes[0]
    reader = GGUFReader(tmp_path / "evil.gguf")
    found = {tensor.name: torch.from_numpy(numpy.array(tensor.data)) for tensor in reader.tensors}
    assert set(found) == {"direction.1", "direction.2", "direction.3"}
    assert torch.equal(found["direction.2"], layered().at(HookPoint(2)))
    contents = {
        name: reader.fields[name].contents() for name in reader.fields if "." in name and name[0] != "G"
    }
    assert contents["general.architecture"] == "controlvector"
    assert contents["controlvector.model_hint"] == "llama" and contents["controlvector.layer_count"] == 3
    vectors = read_vectors(tmp_path / "evil.gguf")
    assert vectors.hooks == POSTS[1:] and vectors.model["name"] == "tiny" and vectors.trait == "evil"
    assert all(torch.equal(vectors.at(hook), layered().at(hook)) for hook in POSTS[1:])


def test_the_hint_of_a_control_vector_is_the_models_type(tmp_path):
    vectors = layered(model={"model_type": None, "architecture": "Qwen2ForCausalLM"})
    write_vectors(vectors, tmp_path / "v.gguf", "gguf")
    assert "made for the model type 'qwen2'" in read_vectors(tmp_path / "v.gguf").notes


@pytest.mark.parametrize(
    ("layer_type", "site"), [("decoder_block", "hook_resid_post"), ("mlp", "hook_mlp_out")]
)
def test_steering_vectors_are_numbered_by_block_and_keep_their_site(tmp_path, layer_type, site):
    activations = {3: matrix(1)[0], 1: matrix(1, seed=1)}
    vectors = read_vectors(
        saved(tmp_path / "v.pt", {"layer_activations": activations, "layer_type": layer_type}), model=MODEL
    )
    assert vectors.hooks == (HookPoint(1, site), HookPoint(3, site))
    assert torch.equal(vectors.at(HookPoint(1, site)), activations[1][0])
    write_vectors(vectors, tmp_path / "again.pt", "steering-vectors")
    again = torch.load(tmp_path / "again.pt", weights_only=True)
    assert set(again) == {"layer_activations", "layer_type"} and again["layer_type"] == layer_type
    assert torch.equal(again["layer_activations"][3], activations[3])


def test_bare_layers_of_steering_vectors_are_block_outputs(tmp_path):
    vectors = read_vectors(saved(tmp_path / "v.pt", {2: matrix(1)[0]}), model=MODEL)
    assert vectors.source["format"] == "steering-vectors" and vectors.hook == HookPoint(2)


def write_saklas(path, layers=(1, 3), **document):
    save_file({f"layer_{n}": matrix(N_BLOCKS)[n].clone() for n in layers}, str(path))
    facts = {
        "format_version": 1,
        "saklas_version": "5.3.0",
        "method": "profile",
        "tensor_sha256": sha256_file(path),
    }
    write_json(path.with_suffix(".json"), {**facts, "provenance": {}, **document})
    return path


def test_a_saklas_profile_is_read_with_the_document_beside_it(tmp_path):
    file = write_saklas(
        tmp_path / "calm.safetensors", provenance={"model_id": "owner/name", "concept": "calm"}
    )
    vectors = read_vectors(file)
    assert vectors.hooks == (HookPoint(1), HookPoint(3)) and vectors.trait == "calm"
    assert torch.equal(vectors.at(HookPoint(3)), matrix(N_BLOCKS)[3])
    assert vectors.model["name"] == "owner/name" and vectors.source["layout"] == "profile"


def test_a_saklas_profile_of_other_tensors_is_refused(tmp_path):
    file = write_saklas(tmp_path / "calm.safetensors", tensor_sha256="0" * 64)
    with pytest.raises(WorkbenchError, match="does not match the hash"):
        read_vectors(file, model=MODEL)


@pytest.mark.parametrize("name", ["v.pt", "v.npy"])
def test_a_bare_vector_is_placed_by_the_caller(tmp_path, name):
    row = matrix(1)[0]
    path = tmp_path / name
    numpy.save(path, row.numpy()) if name.endswith("npy") else torch.save(row, path)
    vectors = read_vectors(path, model=MODEL, hook="blocks.2.hook_resid_post", trait="calm")
    assert torch.equal(vectors.at(vectors.hook), row) and vectors.hooks == (HookPoint(2),)
    write_vectors(vectors, tmp_path / "again.pt", "tensor")
    assert torch.equal(torch.load(tmp_path / "again.pt", weights_only=True), row)


@pytest.mark.parametrize("name", [name for name, one in FORMATS.items() if one.write and name != "tensor"])
def test_what_is_written_is_read_again_by_auto_with_the_same_vectors(tmp_path, name):
    suffix = ".gguf" if name == "gguf" else ".pt"
    write_vectors(layered(), tmp_path / f"v{suffix}", name)
    again = read_vectors(tmp_path / f"v{suffix}", model=MODEL)
    assert again.source["format"] == name
    both = set(again.hooks) & set(POSTS)
    assert len(both) >= N_BLOCKS - 1
    assert all(torch.equal(again.at(hook), layered().at(hook)) for hook in both)


@pytest.mark.parametrize("name", [name for name, one in FORMATS.items() if one.write])
def test_writing_twice_gives_equal_bytes(tmp_path, name):
    for file in ("a", "b"):
        write_vectors(layered(hook=POSTS[1]), tmp_path / file, name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("name", "n_rows", "row"), [("persona-vectors", N_BLOCKS + 1, 3), ("assistant-axis", N_BLOCKS, 2)]
)
def test_one_vector_is_written_at_its_row_with_zeros_elsewhere_and_a_note(tmp_path, name, n_rows, row):
    vector = PersonaVector.from_direction(matrix(1)[0], trait="evil", model=MODEL, hook=HookPoint(2))
    notes = write_vectors(vector, tmp_path / "v.pt", name)
    table = torch.load(tmp_path / "v.pt", weights_only=True)
    table = table if name == "persona-vectors" else table["axis"]
    assert len(table) == n_rows and torch.equal(table[row], matrix(1)[0])
    assert int(table.any(dim=1).sum()) == 1 and f"{n_rows - 1} of {n_rows} rows are zeros" in notes[0]
    again = read_vectors(tmp_path / "v.pt", name, model=MODEL)
    assert again.hooks == (HookPoint(2),) and again.hook == HookPoint(2)
    assert "rows of zeros were left out" in again.notes[0]


def test_the_last_blocks_output_has_no_row_in_persona_vectors(tmp_path):
    notes = write_vectors(layered(), tmp_path / "v.pt", "persona-vectors")
    table = torch.load(tmp_path / "v.pt", weights_only=True)
    assert not table[-1].any() and any(str(POSTS[-1]) in note for note in notes)
    with pytest.raises(WorkbenchError, match="None of the hook points"):
        write_vectors(layered(POSTS[-1]), tmp_path / "none.pt", "persona-vectors")
    assert not (tmp_path / "none.pt").exists()


def test_the_number_of_blocks_is_asked_for_where_it_is_not_known(tmp_path):
    vector = PersonaVector.from_direction(matrix(1)[0], trait="evil", model="tiny", hook=HookPoint(2))
    with pytest.raises(WorkbenchError, match="--blocks"):
        write_vectors(vector, tmp_path / "v.pt", "persona-vectors")
    write_vectors(vector, tmp_path / "v.pt", "persona-vectors", n_blocks=4)
    assert len(torch.load(tmp_path / "v.pt", weights_only=True)) == 5
    for wrong in (2, 4000):
        with pytest.raises(WorkbenchError, match=f"--blocks is {wrong}"):
            write_vectors(vector, tmp_path / "v.pt", "persona-vectors", n_blocks=wrong)


def test_a_format_that_is_only_read_is_not_written(tmp_path):
    with pytest.raises(WorkbenchError, match="is only read"):
        write_vectors(layered(), tmp_path / "v.safetensors", "saklas")


def test_saved_vectors_load_the_same(tmp_path):
    vectors = layered(hook=POSTS[1], extras={"ln_final": matrix(1)[0]}, source={"format": "x"}, notes=("n",))
    vectors.save(tmp_path / "v")
    loaded = load_vectors(tmp_path / "v")
    assert loaded.summary() == vectors.summary()
    assert all(torch.equal(loaded.at(hook), vectors.at(hook)) for hook in POSTS)
    assert torch.equal(loaded.extras["ln_final"], vectors.extras["ln_final"])


def test_layered_vectors_and_persona_vectors_become_each_other():
    vector = layered(hook=POSTS[1]).persona_vector()
    assert vector.hook == POSTS[1] and vector.hooks == POSTS and len(vector.rows) == 0
    assert torch.equal(vector.direction, layered().at(POSTS[1]))
    back = LayeredVectors.from_persona_vector(vector)
    assert back.hooks == POSTS and all(torch.equal(back.at(hook), layered().at(hook)) for hook in POSTS)
    with pytest.raises(WorkbenchError, match="none was chosen"):
        layered().persona_vector()
    assert layered().persona_vector("blocks.3.hook_resid_post").hook == POSTS[3]


def test_a_saved_persona_vector_and_a_run_folder_are_loaded_with_every_block(tmp_path):
    layered(hook=POSTS[1]).persona_vector().save(tmp_path / "run" / "vector")
    for place in (tmp_path / "run", tmp_path / "run" / "vector"):
        assert load_vectors(place).hooks == POSTS
    with pytest.raises(WorkbenchError, match="holds no vectors"):
        load_vectors(tmp_path)


def test_a_file_is_described_without_a_model(tmp_path):
    value = describe_file(saved(tmp_path / "v.pt", matrix(1)[0]))
    assert value["vectors"][0]["hook"] is None and value["d_model"] == D_MODEL and value["model"] == {}
    value = describe_file(saved(tmp_path / "evil_response_avg_diff.pt", matrix(5)))
    assert (
        value["extras"] == {"ln_final": [D_MODEL]}
        and value["model"] == {"n_blocks": 4}
        and len(value["vectors"]) == 4
    )

"""Other libraries' SAEs: encoded and decoded as those libraries do, never executed, refused in three parts when unsound."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from workbench.base.errors import WorkbenchError
from workbench.saes.importing import import_sae
from workbench.saes.registry import load_sae

ROOT = Path(__file__).parents[2]


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("importers_check", ROOT / "scripts" / "importers_check.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault("importers_check", module)
    spec.loader.exec_module(module)
    return module


SCRIPT = _script()
LAYOUTS = list(SCRIPT.layouts())


@pytest.fixture(autouse=True)
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WORKBENCH_SHELF", str(tmp_path / "shelf"))
    return tmp_path / "shelf" / "saes"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_imported_sae_computes_what_its_library_documents(layout: str, tmp_path: Path) -> None:
    place, reference = SCRIPT.layouts()[layout](tmp_path / "theirs")
    assert SCRIPT.difference(place, reference, tmp_path / "ours") < 1e-5
    codes, _ = reference(SCRIPT.inputs())
    assert 3 < float((codes > 0).sum(1).double().mean()) < SCRIPT.D_SAE / 2  # neither dead nor dense


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name not in ("sparsify", "gemma_scope 2")])
def test_saelens_loaders_agree_where_they_are_right(layout: str, tmp_path: Path) -> None:
    place, _ = SCRIPT.layouts()[layout](tmp_path / "theirs")
    if layout.endswith("AutoEncoderNew"):  # it leaves the decoder's bias out and fails
        with pytest.raises(RuntimeError, match="b_dec"):
            SCRIPT.by_sae_lens(layout, place)
        return
    codes, rebuilt, _ = SCRIPT.by_sae_lens(layout, place)
    import_sae(place, out=tmp_path / "ours")
    ours = load_sae(tmp_path / "ours")
    torch.testing.assert_close(ours.encode(SCRIPT.inputs()), codes, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.decode(codes), rebuilt, rtol=1e-5, atol=1e-5)


def test_saelens_reads_a_square_sparsify_sae_wrongly_and_in_silence(tmp_path: Path) -> None:
    place, reference = SCRIPT.sparsify(tmp_path, d_sae=SCRIPT.D_MODEL, num_latents=SCRIPT.D_MODEL)
    _, rebuilt, cfg = SCRIPT.by_sae_lens("sparsify", place)
    right = reference(SCRIPT.inputs())
    assert float((rebuilt - right[1]).abs().max()) > 1 and cfg["apply_b_dec_to_input"] is False
    assert SCRIPT.difference(place, reference, tmp_path / "ours") < 1e-5


def test_saelens_opens_what_was_imported_and_agrees(tmp_path: Path) -> None:
    from sae_lens import SAE

    place, reference = SCRIPT.layouts()["dictionary_learning GatedAutoEncoder"](tmp_path / "theirs")
    theirs = SAE.load_from_disk(str(import_sae(place).folder))
    with torch.no_grad():
        torch.testing.assert_close(theirs.encode(SCRIPT.inputs()), reference(SCRIPT.inputs())[0].float(), rtol=1e-4, atol=1e-5)


def test_the_shelf_gets_a_card_that_states_the_origin(tmp_path: Path, shelf: Path) -> None:
    place, _ = SCRIPT.dictionary_learning(tmp_path, "BatchTopKSAE")
    found = import_sae(place)
    assert found.id == "model/blocks.3.hook_resid_post" and found.folder == shelf / found.id
    sae = load_sae(found.id)
    origin = sae.card["imported"]
    assert origin["format"] == "dictionary_learning" and origin["layout"] == "BatchTopKSAE"
    assert set(origin["files"]) == {"ae.pt", "config.json"} and all(len(h) == 64 for h in origin["files"].values())
    assert origin["config"]["trainer"]["lm_name"] == sae.model_name == "somebody/model"
    assert origin["said_by_user"] == []


def test_an_id_that_is_taken_is_refused_unless_replaced(tmp_path: Path) -> None:
    place, _ = SCRIPT.sparsify(tmp_path)
    import_sae(place)
    with pytest.raises(WorkbenchError, match=r"already.*--name"):
        import_sae(place)
    assert import_sae(place, replace=True).id == "model/blocks.3.hook_resid_post"
    assert import_sae(place, id="mine/second").id == "mine/second"


def test_replacing_deletes_no_folder_that_is_not_an_sae(tmp_path: Path) -> None:
    place, _ = SCRIPT.sparsify(tmp_path / "theirs")
    mine, nested = tmp_path / "mine", tmp_path / "nested"
    (mine / "thesis").mkdir(parents=True)
    (mine / "thesis" / "chapter.txt").write_text("years of work")
    import_sae(place, out=nested)
    import_sae(place, out=nested / "second")
    for folder in (mine, mine / "thesis" / "chapter.txt", nested):
        with pytest.raises(WorkbenchError, match=r"holds|is a file") as caught:
            import_sae(place, out=folder, replace=True)
        assert caught.value.expected and caught.value.remedy
    assert (mine / "thesis" / "chapter.txt").read_text() == "years of work"
    assert load_sae(nested / "second").d_sae == SCRIPT.D_SAE
    (mine / "cfg.json").write_text("{}")  # settings alone make no SAE
    with pytest.raises(WorkbenchError, match="holds"):
        import_sae(place, out=mine, replace=True)


def test_an_empty_folder_and_an_sae_are_replaced_through_links_too(tmp_path: Path) -> None:
    place, _ = SCRIPT.sparsify(tmp_path / "theirs")
    (tmp_path / "ours").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "ours")
    for name in ("ours", "link", "ours"):
        assert load_sae(import_sae(place, out=tmp_path / name, replace=True).folder).d_sae == SCRIPT.D_SAE
    assert (tmp_path / "link").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "ours", "theirs"]


def test_a_replacement_that_fails_puts_the_old_sae_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, _ = SCRIPT.sparsify(tmp_path / "theirs")
    kept = load_sae(import_sae(place, out=tmp_path / "ours").folder).weights_hash
    real = os.replace

    def fails(source: Any, target: Any) -> None:
        if Path(target) == tmp_path / "ours" and not str(source).endswith(".old"):
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(WorkbenchError):
        import_sae(place, out=tmp_path / "ours", replace=True)
    assert load_sae(tmp_path / "ours").weights_hash == kept
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours", "theirs"]


def test_an_id_cannot_leave_the_shelf(tmp_path: Path) -> None:
    place, _ = SCRIPT.sparsify(tmp_path)
    for id in ("../x", "/etc/x", "a/../../b", ".hidden", "a//b"):
        with pytest.raises(WorkbenchError, match="cannot be a folder's name"):
            import_sae(place, id=id)


@pytest.mark.parametrize("submodule, io", [("mlp_out_layer_3", "out"), ("resid_post_layer_3", "in")])
def test_a_site_that_is_not_plainly_the_residual_stream_is_asked_for(tmp_path: Path, submodule: str, io: str) -> None:
    place, _ = SCRIPT.dictionary_learning(tmp_path, "AutoEncoder")
    config = json.loads((place / "config.json").read_text())
    config["trainer"]["submodule_name"], config["buffer"]["io"] = submodule, io
    (place / "config.json").write_text(json.dumps(config))
    with pytest.raises(WorkbenchError, match=r"--hook"):
        import_sae(place)
    assert str(load_sae(import_sae(place, hook="blocks.3.hook_mlp_out").id).hook) == "blocks.3.hook_mlp_out"


def test_a_file_that_names_no_model_asks_for_it(tmp_path: Path) -> None:
    place, _ = SCRIPT.sparsify(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(WorkbenchError, match=r"which model.*--model"):
        import_sae(place)
    assert load_sae(import_sae(place, model="me/mine").id).model_name == "me/mine"


def test_what_the_user_says_wins_and_is_noted(tmp_path: Path) -> None:
    place, _ = SCRIPT.sparsify(tmp_path)
    found = import_sae(place, model="me/mine", hook="blocks.5.hook_resid_post")
    assert found.card["imported"]["said_by_user"] == ["model", "hook"]
    assert any("somebody/model" in note for note in found.notes) and any("blocks.3" in note for note in found.notes)


def test_topk_and_batch_topk_are_not_guessed_apart(tmp_path: Path) -> None:
    place, _ = SCRIPT.dictionary_learning(tmp_path, "AutoEncoderTopK")
    (place / "config.json").unlink()
    with pytest.raises(WorkbenchError, match=r"AutoEncoderTopK or a BatchTopKSAE"):
        import_sae(place)


@pytest.mark.parametrize("dict_class", [name for name in SCRIPT.CLASSES if name not in ("AutoEncoderTopK", "BatchTopKSAE")])
def test_the_other_classes_are_told_by_their_tensors(tmp_path: Path, dict_class: str) -> None:
    place, _ = SCRIPT.dictionary_learning(tmp_path, dict_class)
    (place / "config.json").unlink()
    card = import_sae(place / "ae.pt", model="somebody/model").card
    assert card["imported"]["layout"] == dict_class


@pytest.mark.parametrize(
    "setting, message",
    [
        ({"activation": "groupmax"}, "groupmax"),
        ({"signed": True}, "signed"),
        ({"transcode": True}, "transcoder"),
        ({"skip_connection": True}, "transcoder"),
        ({"k": 0}, "k is 0"),
        ({"k": 1000}, "1000 of 96"),
        ({"d_in": 25}, "d_in=25"),
    ],
)
def test_sparse_coders_of_other_kinds_are_refused(tmp_path: Path, setting: dict, message: str) -> None:
    place, _ = SCRIPT.sparsify(tmp_path)
    cfg = json.loads((place / "cfg.json").read_text())
    (place / "cfg.json").write_text(json.dumps(cfg | setting))
    with pytest.raises(WorkbenchError, match=message):
        import_sae(place)


def test_transcoders_and_head_saes_of_gemma_scope_are_refused(tmp_path: Path) -> None:
    place, _ = SCRIPT.gemma_scope_2(tmp_path)
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(config | {"hf_hook_point_out": "model.layers.3.mlp.output"}))
    with pytest.raises(WorkbenchError, match="transcoder"):
        import_sae(place)
    (place / "config.json").write_text(json.dumps(config | {"hf_hook_point_in": "model.layers.3.self_attn.o_proj.input",
                                                            "hf_hook_point_out": None}))  # fmt: skip
    with pytest.raises(WorkbenchError, match="o_proj"):
        import_sae(place)


def test_gemma_scope_without_its_repository_name_asks_for_model_and_hook(tmp_path: Path) -> None:
    place, _ = SCRIPT.gemma_scope(tmp_path)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (place / "params.npz").rename(moved / "params.npz")
    with pytest.raises(WorkbenchError, match="--model"):
        import_sae(moved)
    with pytest.raises(WorkbenchError, match="--hook"):
        import_sae(moved, model="google/gemma-2-2b")


# Bad files


class _Runs:
    def __reduce__(self):
        return (exec, ("open('ran', 'w').close()",))


def test_a_pickle_with_code_is_refused_and_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    place, _ = SCRIPT.dictionary_learning(tmp_path, "AutoEncoder")
    torch.save({"encoder.weight": _Runs()}, place / "ae.pt")
    with pytest.raises(WorkbenchError, match="without running code"):
        import_sae(place)
    (place / "ae.pt").write_bytes(pickle.dumps(_Runs()))
    with pytest.raises(WorkbenchError, match="bare pickle"):
        import_sae(place)
    array = np.empty(1, dtype=object)
    array[0] = _Runs()
    np.savez(tmp_path / "params.npz", W_enc=array)
    with pytest.raises(WorkbenchError, match="damaged"):
        import_sae(tmp_path / "params.npz", "gemma_scope", model="a/b", hook="blocks.0.hook_resid_post")
    assert not (tmp_path / "ran").exists()


def test_an_archive_that_unpacks_to_far_more_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "ae.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ae/data.pkl", b"\0" * (8 << 20))
    with pytest.raises(WorkbenchError, match="unpacks"):
        import_sae(tmp_path)


def test_arrays_that_unpack_to_far_more_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "params.npz", W_enc=np.zeros((2048, 2048), dtype=np.float32))
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("was read"))
    with pytest.raises(WorkbenchError, match=r"unpacks from .* to 16,777"):
        import_sae(tmp_path / "params.npz", "gemma_scope", model="a/b", hook="blocks.0.hook_resid_post")


def test_compressed_arrays_are_read(tmp_path: Path) -> None:
    place, reference = SCRIPT.gemma_scope(tmp_path / "theirs")
    with np.load(place / "params.npz") as held:
        arrays = dict(held)
    np.savez_compressed(place / "params.npz", **arrays)
    assert SCRIPT.difference(place, reference, tmp_path / "ours") < 1e-5


@pytest.mark.parametrize("layout", ["dictionary_learning JumpReluAutoEncoder", "sparsify", "gemma_scope", "gemma_scope 2"])
def test_files_cut_anywhere_are_refused_and_leave_nothing(layout: str, tmp_path: Path, shelf: Path) -> None:
    place, _ = SCRIPT.layouts()[layout](tmp_path / "theirs")
    file = next(p for p in place.iterdir() if p.suffix in (".pt", ".npz", ".safetensors"))
    whole = file.read_bytes()
    for share in (0.0, 0.001, 0.1, 0.5, 0.9, 0.999):
        file.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(WorkbenchError):
            import_sae(place)
    assert not list(shelf.rglob("*"))


def test_changed_bytes_give_an_sae_or_a_three_part_error(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for layout in ("dictionary_learning AutoEncoder", "sparsify", "gemma_scope"):
        place, _ = SCRIPT.layouts()[layout](tmp_path / layout.split()[0])
        file = next(p for p in place.iterdir() if p.suffix in (".pt", ".npz", ".safetensors"))
        whole = file.read_bytes()
        for _ in range(60):
            broken = bytearray(whole)
            for position in generator.integers(0, len(whole), 8):
                broken[position] = generator.integers(0, 256)
            file.write_bytes(bytes(broken))
            try:
                import_sae(place, replace=True)
            except WorkbenchError as error:
                assert error.found and error.expected


@pytest.mark.parametrize("change, message", [("nan", "NaN"), ("shape", "shape"), ("missing", "lacks"), ("integers", "the type")])
@pytest.mark.parametrize("layout", ["dictionary_learning JumpReluAutoEncoder", "sparsify", "gemma_scope 2"])
def test_unsound_tensors_are_refused(layout: str, change: str, message: str, tmp_path: Path) -> None:
    place, _ = SCRIPT.layouts()[layout](tmp_path)
    file = next(p for p in place.iterdir() if p.suffix in (".pt", ".safetensors"))
    tensors = torch.load(file, weights_only=True) if file.suffix == ".pt" else load_file(file)
    name = next(key for key in tensors if key in ("b_enc", "encoder.bias"))
    changed = {
        "nan": tensors[name] * float("nan"),
        "shape": tensors[name][:-1].clone(),
        "integers": tensors[name].to(torch.int32),
    }
    tensors = {key: tensor for key, tensor in tensors.items() if key != name or change != "missing"}
    if change in changed:
        tensors[name] = changed[change]
    torch.save(tensors, file) if file.suffix == ".pt" else save_file(tensors, file)
    with pytest.raises(WorkbenchError, match=message):
        import_sae(place)


def test_a_training_backup_is_not_taken_for_the_trained_sae(tmp_path: Path) -> None:
    torch.save({"step": 40, "ae": {"encoder.weight": torch.ones(2, 2)}, "norm_factor": 3.0}, tmp_path / "ae.pt")
    with pytest.raises(WorkbenchError, match="unfinished training"):
        import_sae(tmp_path)


def test_a_folder_without_an_sae_says_what_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(WorkbenchError, match=r"notes\.txt.*ae\.pt"):
        import_sae(tmp_path)
    with pytest.raises(WorkbenchError, match="no format 'saelense'"):
        import_sae(tmp_path, "saelense")
    with pytest.raises(WorkbenchError, match="absent"):
        import_sae(tmp_path / "absent")

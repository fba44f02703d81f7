"""SAELens folders: what is written is read back, SAELens agrees with our encode and decode, damage is refused."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sae_lens import SAE
from safetensors.torch import load_file, save_file

from tests.saes.planted import small_sae
from workbench.base.errors import WorkbenchError
from workbench.saes.formats import saelens
from workbench.saes.registry import load_sae


def _x(n: int = 32, d: int = 16) -> torch.Tensor:
    return 2 * torch.randn(n, d, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("architecture", ["jumprelu", "topk", "standard"])
def test_saelens_encodes_and_decodes_a_saved_sae_as_we_do(tmp_path: Path, architecture: str) -> None:
    sae = replace(small_sae(), architecture=architecture, k=5 if architecture == "topk" else None)
    if architecture != "jumprelu":
        sae = replace(sae, threshold=None)
    saelens.write(sae, tmp_path, dtype="float32")
    theirs = SAE.load_from_disk(str(tmp_path))
    ours = load_sae(tmp_path)
    with torch.no_grad():
        codes = theirs.encode(_x())
        torch.testing.assert_close(ours.encode(_x()), codes, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(ours.decode(codes), theirs.decode(codes), rtol=1e-5, atol=1e-6)
    assert float(codes.sum()) > 0


def test_half_precision_on_disk_loads_as_float32_here_and_in_saelens(tmp_path: Path) -> None:
    saelens.write(small_sae(), tmp_path)
    ours, theirs = load_sae(tmp_path), SAE.load_from_disk(str(tmp_path))
    assert ours.encoder.dtype == torch.float32 == theirs.W_enc.dtype
    torch.testing.assert_close(ours.decoder_directions, theirs.W_dec.detach())


def test_the_decoder_is_affine_in_the_codes() -> None:
    sae = small_sae()
    codes = sae.encode(_x())
    torch.testing.assert_close(sae.decode(codes), codes @ sae.decoder_directions + sae.decoder_bias)
    assert (codes >= 0).all()


def test_hook_density_and_card_survive_saving(tmp_path: Path) -> None:
    sae = replace(small_sae(), density=torch.linspace(0, 1, 48), card={"l0": 3.5})
    saelens.write(sae, tmp_path)
    back = load_sae(tmp_path)
    assert back.hook == sae.hook and back.card == {"l0": 3.5, "weights_hash": back.weights_hash}
    assert back.density is not None
    torch.testing.assert_close(back.density, sae.density, rtol=1e-4, atol=1e-8)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    saelens.write(small_sae(), tmp_path)
    (tmp_path / "sae_weights.safetensors").unlink()
    with pytest.raises(WorkbenchError, match=r"has no sae_weights\.safetensors"):
        load_sae(tmp_path)


def test_weights_of_another_width_are_refused(tmp_path: Path) -> None:
    saelens.write(small_sae(), tmp_path)
    cfg = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps(cfg | {"d_in": 17}))
    with pytest.raises(WorkbenchError, match=r"shape .* d_in=17"):
        load_sae(tmp_path)


def test_an_unknown_architecture_and_run_time_normalisation_are_refused(tmp_path: Path) -> None:
    saelens.write(small_sae(), tmp_path)
    cfg = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps(cfg | {"architecture": "temporal"}))
    with pytest.raises(WorkbenchError, match="temporal"):
        load_sae(tmp_path)
    (tmp_path / "cfg.json").write_text(json.dumps(cfg | {"normalize_activations": "layer_norm"}))
    with pytest.raises(WorkbenchError, match="layer_norm"):
        load_sae(tmp_path)


def test_weights_with_nan_are_refused(tmp_path: Path) -> None:
    weights = saelens.write(small_sae(), tmp_path) / saelens.WEIGHTS
    tensors = load_file(weights)
    save_file(tensors | {"b_enc": tensors["b_enc"] * float("nan")}, weights)
    with pytest.raises(WorkbenchError, match="NaN or infinite values in b_enc"):
        load_sae(tmp_path)


def test_an_unknown_sae_offers_the_nearest_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saelens.write(small_sae(), tmp_path / "saes" / "tiny" / "blocks.1.hook_resid_post")
    monkeypatch.setenv("WORKBENCH_SHELF", str(tmp_path))
    assert load_sae("tiny/blocks.1.hook_resid_post").id == "tiny/blocks.1.hook_resid_post"
    with pytest.raises(WorkbenchError, match=r"one of tiny/blocks\.1\.hook_resid_post"):
        load_sae("tiny/blocks.2.hook_resid_post")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float8_e4m3fn"])
def test_an_sae_rounded_to_a_stored_type_is_what_comes_back(tmp_path: Path, dtype: str) -> None:
    sae = small_sae()
    expected = saelens.rounded(sae, dtype)
    found = load_sae(saelens.write(sae, tmp_path, dtype=dtype))
    for name in ("encoder", "encoder_bias", "decoder_directions", "decoder_bias"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    cosine = torch.nn.functional.cosine_similarity(found.decoder_directions, sae.decoder_directions, dim=1)
    assert float(cosine.min()) > 0.995
    theirs = SAE.load_from_disk(str(tmp_path))
    assert torch.equal(theirs.W_dec.detach(), found.decoder_directions)
    assert (theirs.cfg.metadata.hook_name, theirs.cfg.metadata.model_name) == (str(sae.hook), sae.model_name)


# Writing: all or nothing


@pytest.mark.parametrize(
    ("dtype", "size", "way_out"),
    [("float16", 7e4, "bfloat16"), ("float8_e4m3fn", 500.0, "bfloat16"), ("float16", float("nan"), "train it again")],
)
def test_weights_that_the_stored_type_cannot_hold_are_refused_before_anything_is_written(
    tmp_path: Path, dtype: str, size: float, way_out: str
) -> None:
    sae = small_sae()
    sae.decoder_directions[3, 5] = size
    for attempt in (lambda: saelens.write(sae, tmp_path / "new", dtype=dtype), lambda: saelens.rounded(sae, dtype)):
        with pytest.raises(WorkbenchError, match="W_dec") as caught:
            attempt()
        assert dtype in caught.value.found and way_out in caught.value.remedy and caught.value.expected
    assert not (tmp_path / "new").exists()
    saelens.write(small_sae(), tmp_path / "old", dtype=dtype)
    before = {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()}
    with pytest.raises(WorkbenchError, match="W_dec"):
        saelens.write(sae, tmp_path / "old", dtype=dtype)
    assert {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()} == before


@pytest.mark.parametrize("broken", ["save_tensors", "write_json", "replace"])
def test_a_write_that_breaks_leaves_no_settings_beside_weights_of_another_sae(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    old = replace(small_sae(), density=torch.linspace(0, 1, 48), card={"l0": 3.5})
    new = replace(small_sae(seed=1), architecture="topk", k=5, threshold=None, density=torch.ones(48), card={"l0": 5.0})
    whole = load_sae(saelens.write(old, tmp_path)).weights_hash
    targets = {"save_tensors": "workbench.base.tensors.save_tensors", "write_json": "workbench.saes.formats.saelens.write_json",
               "replace": "os.replace"}  # fmt: skip
    for fails_at in range(8):
        calls = [0]
        module, name = targets[broken].rsplit(".", 1)
        real = getattr(__import__(module, fromlist=[name]), name)

        def once(*given: object, calls: list = calls, real: Any = real, n: int = fails_at, **named: object) -> object:
            calls[0] += 1
            if calls[0] > n:
                raise KeyboardInterrupt
            return real(*given, **named)

        with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
            patch.setattr(targets[broken], once)
            saelens.write(new, tmp_path)
        try:
            found = load_sae(tmp_path)
        except WorkbenchError as error:
            assert "cfg.json" in error.found
        else:
            assert found.architecture == ("jumprelu" if found.weights_hash == whole else "topk")
            assert found.card["l0"] == (3.5 if found.weights_hash == whole else 5.0)
        saelens.write(old, tmp_path)


def test_nothing_of_an_sae_that_was_written_there_before_is_left(tmp_path: Path) -> None:
    saelens.write(replace(small_sae(), density=torch.linspace(0, 1, 48), card={"l0": 3.5}), tmp_path)
    found = load_sae(saelens.write(small_sae(seed=1), tmp_path))
    assert found.density is None and found.card == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cfg.json", "sae_weights.safetensors"]


MEASURED = ("training.svg", "placebos/placebo_codes.json", "placebos/placebo_codes.safetensors", "causal_controls/ab-kl0.1.json")
OF_THE_USER = ("recipe.yaml", "causal_controls/notes.txt", "sub/README.md", "placebo_codes.json")


def test_what_was_measured_on_other_weights_goes_with_them_and_nothing_else(tmp_path: Path) -> None:
    old = load_sae(saelens.write(small_sae(), tmp_path)).weights_hash
    for name in (*MEASURED, *OF_THE_USER, "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"of the old one: {name}")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    saelens.write(replace(small_sae(), card={"l0": 3.5}), tmp_path)  # the same weights, a card more
    assert all(path.read_bytes() == data for path, data in before.items() if path.name != "cfg.json")
    saelens.write(small_sae(seed=1), tmp_path)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {*OF_THE_USER, f"README.{old[:12]}.md", "cfg.json", "sae_weights.safetensors"}
    assert "README.md" in (tmp_path / f"README.{old[:12]}.md").read_text() and not (tmp_path / "placebos").exists()


def test_a_file_beside_no_weights_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    saelens.write(small_sae(), tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


@pytest.mark.parametrize("held", [{"other": torch.zeros(48)}, {"sparsity": torch.zeros(47)}, {"sparsity": torch.zeros(48, 1)}])
def test_a_sparsity_file_of_another_kind_or_shape_is_refused(tmp_path: Path, held: dict[str, torch.Tensor]) -> None:
    saelens.write(small_sae(), tmp_path)
    save_file(held, tmp_path / "sparsity.safetensors")
    with pytest.raises(WorkbenchError, match=r"sparsity\.safetensors"):
        load_sae(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"metadata": ["x"]},
        {"metadata": {"hook_name": 15}},
        {"metadata": {"hook_name": "blocks.1.hook_resid_post", "model_name": 5}},
        {"activation_fn": "topk", "activation_fn_kwargs": [3], "architecture": "standard"},
    ],
)
def test_a_configuration_with_values_of_other_kinds_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    saelens.write(small_sae(), tmp_path)
    cfg = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps(cfg | change))
    for read in (load_sae, saelens.read):
        with pytest.raises(WorkbenchError):
            read(tmp_path)


@pytest.mark.parametrize("k", ["Infinity", "-Infinity", "NaN", "1e400", "[5]", "true"])
def test_a_k_that_is_no_whole_number_is_refused(tmp_path: Path, k: str) -> None:
    saelens.write(replace(small_sae(), architecture="topk", k=5, threshold=None), tmp_path)
    text = (tmp_path / "cfg.json").read_text()
    (tmp_path / "cfg.json").write_text(text.replace('"k": 5', f'"k": {k}'))
    with pytest.raises(WorkbenchError, match="a whole number of at least 1"):
        load_sae(tmp_path)

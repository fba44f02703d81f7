"""What SAELens does at run time is folded in exactly, checked against SAELens itself; what cannot be folded is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from sae_lens import SAE
from sae_lens.registry import get_sae_class, get_sae_training_class
from sae_lens.training.activation_scaler import ActivationScaler, ActivationWhitening
from safetensors.torch import load_file, save_file

from workbench.base.errors import WorkbenchError
from workbench.saes.registry import load_sae

D, F = 12, 40
METADATA = {"model_name": "somebody/model", "hook_name": "blocks.2.hook_resid_post"}


def _x(n: int = 64) -> torch.Tensor:
    return torch.randn(n, D, generator=torch.Generator().manual_seed(5)) + 0.3


def _filled(sae: Any) -> Any:
    """Seeded numbers in every parameter; decoder rows of different lengths."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for _, parameter in sorted(sae.named_parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (0.3 if parameter.ndim == 2 else 0.1))
        if "threshold" in dict(sae.named_parameters()):
            sae.threshold.copy_(sae.threshold.abs())
    return sae


def _inference(architecture: str, **options: Any) -> Any:
    kind, config = get_sae_class(architecture)
    cfg = config.from_dict({"architecture": architecture, "d_in": D, "d_sae": F, "metadata": METADATA, **options})
    return _filled(kind(cfg))


def _same(ours: Any, theirs: Any, x: torch.Tensor | None = None) -> None:
    x = _x() if x is None else x
    with torch.no_grad():
        codes = theirs.encode(x)
        torch.testing.assert_close(ours.encode(x), codes, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(ours.decode(ours.encode(x)), theirs.decode(codes), rtol=1e-5, atol=1e-6)
    assert 0 < float((codes > 0).float().mean()) < 1


@pytest.mark.parametrize(
    "architecture, options",
    [
        ("gated", {}),
        ("gated", {"apply_b_dec_to_input": False}),
        ("topk", {"k": 6, "rescale_acts_by_decoder_norm": True}),
        ("topk", {"k": 6, "apply_b_dec_to_input": False}),
        ("jumprelu", {"apply_b_dec_to_input": False}),
    ],
)
def test_an_sae_saved_by_saelens_computes_the_same_here(tmp_path: Path, architecture: str, options: dict) -> None:
    theirs = _inference(architecture, **options)
    theirs.save_model(tmp_path)
    _same(load_sae(tmp_path), theirs)


@pytest.mark.parametrize("architecture", ["batchtopk", "matryoshka_batchtopk"])
@pytest.mark.parametrize("rescaled", [True, False])
def test_a_batch_topk_checkpoint_equals_the_inference_sae_that_saelens_saves(
    tmp_path: Path, architecture: str, rescaled: bool
) -> None:
    kind, config = get_sae_training_class(architecture)
    more = {"matryoshka_widths": [10, F]} if architecture.startswith("matryoshka") else {}
    cfg = config.from_dict(
        {"architecture": architecture, "d_in": D, "d_sae": F, "k": 5, "metadata": METADATA,
         "rescale_acts_by_decoder_norm": rescaled, "normalize_activations": "expected_average_only_in", **more}
    )  # fmt: skip
    training = _filled(kind(cfg))
    training.topk_threshold.fill_(0.25)
    training.save_model(tmp_path / "checkpoint")
    ActivationScaler(scaling_factor=0.7).save(str(tmp_path / "checkpoint" / "activation_scaler.json"))
    training.fold_activation_norm_scaling_factor(0.7)
    training.save_inference_model(tmp_path / "inference")
    theirs = SAE.load_from_disk(str(tmp_path / "inference"))
    _same(load_sae(tmp_path / "checkpoint"), theirs)
    _same(load_sae(tmp_path / "inference"), theirs)


def _whitening() -> ActivationWhitening:
    generator = torch.Generator().manual_seed(8)
    matrix = torch.randn(D, D, generator=generator, dtype=torch.float64) + 3 * torch.eye(D, dtype=torch.float64)
    return ActivationWhitening(torch.randn(D, generator=generator, dtype=torch.float64), matrix, torch.linalg.inv(matrix))


@pytest.mark.parametrize(
    "architecture, options",
    [
        ("standard", {}),
        ("standard", {"apply_b_dec_to_input": False}),
        ("topk", {"k": 6, "rescale_acts_by_decoder_norm": True}),
        ("gated", {}),
    ],
)
def test_a_fixed_whitening_is_folded_in(tmp_path: Path, architecture: str, options: dict) -> None:
    theirs = _inference(architecture, normalize_activations="covariance_whitening", **options)
    theirs.save_model(tmp_path)
    whitening = _whitening()
    ActivationScaler(whitening=whitening).save(str(tmp_path / "activation_scaler.json"))
    ours = load_sae(tmp_path)
    with torch.no_grad():
        z = ((_x().double() - whitening.mean) @ whitening.matrix).float()
        codes = theirs.encode(z)
        back = theirs.decode(codes).double() @ whitening.inverse_matrix + whitening.mean
    torch.testing.assert_close(ours.encode(_x()), codes, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.decode(codes), back.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"), [("mean", "lacks mean"), ("shape", "inverse_matrix has the shape"), ("nan", "NaN")]
)
def test_a_whitening_that_is_damaged_is_refused(tmp_path: Path, change: str, message: str) -> None:
    _inference("standard", normalize_activations="covariance_whitening").save_model(tmp_path)
    ActivationScaler(whitening=_whitening()).save(str(tmp_path / "activation_scaler.json"))
    file = tmp_path / "activation_whitening.safetensors"
    held = load_file(file)
    changes = {"shape": {"inverse_matrix": torch.ones(D, 1)}, "nan": {"mean": held["mean"] * float("nan")}}
    save_file({k: v for k, v in (held | changes.get(change, {})).items() if k != change}, file)
    with pytest.raises(WorkbenchError, match=message) as caught:
        load_sae(tmp_path)
    assert caught.value.expected and caught.value.remedy


def test_settings_that_are_no_object_are_refused(tmp_path: Path) -> None:
    _inference("standard", normalize_activations="expected_average_only_in").save_model(tmp_path)
    (tmp_path / "activation_scaler.json").write_text("[0.5]")
    with pytest.raises(WorkbenchError, match="a JSON object"):
        load_sae(tmp_path)
    (tmp_path / "cfg.json").write_text("[]")
    with pytest.raises(WorkbenchError):
        load_sae(tmp_path)


def test_a_scaling_that_is_not_told_is_asked_for(tmp_path: Path) -> None:
    theirs = _inference("standard", normalize_activations="expected_average_only_in")
    theirs.save_model(tmp_path)
    with pytest.raises(WorkbenchError, match=r"does not say by how much.*activation_scaler\.json"):
        load_sae(tmp_path)
    cfg = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps(cfg | {"norm_scaling_factor": 0.5}))
    theirs.fold_activation_norm_scaling_factor(0.5)
    _same(load_sae(tmp_path), theirs)


@pytest.mark.parametrize("normalisation", ["layer_norm", "constant_norm_rescale"])
def test_a_normalisation_that_depends_on_the_token_is_refused(tmp_path: Path, normalisation: str) -> None:
    _inference("standard", normalize_activations=normalisation).save_model(tmp_path)
    with pytest.raises(WorkbenchError, match="not affine"):
        load_sae(tmp_path)


def test_a_configuration_of_before_version_6_is_understood(tmp_path: Path) -> None:
    theirs = _inference("topk", k=6)
    theirs.save_model(tmp_path)
    old = {"d_in": D, "d_sae": F, "dtype": "float32", "hook_point": "blocks.2.hook_resid_post", "model_name": "gpt2-small",
           "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 6}, "normalize_activations": False}  # fmt: skip
    (tmp_path / "cfg.json").write_text(json.dumps(old))
    ours = load_sae(tmp_path)
    assert (str(ours.hook), ours.model_name, ours.k) == ("blocks.2.hook_resid_post", "gpt2-small", 6)
    _same(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float64])
def test_every_storage_type_is_read_into_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    _inference("standard").save_model(tmp_path)
    path = tmp_path / "sae_weights.safetensors"
    stored = {name: tensor.to(dtype) for name, tensor in load_file(path).items()}
    save_file(stored, path)
    ours = load_sae(tmp_path)
    assert ours.encoder.dtype == torch.float32
    assert torch.equal(ours.encoder, stored["W_enc"].float())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_importing_keeps_narrow_weights_narrow_and_exact(tmp_path: Path, dtype: torch.dtype) -> None:
    from workbench.saes.importing import import_sae

    _inference("standard").save_model(tmp_path / "theirs")
    path = tmp_path / "theirs" / "sae_weights.safetensors"
    save_file({name: tensor.to(dtype) for name, tensor in load_file(path).items()}, path)
    import_sae(tmp_path / "theirs", out=tmp_path / "ours")
    assert load_file(tmp_path / "ours" / "sae_weights.safetensors")["W_enc"].element_size() == 2
    assert torch.equal(load_sae(tmp_path / "ours").encoder, load_sae(tmp_path / "theirs").encoder)


def test_codes_with_a_scale_of_their_own_and_too_large_a_k_are_refused(tmp_path: Path) -> None:
    _inference("topk", k=6).save_model(tmp_path)
    path = tmp_path / "sae_weights.safetensors"
    save_file({**load_file(path), "scaling_factor": torch.full((F,), 2.0)}, path)
    with pytest.raises(WorkbenchError, match="scaling_factor"):
        load_sae(tmp_path)
    _inference("topk", k=6).save_model(tmp_path)
    cfg = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps(cfg | {"k": F + 1}))
    with pytest.raises(WorkbenchError, match="41 of 40"):
        load_sae(tmp_path)

"""How far imported SAEs are from what their own libraries compute, on small files in each layout.

    python scripts/importers_check.py               # JSON {layout: {"max_abs_difference", ...}} on standard output
    python scripts/importers_check.py --sae-lens    # besides: what SAELens' own loaders make of the same files

Each layout is written with seeded tensors, imported, stored, loaded, and encoded and decoded; the reference is computed
here from the formula that the library documents, in float64 and without the importer's code.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

D_MODEL, D_SAE, K, ROWS = 24, 96, 7, 512
MODEL, HOOK = "somebody/model", "blocks.3.hook_resid_post"
Reference = Callable[[Tensor], tuple[Tensor, Tensor]]


def drawn(seed: int, *shape: int, scale: float = 1.0) -> Tensor:
    """Seeded normal numbers in float32."""
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def parts(seed: int = 0, d_sae: int = D_SAE) -> dict[str, Tensor]:
    """W_enc [d, d_sae], b_enc, W_dec [d_sae, d] (rows near, not of unit length), b_dec, threshold, and a gate."""
    decoder = drawn(seed, d_sae, D_MODEL, scale=D_MODEL**-0.5)
    return {
        "W_enc": decoder.T.contiguous() + drawn(seed + 1, D_MODEL, d_sae, scale=0.05),
        "b_enc": drawn(seed + 2, d_sae, scale=0.1) - 0.5,
        "W_dec": decoder,
        "b_dec": drawn(seed + 3, D_MODEL, scale=0.5),
        "threshold": drawn(seed + 4, d_sae).abs() * 0.3,
        "b_gate": drawn(seed + 5, d_sae, scale=0.2) - 1,
        "b_mag": drawn(seed + 6, d_sae, scale=0.2),
        "r_mag": drawn(seed + 7, d_sae, scale=0.3),
    }


def inputs() -> Tensor:
    """Activations [rows, d_model]."""
    return drawn(77, ROWS, D_MODEL)


# The formulas, from the libraries' own encode and decode.


def linear(p: dict[str, Tensor], x: Tensor, *, subtract: bool) -> Tensor:
    """(x - b_dec if subtract) W_enc + b_enc, in float64."""
    x = x.double()
    return (x - p["b_dec"].double() if subtract else x) @ p["W_enc"].double() + p["b_enc"].double()


def decoded(p: dict[str, Tensor], codes: Tensor) -> tuple[Tensor, Tensor]:
    """(codes, codes W_dec + b_dec)."""
    return codes, codes @ p["W_dec"].double() + p["b_dec"].double()


def relu(p: dict[str, Tensor], *, subtract: bool = True) -> Reference:
    """A plain SAE."""
    return lambda x: decoded(p, linear(p, x, subtract=subtract).relu())


def topk(p: dict[str, Tensor]) -> Reference:
    """ReLU, then the k largest; the rest are 0."""

    def compute(x: Tensor) -> tuple[Tensor, Tensor]:
        positive = linear(p, x, subtract=True).relu()
        kth = positive.sort(dim=-1, descending=True).values[..., K - 1 : K]
        return decoded(p, torch.where(positive >= kth, positive, 0.0))

    return compute


def jump(p: dict[str, Tensor], threshold: Tensor, *, subtract: bool) -> Reference:
    """relu(p) where p > threshold, strictly."""

    def compute(x: Tensor) -> tuple[Tensor, Tensor]:
        before = linear(p, x, subtract=subtract)
        return decoded(p, before.relu() * (before > threshold.double()))

    return compute


def gated(p: dict[str, Tensor]) -> Reference:
    """A gate 1[x W + b_gate > 0] times the magnitude relu(exp(r_mag) x W + b_mag)."""

    def compute(x: Tensor) -> tuple[Tensor, Tensor]:
        shared = (x.double() - p["b_dec"].double()) @ p["W_enc"].double()
        magnitude = (p["r_mag"].double().exp() * shared + p["b_mag"].double()).relu()
        return decoded(p, (shared + p["b_gate"].double() > 0) * magnitude)

    return compute


# The layouts, as the libraries write them.


def _trainer(folder: Path, dict_class: str, tensors: dict[str, Tensor]) -> Path:
    place = folder / "resid_post_layer_3" / "trainer_0"
    place.mkdir(parents=True)
    torch.save(tensors, place / "ae.pt")
    trainer = {"dict_class": dict_class, "trainer_class": "Any", "activation_dim": D_MODEL, "dict_size": D_SAE,
               "layer": 3, "lm_name": MODEL, "submodule_name": "resid_post_layer_3"}  # fmt: skip
    if "k" in tensors:
        trainer["k"] = int(tensors["k"])
    buffer = {"d_submodule": D_MODEL, "io": "out", "n_ctxs": 10, "ctx_len": 64}
    (place / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": buffer}))
    return place


def _linear_state(p: dict[str, Tensor], bias: str) -> dict[str, Tensor]:
    return {"encoder.weight": p["W_enc"].T.contiguous(), "encoder.bias": p["b_enc"],
            "decoder.weight": p["W_dec"].T.contiguous(), bias: p["b_dec"]}  # fmt: skip


def dictionary_learning(folder: Path, dict_class: str) -> tuple[Path, Reference]:
    """A trainer's folder of one of the library's classes."""
    p = parts()
    one, counts = torch.tensor(0.35), {"k": torch.tensor(K, dtype=torch.int), "threshold": torch.tensor(0.35)}
    four = {name: p[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    gate = {"decoder_bias": p["b_dec"], "r_mag": p["r_mag"], "gate_bias": p["b_gate"], "mag_bias": p["b_mag"]}
    linear_gate = {k: v for k, v in _linear_state(p, "b").items() if k in ("encoder.weight", "decoder.weight")}
    states: dict[str, tuple[dict[str, Tensor], Reference]] = {
        "AutoEncoder": (_linear_state(p, "bias"), relu(p)),
        "AutoEncoderNew": (_linear_state(p, "decoder.bias"), relu(p, subtract=False)),
        "AutoEncoderTopK": ({**_linear_state(p, "b_dec"), **counts}, topk(p)),
        "BatchTopKSAE": ({**_linear_state(p, "b_dec"), **counts}, jump(p, one, subtract=True)),
        "MatryoshkaBatchTopKSAE": (
            {**four, **counts, "group_sizes": torch.tensor([D_SAE // 2, D_SAE // 2])},
            jump(p, one, subtract=True),
        ),
        "JumpReluAutoEncoder": ({**four, "threshold": p["threshold"]}, jump(p, p["threshold"], subtract=False)),
        "GatedAutoEncoder": ({**linear_gate, **gate}, gated(p)),
    }
    tensors, reference = states[dict_class]
    return _trainer(folder, dict_class, tensors), reference


def sparsify(folder: Path, *, d_sae: int = D_SAE, num_latents: int = 0) -> tuple[Path, Reference]:
    """A hook point's folder of a sparsify run, with the run's config.json above it; 0 latents is the library's default."""
    p, place = parts(d_sae=d_sae), folder / "layers.3"
    place.mkdir(parents=True)
    tensors = {"encoder.weight": p["W_enc"].T.contiguous(), "encoder.bias": p["b_enc"], "W_dec": p["W_dec"], "b_dec": p["b_dec"]}
    save_file(tensors, place / "sae.safetensors")
    settings = {"activation": "topk", "expansion_factor": d_sae // D_MODEL, "normalize_decoder": True, "num_latents": num_latents,
                "k": K, "multi_topk": False, "skip_connection": False, "transcode": False, "d_in": D_MODEL}  # fmt: skip
    (place / "cfg.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text(json.dumps({"model": MODEL, "dataset": "somebody/texts", "ctx_len": 128}))
    return place, topk(p)


def gemma_scope(folder: Path) -> tuple[Path, Reference]:
    """params.npz in a folder of the first release."""
    p, place = parts(), folder / "gemma-scope-2b-pt-res" / "layer_3" / "width_16k" / "average_l0_71"
    place.mkdir(parents=True)
    np.savez(place / "params.npz", **{name: p[name].numpy() for name in ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")})  # type: ignore[arg-type]
    return place, jump(p, p["threshold"], subtract=False)


def gemma_scope_2(folder: Path) -> tuple[Path, Reference]:
    """params.safetensors and config.json of the second release."""
    p, place = parts(), folder / "resid_post" / "layer_3_width_16k_l0_big"
    place.mkdir(parents=True)
    save_file({name.lower(): p[name] for name in ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")}, place / "params.safetensors")
    config = {"architecture": "jump_relu", "model_name": "google/gemma-3-4b-pt", "width": D_SAE, "l0": 71, "type": "sae",
              "hf_hook_point_in": "model.layers.3.output", "hf_hook_point_out": "model.layers.3.output",
              "affine_connection": False}  # fmt: skip
    (place / "config.json").write_text(json.dumps(config))
    return place, jump(p, p["threshold"], subtract=False)


CLASSES = ("AutoEncoder", "AutoEncoderNew", "AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE",
           "JumpReluAutoEncoder", "GatedAutoEncoder")  # fmt: skip


def layouts() -> dict[str, Callable[[Path], tuple[Path, Reference]]]:
    """{name: writes that layout into an empty folder, and gives the place to import and the reference}."""
    by_class = {
        f"dictionary_learning {name}": (lambda folder, name=name: dictionary_learning(folder, name)) for name in CLASSES
    }
    return {**by_class, "sparsify": sparsify, "gemma_scope": gemma_scope, "gemma_scope 2": gemma_scope_2}


def difference(place: Path, reference: Reference, out: Path) -> float:
    """The largest difference of codes and reconstructions after importing `place`, stored and loaded again."""
    from workbench.saes.importing import import_sae
    from workbench.saes.registry import load_sae

    import_sae(place, out=out)
    sae, x = load_sae(out), inputs()
    codes, rebuilt = reference(x)
    ours = sae.encode(x)
    return max(float((ours - codes).abs().max()), float((sae.decode(ours) - rebuilt).abs().max()))


def check() -> dict[str, dict[str, Any]]:
    """{layout: {"max_abs_difference", "mean_l0"}} over 512 rows."""
    found: dict[str, dict[str, Any]] = {}
    for name, write in layouts().items():
        with tempfile.TemporaryDirectory() as folder:
            place, reference = write(Path(folder) / "theirs")
            largest = difference(place, reference, Path(folder) / "ours")
        active = float((reference(inputs())[0] > 0).sum(1).double().mean())
        found[name] = {"max_abs_difference": largest, "mean_l0": active}
    return found


# SAELens' loaders on the same files. They ask the hub, so the files are laid into a hub cache of their own.


def by_sae_lens(name: str, place: Path) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """(codes, reconstructions, configuration) after SAELens' own loader of the layout."""
    from sae_lens import SAE
    from sae_lens.loading import pretrained_sae_loaders as loaders

    if name.startswith("sparsify"):
        sae = SAE.load_from_disk(place, dtype="float32", converter=loaders.sparsify_disk_loader)
    else:
        remote, sizes = loaders.dictionary_learning_sae_huggingface_loader_1, {}
        repo, inside = "somebody/saes", "resid_post_layer_3/trainer_0"
        if name == "gemma_scope":
            remote, sizes = loaders.gemma_2_sae_huggingface_loader, {"d_in": D_MODEL, "d_sae": D_SAE}
            repo, inside = "google/gemma-scope-2b-pt-res", "layer_3/width_16k/average_l0_71"

        def converter(path: Any, device: str, cfg_overrides: Any) -> Any:
            with hub_cache(repo, inside, place):
                return remote(repo, inside, device, False, {**sizes, **(cfg_overrides or {})})[:2]

        sae = SAE.load_from_disk(place, dtype="float32", converter=converter)
    with torch.no_grad():
        codes = sae.encode(inputs())
        return codes, sae.decode(codes), sae.cfg.to_dict()


@contextmanager
def hub_cache(repo: str, inside: str, place: Path) -> Iterator[None]:
    """Within the block the hub client is offline and finds the files of `place` under `inside` of `repo`."""
    from huggingface_hub import constants

    kept = constants.HF_HUB_CACHE, constants.HF_HUB_OFFLINE
    with tempfile.TemporaryDirectory() as cache:
        held = Path(cache) / f"models--{repo.replace('/', '--')}"
        (held / "refs").mkdir(parents=True)
        (held / "refs" / "main").write_text("a" * 40)
        shutil.copytree(place, held / "snapshots" / ("a" * 40) / inside)
        constants.HF_HUB_CACHE, constants.HF_HUB_OFFLINE = cache, True
        try:
            yield
        finally:
            constants.HF_HUB_CACHE, constants.HF_HUB_OFFLINE = kept


def compare_sae_lens() -> dict[str, dict[str, Any]]:
    """{layout: what SAELens' loader differs by from the documented formula, or the error that it ends with}."""
    found: dict[str, dict[str, Any]] = {}
    cases = {name: write for name, write in layouts().items() if name != "gemma_scope 2"}  # it reads shapes from the hub
    cases["sparsify, num_latents given"] = lambda folder: sparsify(folder, num_latents=D_SAE)
    cases["sparsify, as many features as dimensions"] = lambda folder: sparsify(folder, d_sae=D_MODEL, num_latents=D_MODEL)
    for name, write in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            place, reference = write(Path(folder))
            try:
                codes, rebuilt, cfg = by_sae_lens(name, place)
            except Exception as error:  # whatever it ends with is the finding
                found[name] = {"error": f"{type(error).__name__}: {str(error).splitlines()[-1].strip()[:160]}"}
                continue
        x = inputs()
        theirs = reference(x)
        largest = max(float((codes - theirs[0]).abs().max()), float((rebuilt - theirs[1]).abs().max()))
        found[name] = {"max_abs_difference": largest, "apply_b_dec_to_input": cfg["apply_b_dec_to_input"]}
    return found


if __name__ == "__main__":
    value = check()
    if "--sae-lens" in sys.argv[1:]:
        for layout, said in compare_sae_lens().items():
            value.setdefault(layout, {})["sae_lens"] = said
    json.dump(value, sys.stdout, indent=2)
    print()

"""A tiny model, its SAE, and a run of them with a vector and a decomposition, made by the commands."""

from __future__ import annotations

from pathlib import Path

from tests.cli.shelf import write_sae
from tests.tiny import tiny_model

HOOK = "blocks.1.hook_resid_post"
SMALL = ("--judge", "none", "--max-new-tokens", "4", "--batch-size", "64", "-q")


def decomposed_run(folder: Path) -> Path:
    """`folder` with model/, sae/ and run/."""
    from workbench.cli.run import run
    from workbench.decomposition.decompose import decompose
    from workbench.personas.vectors import PersonaVector
    from workbench.saes.registry import load_sae

    model = tiny_model("llama")
    model.hf.save_pretrained(folder / "model")
    model.tokenizer.save_pretrained(folder / "model")
    write_sae(folder / "sae", model="model", d_model=model.d_model, d_sae=120)
    common = ("--model", str(folder / "model"), "--out", str(folder / "run"), *SMALL)
    assert run(["extract", "humorous", *common, "--hook", HOOK]) == 0
    vector = PersonaVector.load(folder / "run" / "vector")
    decompose(vector, load_sae(folder / "sae"), causal=False, n_bootstrap=20).save(folder / "run" / "decomposition")
    return folder


def arguments(place: Path) -> tuple[str, ...]:
    return ("--model", str(place / "model"), "--sae", str(place / "sae"), "--out", str(place / "run"), *SMALL)

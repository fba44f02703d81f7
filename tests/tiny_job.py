"""What a whole job needs, small: a tiny model, an SAE of it and a trait cut short, as folders."""

from __future__ import annotations

from pathlib import Path

from tests.cli.shelf import write_sae
from tests.short import short_trait
from tests.tiny import tiny_model


def write_tiny_job(folder: Path) -> Path:
    """`folder` with model/, sae/ and traits/evil/; returns the trait. It has no pairs: the causal test needs hundreds of live
    features."""
    model = tiny_model("llama")
    model.hf.save_pretrained(folder / "model")
    model.tokenizer.save_pretrained(folder / "model")
    write_sae(folder / "sae", model="model", d_model=model.d_model, d_sae=120)
    trait = short_trait("evil", folder / "traits")
    (trait / "pairs.yaml").unlink()
    return trait

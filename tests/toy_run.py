"""A finished run folder of a tiny model: the vector of written replies, and its decomposition on a planted SAE."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.labeling.planted import planted_sae
from tests.personas.toy import LexicalJudge, responses
from workbench.decomposition.decompose import decompose
from workbench.personas.extraction import extract
from workbench.personas.traits import load_trait
from workbench.saes.interface import SparseAutoencoder


def sae_of(model: Any) -> SparseAutoencoder:
    """The planted SAE as one of this model."""
    return replace(planted_sae(), model_name=model.name)


def finished_run(model: Any, folder: Path) -> Path:
    """`folder` with rollouts, activations, vector/ and decomposition/ of evil."""
    trait, sae = load_trait("evil"), sae_of(model)
    vector = extract(trait, model, judge=LexicalJudge(), rollouts=responses(trait), out=folder, hook=sae.hook,
                     token_hooks=[sae.hook], n_bootstrap=10, n_random=20)  # fmt: skip
    vector.save(folder / "vector")
    decompose(vector, sae, model=model, causal=False, n_bootstrap=20).save(folder / "decomposition")
    return folder

"""What docs/evidence/mixtures.json holds: known mixtures of sub-personas in the default model, on the default SAE.

    python scripts/evidence.py mixtures          # samples 800 short answers (a quarter of an hour on one core), then some minutes
    python scripts/evidence.py mixtures --quick  # other mixtures of the same answers: is the error inside the stated interval?

The answers are kept in runs/mixtures-<model>, so that a second call does not sample them again.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from workbench.base.provenance import made
from workbench.base.store import plain, read_json, sha256_file

ROOT = Path(__file__).resolve().parents[1]
EVIDENCE, IMAGES = ROOT / "docs" / "evidence" / "mixtures.json", ROOT / "docs" / "images"
MODEL, SEED = "smollm2-135m-instruct", 0
SAE = ROOT / "saes" / MODEL / "blocks.15.hook_resid_post"
RUN = ROOT / "runs" / f"mixtures-{MODEL}"
DTYPE, BATCH = "bfloat16", 64
APART = ("effects", "provenance")


def evidence() -> dict[str, Any]:
    """{effects: what the sub-personas do, mixtures: what every method reads back}."""
    from workbench.cli.studies.mixtures import Mixing, run_mixed

    started = time.perf_counter()
    value, result = run_mixed(Mixing(dtype=DTYPE, batch_size=BATCH, out=RUN))
    result.figure().save(IMAGES / "mixtures.svg")
    files = {"sae": SAE / "sae_weights.safetensors", "texts": ROOT / "workbench" / "lab" / "data" / "sub_personas.yaml"}
    inputs = {name: sha256_file(path) for name, path in files.items()} | {"answers": value["provenance"]["inputs"]["answers"]}
    header = made("make evidence TOPIC=mixtures", SEED, time.perf_counter() - started, inputs)
    mixtures = {key: one for key, one in value.items() if key not in (*APART, "figure")}
    return {"_made": header, "effects": value["effects"], "mixtures": mixtures}


def evidence_quick() -> bool:
    """Whether other mixtures of the same answers have a share error inside the stated interval; prints both."""
    from workbench.decomposition.methods import decoder_of
    from workbench.lab.mixture_study import run_mixtures
    from workbench.lab.sub_personas import SamplingDesign, collect, load_sub_personas, read_answers
    from workbench.models.loading import load_model
    from workbench.saes.registry import load_sae

    low, high = read_json(EVIDENCE)["mixtures"]["scores"][0]["share_error_interval"]
    sae, material, design = load_sae(), load_sub_personas(), SamplingDesign(batch_size=BATCH)
    rollouts = collect(material, load_model(dtype=DTYPE), RUN / "answers", hook=sae.hook, design=design, seed=SEED)
    answers, _ = read_answers(rollouts, material, sae)
    found = plain(run_mixtures(answers, decoder_of(sae), n_bootstrap=2, n_splits=2, seed=SEED + 1).to_json())["share_error"]
    print(f"share error of other mixtures: {found:.3f}; stated interval [{low:.3f}, {high:.3f}]")
    return low <= found <= high

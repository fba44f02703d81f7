"""Which features of the seven traits' vectors move the model: on the default SAE, a soft-frozen one, and again in a second SAE.

    workbench sae train saes/smollm2-135m-instruct/recipe.yaml --only 4k-soft-frozen    # the control SAE, under runs/saes
    python scripts/causal_controls.py --sae smollm2-135m-instruct/blocks.15.hook_resid_post --dtype bfloat16
    python scripts/causal_controls.py --sae runs/saes/controls/4k-soft-frozen --dtype bfloat16 --n-controls 109   # hours
    python scripts/verified_evidence.py                      # all traits; two CPU minutes per trait and SAE that is new
    python scripts/verified_evidence.py --traits evil,humorous --saes default

On the soft-frozen SAE the five largest features are tested, against half as many controls; the default SAE's five largest are
judged among themselves as well, so that there are two counts of five. Verdicts are kept under runs/verified;
`decomposition_evidence.py` puts them into docs/evidence/decomposition.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from workbench.base.store import sha256_file

ROOT = Path(__file__).resolve().parents[1]
RUNS, MODEL, SEED, DTYPE, KL = ROOT / "runs", "smollm2-135m-instruct", 0, "bfloat16", 0.1
TRAITS = ("apathetic", "evil", "hallucinating", "humorous", "impolite", "optimistic", "sycophantic")
SECOND = f"{MODEL}/blocks.15.hook_resid_post-4k"
TESTED = {"default": 10, "soft-frozen": 5}
SAES = {"default": f"{MODEL}/blocks.15.hook_resid_post", "soft-frozen": RUNS / "saes" / "controls" / "4k-soft-frozen"}


def verified(trait: str) -> dict[str, Any]:
    """{n_tested, n_verified, n_expected_by_chance, the same of the soft-frozen SAE, confirmed, features} of one trait."""
    from workbench.decomposition.causal.verdict import LEVEL
    from workbench.maths.statistics import benjamini_hochberg

    ours, frozen = verdicts(trait, "default"), verdicts(trait, "soft-frozen")
    first = torch.tensor([row["p"] for row in ours["rows"][: TESTED["soft-frozen"]]], dtype=torch.float64)
    again = ours["second"]
    return {
        "n_tested": len(ours["rows"]),
        "n_verified": ours["n_verified"],
        "n_expected_by_chance": ours["n_expected_by_chance"],
        "n_verified_first_five": int((benjamini_hochberg(first) <= LEVEL + 1e-12).sum()),
        "n_tested_soft_frozen": len(frozen["rows"]),
        "n_verified_soft_frozen": frozen["n_verified"],
        "n_expected_by_chance_soft_frozen": frozen["n_expected_by_chance"],
        "confirmed": {"sae": SECOND, "n_matched": sum(row["p"] is not None for row in again),
                      "n_confirmed": sum(row["confirmed"] for row in again)},
        "features": ours["rows"],
        "features_soft_frozen": frozen["rows"],
    }  # fmt: skip


def verdicts(trait: str, which: str) -> dict[str, Any]:
    """{rows, n_verified, n_expected_by_chance, second}: made now, or kept from before."""
    from workbench.cli.remembered import remembered
    from workbench.personas.traits import load_trait
    from workbench.saes.registry import load_sae

    sae, place = load_sae(SAES[which]), RUNS / f"{trait}-{MODEL}" / "vector"
    sources = {"vector": sha256_file(place / "persona_vector.json"), "sae": sae.weights_hash, "seed": SEED, "dtype": DTYPE,
               "trait": load_trait(trait).hash, "tested": TESTED[which],
               "second": load_sae(SECOND).weights_hash if which == "default" else None,
               "controls": _controls_hash(trait, sae)}  # fmt: skip
    file = RUNS / "verified" / f"{trait}-{which}.json"
    return remembered(file, sources, lambda: _measured(trait, place, sae, which))


def _controls_hash(trait: str, sae: Any) -> str | None:
    from workbench.decomposition.causal.controls import shipped_path
    from workbench.personas.traits import load_trait

    path = shipped_path(sae.folder, load_trait(trait).pairs_hash, KL)
    return sha256_file(path) if path.is_file() else None


def _measured(trait: str, place: Path, sae: Any, which: str) -> dict[str, Any]:
    from workbench.decomposition.causal.confirmation import confirmed
    from workbench.decomposition.causal.verdict import add_causal, known_controls
    from workbench.decomposition.decompose import decompose
    from workbench.models.loading import load_model
    from workbench.personas.traits import load_trait
    from workbench.personas.vectors import PersonaVector
    from workbench.saes.registry import load_sae

    model, texts = load_model(MODEL, dtype=DTYPE), load_trait(trait)
    controls, second = known_controls(model, sae, texts, n_controls=20 * TESTED[which] + 9), []
    if controls is None:
        raise SystemExit(f"no controls of {sae.id} for {trait}: run scripts/causal_controls.py first (see above)")
    vector = PersonaVector.load(place)
    whole = decompose(vector, sae, causal=False, seed=SEED)
    parts = add_causal(whole, vector, sae, model, controls=controls, n_candidates=TESTED[which], seed=SEED)
    if which == "default":
        second = confirmed(parts, model, sae, load_sae(SECOND), texts, controls)
    names = ("feature", "odd", "interval", "damage", "p", "q", "verified")
    return {
        "rows": [{name: getattr(row, name) for name in names} for row in parts.causal],
        "n_verified": sum(row.verified for row in parts.causal),
        "n_expected_by_chance": parts.controls.get("expected_by_chance"),
        "second": second,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traits", default=",".join(TRAITS))
    parser.add_argument("--saes", default=",".join(SAES))
    chosen = parser.parse_args()
    for which in chosen.saes.split(","):
        for trait in chosen.traits.split(","):
            found = verdicts(trait, which)
            shown = {name: found[name] for name in ("n_verified", "n_expected_by_chance")}
            print(json.dumps({"trait": trait, "sae": which, **shown}), flush=True)


if __name__ == "__main__":
    main()

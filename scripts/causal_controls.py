"""Compute the control distributions of an SAE's causal view and put them beside the SAE (resumable).

    python scripts/causal_controls.py --traits evil,humorous --sae smollm2-135m-instruct/blocks.15.hook_resid_post
    python scripts/causal_controls.py --traits all --sae runs/saes/controls/4k-soft-frozen --dtype bfloat16

Reads the vectors of `workbench extract` under runs/. One set of control features serves all traits named: it matches, and leaves
out, the 100 features of largest |share| of each of their decompositions. Traits with a distribution already there are skipped.
Some 13 CPU minutes per trait in bfloat16, twice that in float32.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from workbench.decomposition.causal.controls import (
    N_CONTROLS,
    ControlDistribution,
    control_distribution,
    control_key,
    shipped_path,
)
from workbench.decomposition.causal.verdict import features_to_match
from workbench.decomposition.decompose import decompose
from workbench.models.loading import load_model
from workbench.personas.traits import load_trait
from workbench.personas.vectors import PersonaVector
from workbench.saes.registry import load_sae

TRAITS = ("apathetic", "evil", "hallucinating", "humorous", "impolite", "optimistic", "sycophantic")


def main() -> None:
    """Compute and save; prints path and quantiles of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traits", default="all", help="names, or all")
    parser.add_argument("--sae", required=True, help="id or folder of the SAE")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--runs", default="runs", type=Path)
    parser.add_argument("--kl", type=float, default=0.1, help="dose in nats per token on neutral text")
    parser.add_argument("--n-controls", type=int, default=N_CONTROLS)
    parser.add_argument("--order", default="", help="the order in which to go through the traits, for several processes")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()

    traits = TRAITS if chosen.traits == "all" else tuple(chosen.traits.split(","))
    model, sae = load_model(chosen.model, dtype=chosen.dtype), load_sae(chosen.sae)
    if sae.folder is None:
        raise SystemExit("The SAE has no folder to put its controls into: load it from disk.")
    features: dict[int, None] = {}
    for name in traits:
        vector = PersonaVector.load(chosen.runs / f"{name}-{chosen.model}" / "vector")
        features |= dict.fromkeys(features_to_match(decompose(vector, sae, causal=False, seed=chosen.seed)))
    for name in chosen.order.split(",") if chosen.order else traits:
        trait = load_trait(name)
        path = shipped_path(sae.folder, trait.pairs_hash, chosen.kl)
        if path.is_file():
            known = ControlDistribution.load(path)
            known.check(control_key(model, sae, trait, kl=chosen.kl))
            if len(known.features) >= chosen.n_controls:
                print(f"{path} is there ({len(known.features)} controls, {known.settings['dtype']})")
                continue
        found = control_distribution(
            model, sae, trait, features=list(features), n_controls=chosen.n_controls, kl=chosen.kl, seed=chosen.seed
        )
        found.save(path)
        low, middle, high = found.effects.quantile(found.effects.new_tensor([0.05, 0.5, 0.95])).tolist()
        count = f"{len(found.features)} controls"
        print(f"{path}: {count}, effects {low:+.4f} / {middle:+.4f} / {high:+.4f} (5 / 50 / 95%)", flush=True)


if __name__ == "__main__":
    main()

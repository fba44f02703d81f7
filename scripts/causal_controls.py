"""Compute the control distribution of an SAE's causal view and put it beside the SAE (resumable; minutes).

    python scripts/causal_controls.py --decomposition RUN/decomposition --sae smollm2-135m-instruct/blocks.15.hook_resid_post

The controls match the 100 features of largest |share| of the decomposition in that folder.
"""

from __future__ import annotations

import argparse

from workbench.decomposition.causal.controls import N_CONTROLS, control_distribution, shipped_path
from workbench.decomposition.causal.verdict import features_to_match
from workbench.decomposition.result import Decomposition
from workbench.models.loading import load_model
from workbench.personas.traits import load_trait
from workbench.saes.registry import load_sae


def main() -> None:
    """Compute and save; prints the path and the quantiles of the effects."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decomposition", required=True, help="folder of a saved decomposition")
    parser.add_argument("--sae", required=True, help="id or folder of the SAE")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--trait", default="evil")
    parser.add_argument("--kl", type=float, default=0.1, help="dose in nats per token on neutral text")
    parser.add_argument("--n-controls", type=int, default=N_CONTROLS)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()

    model, sae, trait = load_model(chosen.model), load_sae(chosen.sae), load_trait(chosen.trait)
    features = features_to_match(Decomposition.load(chosen.decomposition))
    found = control_distribution(
        model, sae, trait, features=features, n_controls=chosen.n_controls, kl=chosen.kl, seed=chosen.seed
    )
    if sae.folder is None:
        raise SystemExit("The SAE has no folder to put its controls into: load it from disk.")
    path = found.save(shipped_path(sae.folder, trait.pairs_hash, chosen.kl))
    low, middle, high = found.effects.quantile(found.effects.new_tensor([0.05, 0.5, 0.95])).tolist()
    print(f"{path}: {len(found.features)} controls, effects {low:+.4f} / {middle:+.4f} / {high:+.4f} (5 / 50 / 95%)")


if __name__ == "__main__":
    main()

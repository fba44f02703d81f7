"""What the placebo contrasts do to an SAE's features, put beside the SAE so that every decomposition on it has the null.

    workbench extract --all    # samples the placebo contrasts, among all else
    python scripts/placebo_codes.py --placebos runs/placebos-smollm2-135m-instruct --sae SAE

Reads some 350,000 tokens through the model (minutes). A decomposition on an SAE without them makes them for itself.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from workbench.decomposition.placebos import FOLDER, placebo_codes
from workbench.models.loading import load_model
from workbench.saes.registry import load_sae


def main() -> None:
    """Compute and save; prints the path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--placebos", required=True, help="run folder of the placebo contrasts")
    parser.add_argument("--sae", required=True, help="id or folder of the SAE")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    chosen = parser.parse_args()
    sae = load_sae(chosen.sae)
    if sae.folder is None:
        raise SystemExit("The SAE has no folder to put its placebos into: load it from disk.")
    found = placebo_codes(chosen.placebos, load_model(chosen.model), sae)
    print(f"{found.save(Path(sae.folder) / FOLDER)}: {len(found)} contrasts on {sae.id}")


if __name__ == "__main__":
    main()

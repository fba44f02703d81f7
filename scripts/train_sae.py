"""Train an SAE as a YAML recipe says: the same as `workbench sae train`.

python scripts/train_sae.py saes/smollm2-135m-instruct/blocks.15.hook_resid_post/recipe.yaml --out runs/sae
"""

from __future__ import annotations

import sys

from workbench.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["sae", "train"]
    main()

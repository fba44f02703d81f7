"""Runs where steering-vectors is installed: saves a SteeringVector, reads ours, sees which block it changes.

python steering_vectors_side.py FOLDER    # expected.npz, ours.pt -> theirs.pt, theirs_fields.pt, read.npz, measured.json
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from steering_vectors import SteeringVector  # pyright: ignore[reportMissingImports]
from tiny_blocks import first_change, outputs, tiny_llama


def main(folder: Path) -> None:
    expected = {int(name): torch.tensor(vector) for name, vector in np.load(folder / "expected.npz").items()}
    theirs = SteeringVector(layer_activations=expected)
    torch.save(theirs, folder / "theirs.pt")
    torch.save(asdict(theirs), folder / "theirs_fields.pt")
    ours = SteeringVector(**torch.load(folder / "ours.pt", weights_only=True))
    np.savez(folder / "read.npz", **{str(layer): v.numpy() for layer, v in ours.layer_activations.items()})  # pyright: ignore[reportArgumentType]
    model = tiny_llama(max(expected) + 1, len(next(iter(expected.values()))))
    plain, changed = outputs(model, model.model.layers), {}
    for layer, vector in ours.layer_activations.items():
        with SteeringVector(layer_activations={layer: vector}).apply(model):
            changed[layer] = first_change(plain, outputs(model, model.model.layers))
    (folder / "measured.json").write_text(json.dumps({"block_of_layer": changed}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

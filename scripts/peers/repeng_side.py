"""Runs where repeng is installed: writes a control vector with it, reads ours with it, sees which block it changes.

python repeng_side.py FOLDER    # expected.npz {layer: vector} and ours.gguf -> theirs.gguf, read.npz, measured.json;
                                # model.json, weights.pt, tokens.json, only.{name}.gguf -> logits.npz {name: [vocab]}
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from repeng import ControlModel, ControlVector  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]
from tiny_blocks import first_change, outputs, tiny_llama
from transformers import Qwen2Config, Qwen2ForCausalLM


def main(folder: Path) -> None:
    expected = {int(name): vector for name, vector in np.load(folder / "expected.npz").items()}
    ControlVector(model_type="llama", directions=expected).export_gguf(folder / "theirs.gguf")
    ours = ControlVector.import_gguf(folder / "ours.gguf")
    np.savez(folder / "read.npz", **{str(layer): np.array(v) for layer, v in ours.directions.items()})  # pyright: ignore[reportArgumentType]
    n_blocks, d_model = max(expected) + 1, len(next(iter(expected.values())))
    model = tiny_llama(n_blocks, d_model)
    control = ControlModel(model, list(ours.directions))
    plain, changed = outputs(model, model.model.layers), {}
    for layer in ours.directions:
        only = {n: np.array(v) * (n == layer) for n, v in ours.directions.items()}
        control.set_control(ControlVector(model_type="llama", directions=only), 1.0)
        changed[layer] = first_change(plain, outputs(model, model.model.layers))
    (folder / "measured.json").write_text(json.dumps({"block_of_layer": changed}))
    logits = {file.name.split(".")[1]: at_strength_one(folder, file) for file in folder.glob("only.*.gguf")}
    np.savez(folder / "logits.npz", **logits)  # pyright: ignore[reportArgumentType]


def at_strength_one(folder: Path, file: Path) -> np.ndarray:
    """The last token's logits [vocab] of the given model with a file of ours set at strength 1."""
    model = Qwen2ForCausalLM(Qwen2Config(**json.loads((folder / "model.json").read_text()))).eval()
    model.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
    vector = ControlVector.import_gguf(file)
    control = ControlModel(model, list(vector.directions))
    control.set_control(vector, 1.0)
    with torch.no_grad():
        return control(input_ids=torch.tensor([json.loads((folder / "tokens.json").read_text())["tokens"]])).logits[0, -1].numpy()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

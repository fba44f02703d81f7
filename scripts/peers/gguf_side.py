"""Runs where gguf is installed: writes a control vector with its writer, reads ours with its reader.

python gguf_side.py FOLDER    # expected.npz, ours.gguf -> theirs.gguf, read.npz, measured.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from gguf import GGUFReader, GGUFWriter


def main(folder: Path) -> None:
    expected = np.load(folder / "expected.npz")
    writer = GGUFWriter(folder / "theirs.gguf", "controlvector")
    writer.add_string("controlvector.model_hint", "llama")
    writer.add_uint32("controlvector.layer_count", len(expected.files))
    for layer in expected.files:
        writer.add_tensor(f"direction.{layer}", expected[layer])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    read = {
        tensor.name.split(".")[1]: np.array(tensor.data)
        for tensor in GGUFReader(folder / "ours.gguf").tensors
    }
    np.savez(folder / "read.npz", **read)  # pyright: ignore[reportArgumentType]
    (folder / "measured.json").write_text(json.dumps({"block_of_layer": {}}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""An index read from its folder: what must be there, and that nothing was changed since."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from workbench.base.errors import WorkbenchError
from workbench.base.store import read_json, sha256_file
from workbench.base.tensors import load_artifact

KIND, SCHEMA = "feature_index", 2
"""Schema 1 counted the random tokens of the scoring half as the explaining one's: `build_index` counts its pieces anew."""


def is_finished(folder: Path) -> bool:
    """Whether the folder holds an index that was built to its end."""
    return (folder / f"{KIND}.json").is_file()


def read_index(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(document, arrays) of a finished index, hashes verified; the pieces are verified when they are read."""
    if not is_finished(folder):
        begun = (folder / "settings.json").is_file()
        raise WorkbenchError(
            f"{folder} holds {'an index that was not finished' if begun else 'no index of features'}",
            "a folder that `workbench features index` wrote",
            "run that command again: it goes on where it stopped" if begun else "make one with `workbench features index`",
        )
    if schema_of(read_json(folder / f"{KIND}.json")) < SCHEMA:
        raise WorkbenchError(
            f"{folder} holds an index that an older version counted",
            f"an index of schema {SCHEMA}",
            "run `workbench features index` again with the same settings: its pieces are kept, nothing is read through the model",
        )
    document, tensors = load_artifact(folder, KIND, SCHEMA)
    _check(folder, document, tensors)
    return document, {name: tensor.numpy() for name, tensor in tensors.items()}


def schema_of(document: Any) -> int:
    """The schema of an index's JSON or of its settings, which did not name it at first."""
    schema = document.get("schema", 1) if isinstance(document, dict) else SCHEMA
    return schema if type(schema) is int else SCHEMA


def stored_tokenizer(folder: Path) -> Any:
    """The tokenizer that an index keeps beside its texts (JSON, read as data)."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise WorkbenchError(f"{folder} holds no tokenizer", "tokenizer.json, or the model", "open the index with model=")
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_file(str(path)))


def _check(folder: Path, document: Mapping[str, Any], tensors: Mapping[str, Any]) -> None:
    wanted = {"sae", "model", "sizes", "sources", "shards", "files", "key", "vocab_size", "coactivation"}
    arrays = {"pools_fired", "top_token", "spread_token", "random_token"}
    missing = sorted(wanted - set(document)) or sorted(arrays - set(tensors))
    if missing:
        raise WorkbenchError(f"the index in {folder} lacks {missing[0]}", "a complete index", "build it again in another folder")
    for name, known in document["files"].items():
        if Path(name).name != name or not (folder / name).is_file() or sha256_file(folder / name) != known:
            raise WorkbenchError(
                f"{folder / name} is missing or was changed", "the file as it was written", "run `workbench features index` again"
            )

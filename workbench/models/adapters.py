"""Trained adapters on disk, and models that wear one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from ..base.display import Shown
from ..base.errors import WorkbenchError
from ..base.store import read_json, sha256_file
from ..base.untrusted import refuses_damage
from .model import Model, combined_hash, shared_tree
from .quiet import quiet_peft

CARD, WEIGHTS, CONFIG = "finetune.json", "adapter_model.safetensors", "adapter_config.json"
SCHEMA = 1


@dataclass(frozen=True, repr=False)
class Adapter(Shown):
    """A trained adapter on disk and its card: {key, base, data, options, edit, losses, adapter_sha256, versions}.

    `losses` are the nats per reply token of each update, before it.
    """

    folder: Path
    card: Mapping[str, Any]

    @classmethod
    @refuses_damage
    def load(cls, folder: str | os.PathLike[str]) -> Adapter:
        """The adapter in `folder`; WorkbenchError where there is none, or its weights are not those of the card."""
        place = Path(folder)
        card = read_json(place / CARD)
        if not isinstance(card, dict) or card.get("kind") != "finetune" or int(card.get("schema", 0)) > SCHEMA:
            found = f"{place / CARD} describes no adapter of this version"
            raise WorkbenchError(found, "a card that `finetune` wrote", "train again")
        if sha256_file(place / WEIGHTS) != card["adapter_sha256"]:
            found = f"{place / WEIGHTS} is not what its card describes"
            raise WorkbenchError(found, "the files of one adapter", "train it again")
        return cls(place, card)


def require_peft() -> None:
    """Refuse to go on without peft."""
    if find_spec("peft") is None:
        raise WorkbenchError(
            "an adapter was given but peft is not installed",
            "peft",
            "install it with: pip install 'persona-workbench[finetune]'",
        )


def check_adapter(adapter: Path) -> None:
    """Refuse a folder that is no PEFT adapter, and a machine without peft."""
    require_peft()
    if not (adapter / CONFIG).is_file() or not (adapter / WEIGHTS).is_file():
        raise WorkbenchError(
            f"{adapter} does not hold {CONFIG} and {WEIGHTS}",
            "a PEFT adapter folder",
            "pass the folder that PEFT saved",
        )


def with_adapter(hf: Any, adapter: Path) -> Any:
    """The PeftModel of a transformers model and the adapter in a PEFT folder (safetensors; a pickle is never opened)."""
    check_adapter(adapter)
    from peft import PeftModel  # pyright: ignore[reportMissingImports]
    from safetensors import SafetensorError

    try:
        with quiet_peft():
            made = PeftModel.from_pretrained(hf, str(adapter))
        _refuse_strays(made, adapter)
        return made
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise WorkbenchError(
            f"the adapter in {adapter} cannot be put on this model ({reason})",
            "an undamaged PEFT adapter of this very model",
            "load the model that it was trained on, or train it again",
        ) from error


def _refuse_strays(made: Any, adapter: Path) -> None:
    """peft leaves out, without a word, what a model of another family has no place for."""
    from safetensors import safe_open

    with safe_open(adapter / WEIGHTS, framework="pt") as file:
        given = set(file.keys())
    strays = sorted(given - {name.replace(".default.", ".") for name, _ in made.named_parameters()})
    if strays:
        raise KeyError(f"{len(strays)} of its {len(given)} tensors have no place there, {strays[0]} for one")


def check_trained_on(adapter: Path, name: str, weights_hash: str | None) -> None:
    """Refuse an adapter of ours whose card names other weights than those of the model `name`."""
    card = read_json(adapter / CARD) if (adapter / CARD).is_file() else {}
    base = card.get("base", {})
    if None not in (weights_hash, base.get("weights_hash")) and base["weights_hash"] != weights_hash:
        raise WorkbenchError(
            f"the adapter in {adapter} was trained on {base['name']} ({base['weights_hash'][:12]})",
            f"an adapter of {name} ({str(weights_hash)[:12]})",
            "load the model that it was trained on",
        )


def adapter_hash(base_hash: str | None, adapter: Path) -> str:
    """The weights hash of a model with the adapter of that folder merged into it."""
    return combined_hash(base_hash or "", sha256_file(adapter / WEIGHTS))


def finetuned(model: Model, adapter: Adapter | str | os.PathLike[str]) -> Model:
    """`model` with an adapter merged into its weights, as a Model of its own.

    It shares every tensor that the adapter leaves alone, so that both can be used side by side; `model` is not changed, and edits
    in force on it do not reach the new one. Its weights hash is that of `load_model(..., adapter=folder)`. Raises WorkbenchError
    when the adapter was trained on other weights.
    """
    folder = adapter.folder if isinstance(adapter, Adapter) else Path(adapter)
    if (folder / CARD).is_file():
        Adapter.load(folder)  # refuses weights that are not the card's
        check_trained_on(folder, model.name, model.weights_hash)
    made = Model(
        _merged(with_adapter(shared_tree(model.hf), folder)), model.tokenizer, name=f"{model.name}+{folder.name}",
        weights_hash=adapter_hash(model.weights_hash, folder),
        chat_template_kwargs=model.chat_template_kwargs, source="adapter",
        tuned_from=model.tuned_from or {"name": model.name, "weights_hash": model.weights_hash},
    )  # fmt: skip
    made.max_memory = model.max_memory
    return made


def _merged(peft: Any) -> Any:
    """The tree of a PeftModel with the adapter in its weights; those that change become its own first."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for layer in [module for module in peft.modules() if isinstance(module, BaseTunerLayer)]:
        linear = layer.get_base_layer()
        for name, shared in list(linear.named_parameters(recurse=False)):
            setattr(linear, name, nn.Parameter(shared.detach().clone(), requires_grad=False))
    return peft.merge_and_unload()

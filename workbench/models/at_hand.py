"""Where a small file of a model lies, when it is on this machine: nothing is fetched or converted, no weights are read."""

from __future__ import annotations

from pathlib import Path

from workbench.base.settings import cache_dir
from workbench.base.store import sha256_file
from workbench.models import assets


def name_and_adapter(name: str) -> tuple[str, Path | None]:
    """(model, adapter's folder) of "MODEL+FOLDER", the name of a model with a PEFT adapter; (name, None) of any other name.

    What exists under the whole name is that, plus sign or not; of several plus signs the one counts that an adapter follows.
    """
    cuts = [(name[:i], Path(name[i + 1 :]).expanduser()) for i in range(1, len(name) - 1) if name[i] == "+"]
    if not cuts or Path(name).expanduser().exists():
        return name, None
    return next((cut for cut in cuts if (cut[1] / "adapter_config.json").is_file()), cuts[0])


def file_at_hand(name: str, file: str) -> Path | None:
    """`file` (config.json, tokenizer.json) of a catalogue name, a folder, a GGUF file or a hub id; None when it is not here.

    A GGUF file has them once it was loaded: `load_model` keeps what it converts. With an adapter, those of the model below it.
    """
    name, _ = name_and_adapter(name)
    models, path = assets.model_names(), Path(name).expanduser()
    if name in models:
        found = assets.asset_path(models[name]).rglob("*.gguf") if assets.is_cached(models[name]) else iter(())
        path = next(iter(found), path)
    if path.is_file():
        path = cache_dir() / "models" / sha256_file(path)[:16]
    elif not path.is_dir():
        return hub_file(name, file)
    return path / file if (path / file).is_file() else None


def hub_file(name: str, file: str) -> Path | None:
    """`file` of a hub id in the local hub cache; None when it is not there, and for what is no hub id."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, file)
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None

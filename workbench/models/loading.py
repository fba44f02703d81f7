"""Loading a language model: by the catalogue's name, from a folder, from a GGUF file, or from the model hub."""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..base.errors import WorkbenchError, unknown_name
from ..base.progress import track
from ..base.settings import cache_dir, setting
from ..base.sizes import parse_size
from ..base.store import content_hash, describe_os_error, make_folder, sha256_file, write_json
from . import assets
from .adapters import adapter_hash, check_adapter, check_trained_on, with_adapter
from .at_hand import file_at_hand, name_and_adapter
from .memory import check_weights_fit
from .model import Model
from .quiet import quiet_transformers
from .sentencepiece import gguf_tokenizer
from .synthetic import shape_of

DEFAULT_MODEL = "smollm2-135m-instruct"
DTYPES = ("float32", "bfloat16", "float16")
PROMPT_FORMATS = ("chat", "plain")
logger = logging.getLogger(__name__)
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def load_model(
    name: str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    dtype: str = "float32",
    device: str | None = None,
    device_map: Any = None,
    adapter: str | os.PathLike[str] | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    prompt_format: str | None = None,
    max_memory: int | str | None = None,
) -> Model:
    """The model called `name`, ready for hooks: a catalogue name, a local folder, a GGUF file, or a hub id.

    `device` is the GPU when there is one, else the CPU; `device_map` goes to transformers instead for models that
    need several devices. `adapter` is a PEFT folder, merged into the weights; "NAME+FOLDER" as name
    says the same in one word. The first load of a GGUF keeps its
    dequantised weights in the cache folder, so that later loads take seconds. `prompt_format` is "chat" (the
    tokenizer's chat template) or "plain" (Question / Answer as plain text, for base models); by default plain is used
    where there is no chat template, and said in the log. `max_memory` ("12GiB", or bytes) bounds weights, caches,
    activations and logits together, on all devices; batches shrink to fit. The libraries (about half a GiB) are not
    part of it.

    Raises WorkbenchError for an unknown name (nearest names listed), a file that is not what it claims to be,
    an unknown dtype, a model that cannot be fetched, or weights beyond `max_memory` (before they are read).

    >>> model = load_model("smollm2-135m-instruct")        # doctest: +SKIP
    """
    check_dtype(dtype)
    if prompt_format not in (None, *PROMPT_FORMATS):
        raise unknown_name("prompt format", str(prompt_format), PROMPT_FORMATS)
    budget = None if max_memory is None else parse_size(max_memory)
    if adapter is None:
        name, adapter = name_and_adapter(str(name))
    if adapter is not None:
        check_adapter(Path(adapter))
    with track(f"load {Path(name).name}", 1, "models") as step:
        label, folder, weights_hash, source = _locate(str(name))
        if budget is not None:
            check_weights_fit(shape_of(read_config(folder)), dtype, budget, name=label)
        hf, tokenizer = _read(folder, dtype=dtype, device_map=device_map)
        below: dict[str, Any] | None = None
        if adapter is not None:
            below = {"name": label, "weights_hash": weights_hash or _hash_of_hub(hf.config, folder)}
            check_trained_on(Path(adapter), label, below["weights_hash"])
            weights_hash = adapter_hash(below["weights_hash"], Path(adapter))
            hf, label = with_adapter(hf, Path(adapter)).merge_and_unload(), f"{label}+{Path(adapter).name}"
        if device_map is None:
            hf = hf.to(device or _best_device())
        step()
    _set_prompt_format(tokenizer, label, prompt_format)
    model = Model(
        hf,
        tokenizer,
        name=label,
        weights_hash=weights_hash or _hash_of_hub(hf.config, folder),
        chat_template_kwargs=chat_template_kwargs,
        source=source,
        tuned_from=below,
    )
    model.max_memory = budget
    return model


def check_dtype(dtype: str) -> None:
    """Refuse a type of weights that is none of DTYPES."""
    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)


def config_at_hand(name: str) -> tuple[Any, Any] | None:
    """(transformers configuration, tokenizer) of a model whose files are on this machine and readable as they are.

    None otherwise: nothing is fetched or converted, no weights are read. The tokenizer has its prompt format set.
    """
    found = file_at_hand(name, "config.json")
    if found is None:
        return None
    folder = found.parent
    try:
        tokenizer = _read_tokenizer(str(folder))
        config = read_config(str(folder))
    except WorkbenchError:
        return None  # `load_model` says what is wrong with it
    _set_prompt_format(tokenizer, Path(name).name, None)
    return config, tokenizer


def _set_prompt_format(tokenizer: Any, label: str, wanted: str | None) -> None:
    from workbench.models.prompts import PLAIN_TEMPLATE

    has_template = bool(getattr(tokenizer, "chat_template", None))
    if wanted == "plain" or (wanted is None and not has_template):
        if wanted is None:
            logger.info("%s has no chat template: prompts are plain text (Question / Answer).", label)
        tokenizer.chat_template = PLAIN_TEMPLATE


def _locate(name: str) -> tuple[str, str, str | None, str]:
    """(label, folder or hub id, weights hash or None, kind of source) of what `name` means."""
    models = assets.model_names()
    if name in models:
        file = next(iter(assets.asset_path(models[name]).rglob("*.gguf")))
        folder, digest = dequantised(file)
        return name, str(folder), digest, "catalogue"
    path = Path(name).expanduser()
    if path.is_file():
        folder, digest = dequantised(path)
        return path.stem, str(folder), digest, "gguf"
    if path.is_dir():
        return path.resolve().name, str(path), _hash_of_folder(path), "folder"
    if _HUB_ID.fullmatch(name) and not name.startswith("."):
        return name, name, None, "hub"
    raise unknown_name(
        "model", name, models, remedy="a folder, a GGUF file or a hub id (owner/name) serve as well"
    )


def _best_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def read_config(folder: str) -> Any:
    """The transformers configuration of a folder or hub id."""
    from transformers import AutoConfig

    return _from_folder(AutoConfig, folder)


def _read_tokenizer(folder: str) -> Any:
    from transformers import AutoTokenizer

    return _from_folder(AutoTokenizer, folder)


def _read(folder: str, *, dtype: str, device_map: Any) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = _read_tokenizer(folder)
    hf = _from_folder(AutoModelForCausalLM, folder, dtype=getattr(torch, dtype), device_map=device_map)
    return hf, tokenizer


def _from_folder(kind: Any, folder: str, **options: Any) -> Any:
    """What transformers reads from a folder, or from the hub where that may be asked."""
    local = Path(folder).is_dir() or bool(setting("offline"))
    try:
        with quiet_transformers():
            return kind.from_pretrained(folder, local_files_only=local, **options)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise _unreadable(folder, error) from error


def _unreadable(folder: str, error: Exception) -> WorkbenchError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if Path(folder).is_dir():
        return WorkbenchError(
            f"{folder} cannot be read as a model ({reason})",
            "a folder with config.json, tokenizer.json and weights of a causal language model",
            "check the folder, or delete it if it is in the cache and load again",
        )
    known = ", ".join(assets.model_names())
    return WorkbenchError(
        f"the model {folder} is not on this machine and could not be had from the model hub ({reason})",
        f"a reachable hub id, a local folder, a GGUF file, or one of {known}",
        "check the spelling and the network, or download the folder elsewhere and pass its path",
    )


# Hashes


def _hash_of_folder(folder: Path) -> str:
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")])
    if len(files) == 1:
        return sha256_file(files[0])
    return content_hash({file.name: sha256_file(file) for file in files})


def _hash_of_hub(config: Any, folder: str) -> str | None:
    """The hash of a hub model's cached files; None (its tensors are hashed when asked) if they are not found."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(folder, "config.json", revision=getattr(config, "_commit_hash", None))
    return _hash_of_folder(Path(found).parent) if isinstance(found, str) else None


# GGUF


def dequantised(file: Path) -> tuple[Path, str]:
    """(folder, sha256 of the GGUF): the file's weights as float32 safetensors in the cache, converted once.

    Raises WorkbenchError when the file is no GGUF, is cut short, or holds an architecture that transformers would
    misread.
    """
    _check_gguf(file)
    digest = sha256_file(file)
    folder = cache_dir() / "models" / digest[:16]
    if not (folder / "source.json").is_file():
        _convert(file, digest, folder)
    return folder, digest


def _check_gguf(file: Path) -> None:
    with open(file, "rb") as stream:
        magic = stream.read(4)
    if magic != b"GGUF":
        raise WorkbenchError(
            f"{file} is not a GGUF file (it starts with {magic!r})",
            "a GGUF file, whose first four bytes are GGUF",
            "pass a GGUF file or a model folder",
        )


def _convert(file: Path, digest: str, folder: Path) -> None:
    make_folder(folder.parent)
    with track(f"convert {file.name}", 1, "models") as step:
        hf, tokenizer = _read_gguf(file)
        # A folder is complete once it has its final name; until then it is a temporary one beside it.
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            with quiet_transformers():
                hf.save_pretrained(temporary)
                tokenizer.save_pretrained(temporary)
            write_json(temporary / "source.json", {"file": file.name, "sha256": digest, "dtype": "float32"})
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(temporary, folder)
            step()
        except OSError as error:
            raise describe_os_error(error, folder) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _read_gguf(file: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        with quiet_transformers():
            where = {"gguf_file": file.name, "local_files_only": True}
            hf = AutoModelForCausalLM.from_pretrained(str(file.parent), dtype=torch.float32, **where)
            tokenizer = AutoTokenizer.from_pretrained(str(file.parent), **where)
    except ImportError as error:
        raise WorkbenchError(
            f"{file.name} needs the gguf package ({error})", "gguf", "pip install gguf"
        ) from error
    except Exception as error:  # a cut or damaged file fails anywhere inside the parser
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WorkbenchError(
            f"{file} starts like a GGUF file but cannot be read ({reason})",
            "a complete GGUF file of a known architecture",
            "download it again",
        ) from error
    if str(hf.config.model_type).startswith("gemma3"):
        tokenizer = gguf_tokenizer(file)  # transformers takes the scores for those of a unigram model
    # Otherwise save_pretrained refuses: the model still believes that it is quantised.
    del hf.config.quantization_config  # pyright: ignore[reportAttributeAccessIssue]
    hf.hf_quantizer = None  # pyright: ignore[reportArgumentType]
    return hf, tokenizer


__all__ = ["DEFAULT_MODEL", "Model", "dequantised", "load_model"]

"""The SAELens registry, read from the YAML inside the installed package without importing it (which takes seconds).

An entry says where its files are; model, site, width and L0 are read off its names where the registry has no field for
them. The parsed index is kept in the cache, keyed by the hash of the YAML and of the rules here.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from workbench.base.errors import WorkbenchError, unknown_name
from workbench.base.settings import cache_dir
from workbench.base.store import parse_yaml, read_bytes, read_json, sha256_bytes, write_json
from workbench.models.hookpoints import SITES

RULES = 1
"""Raise when the rules below change, so that cached indices are made again."""

_FILES: dict[str, tuple[str, ...]] = {
    "sae_lens": ("{path}/cfg.json", "{path}/sae_weights.safetensors"),
    "gemma_2": ("{path}/params.npz",),
    "gemma_2_transcoder": ("{path}/params.npz",),
    "gemma_3": ("{path}/config.json", "{path}/params.safetensors"),
    "dictionary_learning_1": ("{path}/config.json", "{path}/ae.pt"),
    "sparsify": ("{path}/cfg.json", "{path}/sae.safetensors"),
    "llama_scope": ("{path}/hyperparams.json", "{path}/checkpoints/final.safetensors"),
    "llama_scope_r1_distill": ("{path}/config.json", "{path}/sae_weights.safetensors"),
    "temporal": ("{path}/conf.yaml", "{path}/latest_ckpt.safetensors"),
    "mntss_clt_layer_transcoder": ("config.yaml", "W_enc_{path}.safetensors", "W_dec_{path}.safetensors"),
}
"""What SAELens' loaders download, by the registry's `conversion_func`; the path itself is the file elsewhere."""

_NO_SAE = ("transcoder", "temporal", "clt")
_LETTERS = {"r": "hook_resid_post", "a": "hook_attn_out", "m": "hook_mlp_out", "tc": "hook_mlp_in"}
_WORDS = {
    "resid_post": "hook_resid_post",
    "attn_out": "attn.hook_z",
    "mlp_out": "hook_mlp_out",
    "transcoder": "hook_mlp_in",
    "clt": "hook_mlp_in",
}
_ENDINGS = {"res": "hook_resid_post", "mlp": "hook_mlp_out", "att": "attn.hook_z", "transcoders": "hook_mlp_in"}


@dataclass(frozen=True)
class PublishedSae:
    """One SAE of the registry; fields are None where neither the registry nor a name tells them."""

    release: str
    sae_id: str
    repo: str
    path: str
    conversion: str
    model: str
    hook: str | None
    d_sae: int | None
    l0: float | None
    variance_explained: float | None
    neuronpedia: str | None

    @property
    def id(self) -> str:
        """The name that `load_sae` takes."""
        return f"{self.release}/{self.sae_id}"

    @property
    def files(self) -> tuple[str, ...]:
        """What is downloaded, as paths in the repository."""
        if self.conversion == "gemma_3" and "clt" in self.path:
            return (f"{self.path}.safetensors",)
        if self.conversion == "connor_rob_hook_z":
            return (self.path, self.path.split(".pt")[0] + "_cfg.json")
        return tuple(name.format(path=self.path) for name in _FILES.get(self.conversion, ("{path}",)))

    @property
    def readable(self) -> bool:
        """Whether it is an SAE at a site that the workbench reads, as far as names tell."""
        site = (self.hook or "").split(".", 2)[-1]
        no_sae = any(word in text for word in _NO_SAE for text in (self.conversion, self.path, self.release))
        return not no_sae and (self.hook is None or site in SITES)


@functools.cache
def published() -> tuple[PublishedSae, ...]:
    """Every SAE of the installed SAELens' registry; WorkbenchError when SAELens is not installed."""
    source = _registry_file()
    text = read_bytes(source)
    kept = cache_dir() / "registry" / f"{sha256_bytes(text + str(RULES).encode())[:24]}.json"
    rows = _kept_rows(kept)
    if rows is None:
        rows = [asdict(entry) for entry in _parsed(parse_yaml_fast(text.decode("utf-8"), source))]
        with contextlib.suppress(WorkbenchError):  # a cache that cannot be written costs time, nothing else
            write_json(kept, rows)
    return tuple(PublishedSae(**row) for row in rows)


def _kept_rows(kept: Path) -> list[dict[str, Any]] | None:
    names = set(PublishedSae.__dataclass_fields__)
    try:
        rows = read_json(kept) if kept.is_file() else None
    except WorkbenchError:  # damaged: made again
        return None
    return rows if isinstance(rows, list) and rows and all(set(row) == names for row in rows) else None


def releases() -> list[dict[str, Any]]:
    """The registry's releases: {"release", "model", "repo", "n_saes", "sites"}."""
    found: dict[str, dict[str, Any]] = {}
    for entry in published():
        row = found.setdefault(
            entry.release, {"release": entry.release, "model": entry.model, "repo": entry.repo, "n_saes": 0, "sites": []}
        )
        row["n_saes"] += 1
        site = (entry.hook or "unknown").split(".", 2)[-1]
        if site not in row["sites"]:
            row["sites"].append(site)
    return list(found.values())


def find_published(id: str) -> PublishedSae | None:
    """The registry's entry release/sae_id; None when there is none, or no SAELens. An unknown id of a known release
    is an error that lists the nearest."""
    release, _, sae_id = id.partition("/")
    try:
        entries = [entry for entry in published() if entry.release == release]
    except WorkbenchError:
        return None
    found = next((entry for entry in entries if entry.sae_id == sae_id), None)
    if entries and found is None:
        raise unknown_name(f"SAE of {release} with the id", sae_id, [entry.sae_id for entry in entries])
    return found


def _registry_file() -> Path:
    spec = importlib.util.find_spec("sae_lens")
    origin = Path(spec.origin).parent / "pretrained_saes.yaml" if spec and spec.origin else None
    if origin is None or not origin.is_file():
        raise WorkbenchError(
            "SAELens is not installed" if origin is None else f"SAELens has no registry at {origin}",
            "the registry of published SAEs inside the package sae-lens",
            "install it with: pip install 'sae-lens>=6.54.9,<7'",
        )
    return origin


def parse_yaml_fast(text: str, source: Path) -> Any:
    """The object in YAML `text`, by libyaml where PyYAML was built with it (0.8 s for the registry, else 8 s)."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", None)
    try:
        return yaml.load(text, Loader=loader) if loader else parse_yaml(text, name=str(source))
    except yaml.YAMLError as error:
        raise WorkbenchError(f"{source} is not valid YAML", "SAELens' registry", "install sae-lens again") from error


def _parsed(releases: Mapping[str, Any]) -> list[PublishedSae]:
    return [_entry(name, release, sae) for name, release in releases.items() for sae in release.get("saes") or []]


def _entry(name: str, release: Mapping[str, Any], sae: Mapping[str, Any]) -> PublishedSae:
    sae_id, path = str(sae["id"]), str(sae["path"])
    conversion = str(release.get("conversion_func") or "sae_lens")
    repo, neuronpedia = str(release["repo_id"]), sae.get("neuronpedia")
    return PublishedSae(
        release=name,
        sae_id=sae_id,
        repo=repo,
        path=path,
        conversion=conversion,
        model=str(release["model"]),
        hook=hook_of(name, sae_id, path, conversion),
        d_sae=width_of((str(neuronpedia or ""), path, sae_id, name, repo)),
        l0=_number(sae.get("l0")) or _first_number(r"l0_(\d+)(?!\w)", (path, sae_id, repo)),
        variance_explained=_number(sae.get("variance_explained")),
        neuronpedia=neuronpedia,
    )


def hook_of(release: str, sae_id: str, path: str, conversion: str) -> str | None:
    """The hook point that an entry's names tell, in TransformerLens' words (also of sites that are not read here)."""
    for text in (sae_id, path):
        if match := re.search(r"blocks\.(\d+)\.((?:attn\.|mlp\.)?hook_[a-z]+(?:_[a-z]+)*)", text):
            return f"blocks.{match[1]}.{match[2]}"
        if match := re.search(r"(resid_post|attn_out|mlp_out)_layer_(\d+)", text):
            return f"blocks.{match[2]}.{_WORDS[match[1]]}"
    if conversion.startswith("llama_scope"):
        match = re.match(r"l(\d+)(tc|[ram])(?:_|$)", sae_id)
        return f"blocks.{match[1]}.{_LETTERS[match[2]]}" if match else None
    if "embedding" in path:
        return "hook_embed"
    layer = re.search(r"layer_?(\d+)", path) or re.search(r"layer_?(\d+)", sae_id) or re.search(r"(?:^|\D)l(\d+)(?:\D|$)", path)
    site = _site(release, path, conversion)
    number = layer[1] if layer else path if path.isdecimal() else None
    return f"blocks.{number}.{site}" if site and number is not None else None


def _site(release: str, path: str, conversion: str) -> str | None:
    if conversion == "gemma_3":
        return next((site for word, site in _WORDS.items() if path.startswith(word)), None)
    if "transcoder" in conversion:
        return "hook_mlp_in"
    if conversion in ("qwen_scope", "goodfire", "deepseek_r1"):
        return "hook_resid_post"
    if conversion == "gemma_2":
        ending = release.removesuffix("-canonical").rsplit("-", 1)[-1]
        return _ENDINGS.get(ending)
    return None


_WIDTHS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"width[_-](?P<k>\d+)k",
        r"width[_-](?P<m>\d+)m",
        r"2pow(?P<power>\d+)",
        r"(?<![a-z])w(?P<k>\d+)k",
        r"[_-](?P<k>\d+)k(?![a-z0-9])",
        r"(?:ds|_)(?P<plain>\d{3,6})(?=[:_]|$)",
    )
)


def width_of(texts: tuple[str, ...]) -> int | None:
    """The number of features that the first telling name states: width_16k, 2pow12, W32K, v5_128k, ds24576."""
    for pattern in _WIDTHS:
        for text in texts:
            if match := pattern.search(text):
                (unit, number), *_ = match.groupdict().items()
                return _WIDTH_IN[unit](int(number))
    return None


def thousands(number: int) -> int:
    """What is meant by "k": 1,024, except where thousands of a power of two are (65k is 65,536; 80k is 81,920)."""
    if number < 1:
        return 0
    power = 1 << round(math.log2(number * 1000))
    return power if abs(number * 1000 / power - 1) < 0.025 else number * 1024


_WIDTH_IN: dict[str, Callable[[int], int]] = {
    "k": thousands,
    "m": lambda number: number << 20,
    "power": lambda number: 1 << number,
    "plain": lambda number: number,
}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0 else None


def _first_number(pattern: str, texts: tuple[str, ...]) -> float | None:
    found = (re.search(pattern, text, re.IGNORECASE) for text in texts)
    return next((float(match[1]) for match in found if match), None)

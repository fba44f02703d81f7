"""What the main job reads, named by hash without loading any of it: the model, the SAE, the labels on the shelf."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError, unknown_name
from workbench.base.store import content_hash, sha256_file

if TYPE_CHECKING:
    from workbench.models.hookpoints import HookPoint
    from workbench.saes.registry import SaeEntry

OFF_SHELF = "local/"


@dataclass(frozen=True)
class SaeSite:
    """An SAE as the job needs it before loading it: its id, where it reads, what to load, the hash of its files."""

    id: str
    hook: str
    reference: str
    sha256: str


def model_identity(name: str) -> dict[str, Any]:
    """What tells one model's weights from another's without reading them all.

    Of a catalogue name the recorded hash; of a file or folder the names, sizes and times of its files; of a hub id the id.
    Raises WorkbenchError for a name that is none of these (nearest catalogue names listed).
    """
    from workbench.models.assets import find_asset, model_names
    from workbench.models.at_hand import name_and_adapter

    model, adapter = name_and_adapter(name)
    if adapter is not None:
        return {"model": model_identity(model), "adapter": model_identity(str(adapter))}
    known = model_names()
    if name in known:
        return {"name": name, "sha256": find_asset(known[name]).tree_sha256}
    path = Path(name).expanduser()
    if path.exists():
        files = [path] if path.is_file() else sorted(f for f in path.iterdir() if f.is_file())
        return {"path": str(path.resolve()), "files": [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files]}
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.startswith(".") and not name.endswith(".gguf"):
        return {"hub": name}
    raise unknown_name("model", name, known, remedy="a folder, a GGUF file or a hub id (owner/name) serve as well")


def check_block(model: str, hook: HookPoint | None) -> None:
    """Refuse a hook point in a block that the model does not have, where its configuration is at hand."""
    if hook is None:
        return
    from workbench.models.blocks import n_blocks_of

    n_blocks = n_blocks_of(model)
    if n_blocks is not None and hook.block >= n_blocks:
        raise WorkbenchError(
            f"{hook} does not exist in {model}, which has {n_blocks} blocks",
            f"a block from 0 to {n_blocks - 1}",
            "choose another hook point with --hook (blocks are counted from 0)",
        )


def find_sae(reference: str | None, model: str) -> SaeSite:
    """The SAE of an id or a folder; None takes the first on the shelf that reads this model.

    A folder off the shelf gets the id local/<name>-<hash>, which labels can be filed under.
    """
    from workbench.saes import registry

    entry = registry.find_sae(reference or _default_sae(registry.list_saes(), model))
    sha256 = _sae_hash(entry.folder)
    on_shelf = any(known.id == entry.id for known in registry.list_saes())
    name = re.sub(r"[^A-Za-z0-9._-]", "-", entry.folder.resolve().name).lstrip("._-")
    return SaeSite(
        id=entry.id if on_shelf else f"{OFF_SHELF}{name or 'sae'}-{sha256[:8]}",
        hook=str(entry.hook),
        reference=str(entry.folder),
        sha256=sha256,
    )


def require_fit_sae(site: SaeSite) -> None:
    """Refuse an SAE whose card fails the fitness gate, or says nothing that is of its weights."""
    from workbench.saes.evaluation.gate import check_fitness, require_fit
    from workbench.saes.registry import load_sae

    # The id of an SAE off the shelf is made up here: no command knows it, but all take its folder.
    require_fit(site.reference if site.id.startswith(OFF_SHELF) else site.id, check_fitness(load_sae(site.reference)))


def _sae_hash(folder: Path) -> str:
    # Not the whole folder: a run may add control distributions beside the card, and is not outdated by its own work.
    files = [folder / name for name in ("cfg.json", "card.json")] + sorted(folder.glob("*.safetensors"))
    return content_hash([[file.name, sha256_file(file)] for file in files if file.is_file()])


def has_sae(model: str) -> bool:
    """Whether the shelf holds an SAE that reads this model."""
    from workbench.saes.registry import list_saes

    return bool(_fitting(list_saes(), model))


def _fitting(entries: Iterable[SaeEntry], model: str) -> list[str]:
    from workbench.models.at_hand import name_and_adapter

    below, _ = name_and_adapter(model)  # an SAE of the model is what its fine-tunes are read with
    return [entry.id for entry in entries if entry.model in (below, Path(below).name)]


def _default_sae(entries: Iterable[SaeEntry], model: str) -> str:
    from workbench.saes.registry import DEFAULT

    fitting = _fitting(entries, model)
    if not fitting:
        raise WorkbenchError(
            f"there is no SAE on the shelf for the model {model!r}",
            "an SAE that reads this model's activations",
            "give one with --sae, or train one with `workbench sae train CONFIG.yaml`",
        )
    return DEFAULT if DEFAULT in fitting else fitting[0]


def folder_hash(folder: Path, pattern: str = "*") -> str:
    """The content hash of the names and bytes of a folder's files."""
    files = sorted(file for file in folder.rglob(pattern) if file.is_file()) if folder.is_dir() else []
    return content_hash([[file.relative_to(folder).as_posix(), sha256_file(file)] for file in files])


def placebos_hash(folder: Path) -> str | None:
    """The hash of the placebo vectors in `folder`, without the rollouts behind them; None when there are none."""
    file = folder / "placebo_vectors.json"  # it holds the hash of its tensors
    return sha256_file(file) if file.is_file() else None


def labels_hash(sae_id: str) -> str:
    """The hash of the labels that can be found for an SAE (of nothing when there are none)."""
    from workbench.labeling.files.store import label_folders

    found = [root / sae_id for root in label_folders() if (root / sae_id).is_dir()]
    return content_hash([folder_hash(folder, "*.yaml") for folder in found])  # not what annotators leave beside them


def check_choice(choose: str | None, hook: str | None, trait: Any) -> None:
    """Refuse a way to choose the block that is unknown, that the trait has no pairs for, or that stands beside a hook."""
    if choose is None:
        return
    from workbench.personas.layers import check_choice as check

    check(choose, trait)
    if hook not in (None, "auto"):
        raise WorkbenchError(f"both a hook ({hook}) and a way to choose one ({choose})", "one of the two",
                             "leave out --hook or --choose-layer")  # fmt: skip

"""What the shell offers after a Tab: names that can be found without loading a model. Whatever goes wrong offers nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path


def _completer(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        try:
            return sorted(name for name in set(names()) if name.startswith(incomplete))
        except Exception:  # a broken settings file, a folder without permission: no terminal should see a traceback after a Tab
            return []

    return complete


def _traits() -> Iterable[str]:
    from workbench.personas.traits import list_traits

    return list_traits()


def _models() -> Iterable[str]:
    from workbench.models.assets import model_names

    return model_names()


def _assets() -> Iterable[str]:
    from workbench.models.assets import list_assets

    return [*_models(), *(asset.name for asset in list_assets())]


def _saes() -> Iterable[str]:
    from workbench.saes.registry import list_saes

    return [entry.id for entry in list_saes()]


def _runs() -> Iterable[str]:
    from workbench.base.runs import MANIFEST

    return [str(manifest.parent) for manifest in Path("runs").glob(f"*/{MANIFEST}")]


def _label_folders() -> Iterable[str]:
    found = [Path("feature_labels"), *Path("runs").glob("*/labels")]
    return [str(folder) for folder in found if folder.is_dir()]


def _caches() -> Iterable[str]:
    from .house.cache_items import items

    return [item.name for item in items()]


def _settings() -> Iterable[str]:
    from workbench.base.settings import SETTINGS

    return SETTINGS


traits, models, assets, saes, runs = map(_completer, (_traits, _models, _assets, _saes, _runs))
judges = _completer(lambda: ("offline", "offline-outcome", "openai", "anthropic", "local", "none"))
label_folders = _completer(_label_folders)

# Parameters by name, or by command and name; the shell completes file names where nothing is offered.
COMPLETERS = {
    "trait": traits,
    "traits": traits,
    "model": models,
    "sae": saes,
    "other_seed": saes,
    "run": runs,
    "judge": judges,
    "explainer": _completer(lambda: ("offline", "openai", "anthropic", "local")),
    "dtype": _completer(lambda: ("float32", "bfloat16", "float16")),
    "device": _completer(lambda: ("cpu", "cuda", "auto")),
    "transfer to": models,
    "features trait name": traits,
    "falsify vector": _completer(lambda: [*_traits(), *_runs()]),
    "steer vector": _completer(lambda: [*_traits(), *_runs()]),
    "falsify reference": runs,
    "audit second": saes,
    "features index rollouts": runs,
    "vectors export folder": runs,
    "vectors show place": runs,
    "decompositions compare folders": runs,
    "labels explain source": runs,
    "labels check folder": label_folders,
    "labels migrate folder": label_folders,
    "labels export folder": label_folders,
    "labels score folder": label_folders,
    "labels diff before": label_folders,
    "labels diff after": label_folders,
    "labels merge ours": label_folders,
    "labels merge theirs": label_folders,
    "models fetch names": assets,
    "serve runs": runs,
    "runs show run": runs,
    "runs resume run": runs,
    "runs compare first": runs,
    "runs compare second": runs,
    "runs clean names": runs,
    "cache clean names": _completer(_caches),
    "config set key": _completer(_settings),
}

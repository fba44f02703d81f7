"""The dependencies, audited: vulnerabilities, yanked pins, what is imported and declared, and the hashes of what is fetched.

    python scripts/audit_dependencies.py             # all of it
    python scripts/audit_dependencies.py --offline   # what needs no network

pins             every dependency that pyproject.toml declares has a pin in constraints.txt, and it satisfies what is declared
imports          whatever the package imports is declared (dependencies or extras), and every declared dependency is imported,
                 or listed here with why it is there
unused_pins      pins that no declared dependency asks for, however far down; judged from the installed packages
assets           every wheel and every asset of the catalogue has a SHA-256
yanked           pins that the package index has withdrawn since, by pip's own report
vulnerabilities  what pip-audit says of the pins, in an environment of its own

Prints JSON: each part has `state` ("passed", "failed" or "not checked") and what was found. What could not be reached is *not
checked*, never passed. Exit code 1 when a part failed.
"""

from __future__ import annotations

import argparse
import ast
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
NOT_IMPORTED = {
    "accelerate": "transformers places a model on several devices with it",
    "einops": "asked for by code of model families that transformers loads",
    "ipykernel": "runs notebooks", "jupyterlab": "opens notebooks",
    "jinja2": "transformers renders chat templates with it", "markupsafe": "jinja2 escapes with it",
    "sae-lens": "read by name, where it is installed", "tensorboard": "torch writes its files with it",
    "tokenizers": "transformers tokenizes with it",
}  # fmt: skip
"""Declared though nothing here imports it, and why."""
TOOLING = ("dev", "docs")
"""Extras that are programs, not libraries of the package."""


def declared() -> dict[str, dict[str, Requirement]]:
    """{"" or the extra: {name: requirement}}."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    return {group: {canonicalize_name(one.name): one for one in map(Requirement, listed)} for group, listed in groups.items()}


def pins() -> dict[str, str]:
    """{name: version} of constraints.txt."""
    lines = [line.strip().split(";")[0] for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines()]
    parts = [line.partition("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): version.strip() for name, _, version in parts if version}


def check_pins() -> dict[str, Any]:
    """Declared dependencies without a pin, and pins outside of what is declared."""
    fixed = pins()
    listed = [(name, one) for group in declared().values() for name, one in group.items() if name != "persona-workbench"]
    missing = sorted({name for name, _ in listed if name not in fixed})
    pinned = [(one, fixed[name]) for name, one in listed if name in fixed]
    outside = sorted({f"{one}: pinned {version}" for one, version in pinned if version not in one.specifier})
    return {**_state(not missing and not outside), "n_pins": len(fixed), "without_pin": missing, "outside": outside}


def check_imports() -> dict[str, Any]:
    """Imports that nothing declares, and declared libraries that nothing imports."""
    owners = importlib.metadata.packages_distributions()
    imported = {name.split(".")[0] for file in (ROOT / "workbench").rglob("*.py") for name in _imports(file)}
    foreign = imported - set(sys.stdlib_module_names) - {"workbench"}
    groups = declared()
    known = {name for group in groups.values() for name in group}
    undeclared = {}
    for module in sorted(foreign):
        names = {canonicalize_name(owner) for owner in owners.get(module, [module])}
        if not names & known:
            undeclared[module] = sorted(names)
    used = {canonicalize_name(owner) for module in foreign for owner in owners.get(module, [module])}
    libraries = {name for group, one in groups.items() if group not in TOOLING for name in one}
    unused = sorted(libraries - used - set(NOT_IMPORTED))
    found = {"n_imported": len(foreign), "undeclared": undeclared, "not_imported": unused}
    return {**_state(not undeclared and not unused), **found, "needed_otherwise": NOT_IMPORTED}


def _imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def check_unused_pins() -> dict[str, Any]:
    """Pins that are reached from no declared dependency, over the requirements of the installed packages."""
    waiting, seen = [(name, one.extras) for group in declared().values() for name, one in group.items()], set()
    while waiting:
        name, extras = waiting.pop()
        if (name, frozenset(extras)) in seen:
            continue
        seen.add((name, frozenset(extras)))
        try:
            requirements = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for one in map(Requirement, requirements):
            asked = any(one.marker.evaluate({"extra": extra}) for extra in ("", *extras)) if one.marker else True
            if asked:
                waiting.append((canonicalize_name(one.name), one.extras))
    reached = {name for name, _ in seen}
    unknown = sorted(name for name in reached if name != "persona-workbench" and not _installed(name))
    unused = sorted(name for name in pins() if name not in reached and _installed(name))
    absent = sorted(name for name in pins() if name not in reached and not _installed(name))
    return {**_state(not unused), "unused": unused, "cannot_be_judged": absent, "not_installed": unknown}


def _installed(name: str) -> bool:
    return any(True for _ in importlib.metadata.Distribution.discover(name=name))


def check_assets() -> dict[str, Any]:
    """Wheels and assets of the catalogue without a SHA-256."""
    sys.path.insert(0, str(ROOT))
    from workbench.models.catalogue import CATALOGUE

    def good(text: str) -> bool:
        return re.fullmatch(r"[0-9a-f]{64}", text) is not None

    bad = [wheel.stem for asset in CATALOGUE for wheel in asset.wheels if not good(wheel.sha256)]
    bad += [asset.name for asset in CATALOGUE if not good(asset.tree_sha256)]
    n_wheels = sum(len(asset.wheels) for asset in CATALOGUE)
    return {**_state(not bad), "n_assets": len(CATALOGUE), "n_wheels": n_wheels, "without_hash": bad}


def check_yanked() -> dict[str, Any]:
    """Pins that are withdrawn from the package index, by `pip install --dry-run --report`; nothing is installed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "-q", "--dry-run", "--ignore-installed", "--no-deps"]
        command += ["--report", str(report), "-r", str(CONSTRAINTS)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return {"state": "not checked", "why": "pip could not read all pins: " + _last(done.stderr)}
        items = json.loads(report.read_text())["install"]
    asked = {canonicalize_name(item["metadata"]["name"]): bool(item.get("is_yanked")) for item in items}
    yanked = sorted(name for name, gone in asked.items() if gone)
    return {**_state(not yanked), "n_asked": len(asked), "yanked": yanked}


def check_vulnerabilities() -> dict[str, Any]:
    """pip-audit on the pins, in an environment of its own; what it skipped is said."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = str(Path(folder) / ("Scripts" if os.name == "nt" else "bin") / "python")
        done = subprocess.run([python, "-m", "pip", "install", "-q", "pip-audit"], capture_output=True, text=True)
        if done.returncode:
            return {"state": "not checked", "why": "pip-audit could not be installed: " + _last(done.stderr)}
        command = [python, "-m", "pip_audit", "-r", str(CONSTRAINTS), "--no-deps", "--disable-pip", "-f", "json"]
        done = subprocess.run([*command, "--progress-spinner", "off"], capture_output=True, text=True)
    try:
        listed = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        return {"state": "not checked", "why": "the vulnerability service could not be asked: " + _last(done.stderr)}
    skipped = {one["name"]: one["skip_reason"] for one in listed if "skip_reason" in one}
    bad = {f"{one['name']} {one['version']}": [v["id"] for v in one["vulns"]] for one in listed if one.get("vulns")}
    n_asked = len(listed) - len(skipped)
    if bad or not skipped:
        return {**_state(not bad), "n_asked": n_asked, "vulnerable": bad, "skipped": skipped}
    why = f"the vulnerability service gave an answer for {n_asked} of {len(listed)} pins"
    return {"state": "not checked", "why": why, "for_one": next(iter(skipped.values()))}


def _state(passed: bool) -> dict[str, Any]:
    return {"state": "passed" if passed else "failed"}


def _last(text: str) -> str:
    """The last line of a program's errors, without addresses."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return re.sub(r"https?://\S+|host='[^']*'", "(address)", lines[-1])[:300] if lines else "no reason was given"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--offline", action="store_true", help="nothing that asks the network")
    options = parser.parse_args()
    found = {"pins": check_pins(), "imports": check_imports(), "unused_pins": check_unused_pins(), "assets": check_assets()}
    for name, check in {"yanked": check_yanked, "vulnerabilities": check_vulnerabilities}.items():
        found[name] = {"state": "not checked", "why": "--offline"} if options.offline else check()
    print(json.dumps(found, indent=1))
    return int(any(one["state"] == "failed" for one in found.values()))


if __name__ == "__main__":
    raise SystemExit(main())

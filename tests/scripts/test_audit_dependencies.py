"""What the package imports is declared, what is declared is pinned and used, and whatever is fetched has a hash."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_dependencies_of_this_checkout_pass_without_the_network():
    command = [sys.executable, str(ROOT / "scripts" / "audit_dependencies.py"), "--offline"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)
    assert done.returncode == 0, found
    assert {name: one["state"] for name, one in found.items()} == {
        "pins": "passed", "imports": "passed", "unused_pins": "passed", "assets": "passed",
        "yanked": "not checked", "vulnerabilities": "not checked",
    }  # fmt: skip


def test_an_import_that_nobody_declared_and_a_pin_outside_of_its_range_are_found(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    script = importlib.import_module("audit_dependencies")
    (tmp_path / "workbench").mkdir()
    (tmp_path / "workbench" / "a.py").write_text("import numpy\nfrom pytest import mark\nimport os\n")
    project = '[project]\ndependencies = ["numpy>=2", "zstandard>=1"]\noptional-dependencies = {}\n'
    (tmp_path / "pyproject.toml").write_text(project)
    (tmp_path / "constraints.txt").write_text("# versions\nnumpy==1.9\n")
    monkeypatch.setattr(script, "ROOT", tmp_path)
    monkeypatch.setattr(script, "CONSTRAINTS", tmp_path / "constraints.txt")
    pins, imports = script.check_pins(), script.check_imports()
    assert pins["state"] == "failed" and pins["without_pin"] == ["zstandard"] and pins["outside"] == ["numpy>=2: pinned 1.9"]
    assert imports["undeclared"] == {"pytest": ["pytest"]} and imports["not_imported"] == ["zstandard"]


@pytest.mark.stress
def test_the_oldest_versions_that_are_allowed_pass_the_tests_of_the_base():
    command = [sys.executable, str(ROOT / "scripts" / "versions_check.py"), "--only", "minimum", "--tests", "tests/base"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=3000)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]

"""What the documents say is what the evidence files say, and their links lead somewhere."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_figures_in_docs_are_those_of_the_evidence_files() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/fill_docs.py", "--check"], cwd=ROOT, capture_output=True, text=True, env=_environment()
    )
    assert done.returncode == 0, f"run `python scripts/fill_docs.py`: {done.stdout}{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_inside_the_repository_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "evidence").glob("*.json")), ids=lambda path: path.name)
def test_every_evidence_file_says_how_it_was_made(path: Path) -> None:
    header = json.loads(path.read_text(encoding="utf-8"))["_made"]
    assert set(header) >= {"command", "seed", "versions", "cpu", "seconds", "code_commit", "inputs"}


def test_the_readme_names_only_commands_that_exist() -> None:
    from typer.main import get_command

    from workbench.cli.app import app

    known = get_command(app).commands  # type: ignore[attr-defined]
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = {word for match in re.findall(r"workbench ((?:[a-z]+\|?)+)", text) for word in match.split("|") if word}
    assert named & set(known)
    assert named - {"as", "says"} <= set(known), named - set(known)  # `import workbench as wb`, "the workbench says"


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(ROOT)}

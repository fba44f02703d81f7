from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cli.shelf import write_sae
from workbench.cli.run import run
from workbench.saes import registry

MODEL = "smollm2-135m-instruct"


@dataclass(frozen=True)
class Answer:
    """What a command left: its exit code and both streams."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def workbench(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    """`workbench("traits", "list")` runs the command in an empty working folder and gives its Answer."""
    home = tmp_path / "working-folder"
    home.mkdir()
    monkeypatch.chdir(home)

    def call(*arguments: str | Path) -> Answer:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        return Answer(code, *capsys.readouterr())

    return call


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shelf with one small SAE for the default model; returns its folder of SAEs."""
    folder = tmp_path / "shelf"
    write_sae(folder / "saes" / MODEL / "blocks.1.hook_resid_post", model=MODEL)
    # The shipped SAEs stay out of sight, so that these tests mean the same whatever lies on the shelf of the checkout.
    monkeypatch.setattr(registry, "shelf_folders", lambda kind="saes": [folder / kind])
    return folder / "saes"

"""The parts of a finished extraction: one that was cut is told and made again, one that was cleaned away is not missed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.tiny_job import write_tiny_job
from workbench.base.runs import read_manifest
from workbench.cli.house.run_shelf import Run
from workbench.cli.run import run


def extracted(folder: Path) -> int:
    places = {"--model": "model", "--sae": "sae", "--out": "run"}
    given = [word for flag, name in places.items() for word in (flag, str(folder / name))]
    return run(["extract", str(folder / "traits" / "evil"), *given, "--hook", "blocks.1.hook_resid_post", "--judge", "none",
                "--max-new-tokens", "6", "-q"])  # fmt: skip


def parts_of(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for kind in ("rollouts", "activations") for file in (folder / "run" / kind).glob("part-*")}


def test_a_cut_part_of_a_finished_extraction_is_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tiny_job(tmp_path)
    assert extracted(tmp_path) == 0
    parts = parts_of(tmp_path)
    assert len({file.parent for file in parts}) == 2
    for file, content in parts.items():
        if file.name.startswith("part-00000"):
            os.truncate(file, len(content) // 2)
            capsys.readouterr()
            if extracted(tmp_path):  # answers are never thrown away unasked
                assert str(file) in (said := capsys.readouterr().err) and "what to do: delete" in said
                file.unlink()
                assert extracted(tmp_path) == 0
            assert file.read_bytes() == content, file


def test_parts_that_were_cleaned_away_are_not_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_job(tmp_path)
    assert extracted(tmp_path) == 0
    assert run(["runs", "clean", str(tmp_path / "run"), "--yes"]) == 0
    assert {file.suffix for file in parts_of(tmp_path)} == {".parquet"} and not (tmp_path / "run" / "without_system").exists()
    monkeypatch.setattr("workbench.models.loading.load_model", lambda *_, **__: pytest.fail("the model was asked again"))
    assert extracted(tmp_path) == 0
    assert list(Run(tmp_path / "run", read_manifest(tmp_path / "run" / "manifest.json")).stages) == ["vector"]

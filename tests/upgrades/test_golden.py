"""Artefacts of every schema that was ever written are read today, with the values they had; newer ones say what to install."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.hostile.readers import outcome
from tests.upgrades.making import GOLDEN, KINDS, expected, reader_of
from workbench.base.errors import WorkbenchError

FOLDERS = sorted(path.name for path in GOLDEN.iterdir())


@pytest.mark.parametrize("name", FOLDERS)
def test_an_old_artefact_is_read_with_the_values_it_had(name: str, tmp_path: Path) -> None:
    kind = name.rpartition("-")[0]
    folder = shutil.copytree(GOLDEN / name, tmp_path / "kept")
    assert expected(kind, folder) == json.loads((folder / "expected.json").read_text(encoding="utf-8"))


def test_every_schema_up_to_the_present_one_has_its_files() -> None:
    wanted = {f"{kind}-{schema}" for kind, one in KINDS.items() for schema in range(one.first, one.schema + 1)}
    assert wanted - set(FOLDERS) <= {"label-1"}, "python -m tests.upgrades.making writes those that are missing"
    assert set(FOLDERS) <= wanted


@pytest.mark.parametrize("kind", KINDS)
def test_a_newer_schema_names_the_way_out(kind: str, tmp_path: Path) -> None:
    folder = shutil.copytree(GOLDEN / f"{kind}-{KINDS[kind].schema}", tmp_path / "kept")
    for file in [path for path in folder.rglob("*") if path.suffix in (".json", ".yaml") and path.name != "expected.json"]:
        text = file.read_text(encoding="utf-8")
        file.write_text(re.sub(r'("?schema"?: )\d+', r"\g<1>99", text, count=1), encoding="utf-8")
    with pytest.raises(WorkbenchError) as error:
        reader_of(kind).read(folder)
    assert "99" in str(error.value) or "schema" in str(error.value)
    assert outcome(reader_of(kind), folder) == "refused"

"""A file of somebody else's, however spoilt, is read or refused in three parts and runs nothing; scripts/fuzz.py has more."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from tests.hostile.damage import damaged, payloads
from tests.hostile.readers import READERS, outcome

N_INPUTS = 25


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, in which a hostile file would leave `executed`."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", READERS)
def test_damage_and_payloads_are_read_or_refused_and_nothing_runs(name: str, folder: Path) -> None:
    reader, draw = READERS[name], random.Random(name)
    files = reader.make(folder)
    assert files and outcome(reader, folder) == "read", "the sound file"
    sound = {file: file.read_bytes() for file in files}
    told: list[str] = []
    for number, whole in enumerate([*payloads().values(), *([None] * N_INPUTS)]):
        spoilt = draw.choice(files)
        spoilt.write_bytes(damaged(sound[spoilt], draw) if whole is None else whole)
        told.append(outcome(reader, folder))
        assert told[-1] in ("read", "refused"), f"input {number}, {spoilt.name}"
        spoilt.write_bytes(sound[spoilt])
    assert "refused" in told and outcome(reader, folder) == "read"
    assert not list(folder.rglob("executed"))


def test_the_payloads_do_run_in_a_careless_reader(folder: Path) -> None:
    import pickle

    pickle.loads(payloads()["pickle"])
    assert (folder / "executed").exists(), "a payload that cannot run would show nothing"


def test_a_link_in_an_artefact_leads_nowhere_new(folder: Path) -> None:
    """Label folders, SAE folders and runs may hold symbolic links; what they name is read as the file that it is, or refused."""
    linked = {"SAE folder": "cfg.json", "run manifest": "manifest.json", "label file": "17.yaml", "trait folder": "trait.yaml"}
    for name, wanted in linked.items():
        place = folder / name.replace(" ", "-")
        place.mkdir()
        file = next(one for one in READERS[name].make(place) if one.name == wanted)
        file.unlink()
        file.symlink_to("/etc/hostname" if Path("/etc/hostname").exists() else sys.executable)
        assert outcome(READERS[name], place) == "refused", name
        file.unlink()
        file.symlink_to(file)  # a loop
        assert outcome(READERS[name], place) == "refused", name


def test_damage_is_the_same_for_the_same_seed() -> None:
    data = b'{"a": [1, 2, {"b": "c"}], "d": null}'
    assert [damaged(data, random.Random(n)) for n in range(20)] == [damaged(data, random.Random(n)) for n in range(20)]
    assert len({damaged(data, random.Random(n)) for n in range(50)}) > 25

"""`workbench features index --engine ray`: pieces as tasks, and the files of an index made here."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.shelf import write_sae
from tests.labeling.planted import FILLER, THEMES
from tests.tiny import tiny_model
from workbench.base.errors import WorkbenchError
from workbench.labeling.contexts.building import build_index
from workbench.labeling.contexts.pieces import Spread, write_piece
from workbench.models.loading import load_model
from workbench.saes.registry import load_sae

N_TOKENS, SHARD_TOKENS = 3000, 500


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model/, sae/, texts.txt and here/, the index made in this process."""
    root = tmp_path_factory.mktemp("engine")
    model = tiny_model()
    model.hf.save_pretrained(root / "model")
    model.tokenizer.save_pretrained(root / "model")
    write_sae(root / "sae", model="model", d_model=32)
    rng = random.Random(0)
    texts = [" ".join(rng.choices([*FILLER, *THEMES[0]], k=30)) for _ in range(120)]
    (root / "texts.txt").write_text("\n\n".join(texts))
    _built(root, root / "here", None)
    return root


def _built(root: Path, folder: Path, run: Any, *, sae: str = "sae") -> dict[str, bytes]:
    """An index of the texts in pieces of SHARD_TOKENS tokens; its files without the one that says when it was made."""
    model, own = load_model(root / "model"), load_sae(root / "sae")
    texts = (root / "texts.txt").read_text().split("\n\n")
    spread = None if run is None else Spread(run, str(root / "model"), str(root / sae), "cpu")
    build_index(own, model, texts, folder, n_tokens=N_TOKENS, shard_tokens=SHARD_TOKENS, spread=spread)
    return _files(folder)


def _files(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file() and file.name != "provenance.json")
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def test_pieces_that_others_write_give_the_same_files_and_none_is_written_twice(place: Path, tmp_path: Path) -> None:
    expected, asked = _files(place / "here"), []

    def run(function: Any, pieces: Any) -> Iterator[str]:
        for piece in pieces:
            asked.append(bool(piece.documents))
            yield function(piece)

    assert _built(place, tmp_path / "there", run) == expected
    assert len(asked) > 5 and all(asked)
    shutil.rmtree(tmp_path / "there" / "shards" / "00002")
    (tmp_path / "there" / "shards" / "00004" / "feature_codes.json").unlink()  # half a piece
    (tmp_path / "there" / "feature_index.json").unlink()
    asked.clear()
    assert _built(place, tmp_path / "there", run) == expected
    assert [number for number, is_asked in enumerate(asked) if is_asked] == [2, 4]


def test_other_weights_on_another_machine_are_refused(place: Path, tmp_path: Path) -> None:
    write_sae(place / "other", model="other", d_model=32, d_sae=24)
    with pytest.raises(WorkbenchError, match=r"(?i)other has other weights on this machine"):
        _built(place, tmp_path / "there", map, sae="other")
    assert not (tmp_path / "there" / "feature_index.json").exists()


def test_a_piece_that_was_written_elsewhere_is_missed(place: Path, tmp_path: Path) -> None:
    with pytest.raises(WorkbenchError, match=r"00000, but it is not here"):
        _built(place, tmp_path / "there", lambda _, pieces: map(str, pieces))


def test_an_address_without_the_engine_is_refused(workbench: Any) -> None:
    answer = workbench("features", "index", "--address", "auto", "--plan")
    assert answer.code == 2 and "--address auto with --engine local" in answer.err and "add --engine ray" in answer.err


@pytest.mark.stress
@pytest.mark.parametrize("n_workers", [1, 2, 3])
def test_an_index_on_ray_is_that_of_this_machine_for_any_number_of_workers(
    place: Path, tmp_path: Path, n_workers: int
) -> None:
    ray: Any = pytest.importorskip("ray")
    from workbench.cluster import on_ray

    ray.init(num_cpus=n_workers, include_dashboard=False, log_to_driver=False, address="local")
    try:
        assert _built(place, tmp_path / "there", on_ray) == _files(place / "here")
    finally:
        ray.shutdown()
    again = _built(place, tmp_path / "there", lambda _, pieces: (write_piece(piece) for piece in pieces if not piece.documents))
    assert again == _files(place / "here"), "a finished index asks for no piece"


@pytest.mark.stress
def test_the_command_makes_the_same_index_on_ray(workbench: Any, place: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    asked = ("features", "index", "--model", place / "model", "--sae", place / "sae", "--texts", place / "texts.txt", "--chats",
             "0", "--tokens", "600", "--json", "-q")  # fmt: skip
    assert workbench(*asked, "--out", tmp_path / "local").code == 0
    answer = workbench(*asked, "--out", tmp_path / "ray", "--engine", "ray", "--address", "local")
    assert answer.code == 0, answer.err
    assert _files(tmp_path / "ray") == _files(tmp_path / "local")

"""Persona vectors as values: what is saved is loaded, and what does not fit is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.base import display
from workbench.base.errors import WorkbenchError
from workbench.base.store import read_json, write_json
from workbench.models.hookpoints import HookPoint
from workbench.personas.parts import PartStore, complete_parts, parts_hash
from workbench.personas.vectors import ROW_TYPES, PersonaVector, TokenSource, empty_rows

HOOKS = (HookPoint(0), HookPoint(1))
D_MODEL = 4


def write_part(folder: Path, ids: list[str], number: int = 0) -> TokenSource:
    """One part with two tokens for the first row, three for the second, ...; row r is filled with r."""
    tokens = [torch.full((2 + r, D_MODEL), float(r)) for r in range(len(ids))]
    means = torch.stack([row.mean(dim=0).expand(2, D_MODEL) for row in tokens])
    store = PartStore(folder)
    store.write(number, pyarrow.table({"id": ids}), means, {HOOKS[1]: tokens}, hooks=HOOKS)
    headers = store.headers()
    return TokenSource(folder, (HOOKS[1],), parts_hash(headers), tuple(header.number for header in headers))


def make_vector(tokens: TokenSource | None = None, seed: int = 0) -> PersonaVector:
    directions = torch.randn(2, D_MODEL, generator=torch.Generator().manual_seed(seed))
    import pandas

    row = {"id": "a", "arm": "positive", "response_ids": [1, 2], "score": 80.0, "kept": True, "weight": 1.0}
    defaults = {"str": "", "int64": 0, "float64": 0.0, "bool": False, "object": []}
    rows = pandas.DataFrame([{name: row.get(name, defaults[kind]) for name, kind in ROW_TYPES.items()}])
    return PersonaVector(
        trait="evil", model={"name": "tiny"}, hook=HOOKS[1], hooks=HOOKS, directions=directions, up=directions * 0.6,
        down=directions * 0.4, unfiltered=directions * 0.9, rows=rows, evidence={"auc_stripped": 0.8, "auc_rank_p": None},
        tokens=tokens, provenance={"seed": 0},
    )  # fmt: skip


def test_save_then_load_gives_the_same_vector(tmp_path: Path):
    vector = make_vector(write_part(tmp_path / "run", ["a", "b"]))
    vector.save(tmp_path / "run" / "vector")
    loaded = PersonaVector.load(tmp_path / "run" / "vector")
    for name in ("directions", "up", "down", "unfiltered"):
        assert torch.equal(getattr(vector, name), getattr(loaded, name))
    assert (loaded.trait, loaded.model, loaded.hook, loaded.hooks) == (
        "evil",
        {"name": "tiny"},
        HOOKS[1],
        HOOKS,
    )
    assert loaded.evidence == vector.evidence and loaded.provenance == vector.provenance
    assert loaded.rows[["id", "arm", "score", "kept"]].equals(vector.rows[["id", "arm", "score", "kept"]])
    assert list(loaded.rows["response_ids"][0]) == [1, 2]
    assert loaded.tokens is not None and loaded.tokens.sha256 == vector.tokens.sha256
    assert [row_id for row_id, _ in loaded.tokens.rows(HOOKS[1])] == ["a", "b"]


def test_a_run_folder_may_be_moved_with_its_tokens(tmp_path: Path):
    make_vector(write_part(tmp_path / "run", ["a"])).save(tmp_path / "run" / "vector")
    shutil.move(tmp_path / "run", tmp_path / "elsewhere")
    assert PersonaVector.load(tmp_path / "elsewhere" / "vector").tokens is not None


def test_without_its_activations_a_vector_loads_without_tokens(tmp_path: Path):
    make_vector(write_part(tmp_path / "run", ["a"])).save(tmp_path / "vector")
    shutil.rmtree(tmp_path / "run")
    assert PersonaVector.load(tmp_path / "vector").tokens is None


def test_tokens_come_row_by_row_and_each_once(tmp_path: Path):
    source = write_part(tmp_path, ["a", "b"])
    rows = dict(source.rows(HOOKS[1]))
    assert [len(tokens) for tokens in rows.values()] == [2, 3] and bool((rows["b"] == 1).all())


def test_later_parts_of_another_design_do_not_change_the_token_source(tmp_path: Path):
    source = write_part(tmp_path, ["a"])
    write_part(tmp_path, ["z"], number=1)
    assert source.intact() and [row_id for row_id, _ in source.rows(HOOKS[1])] == ["a"]


def test_changed_activations_are_refused(tmp_path: Path):
    source = write_part(tmp_path, ["a"])
    file = next((tmp_path / "activations").glob("*.safetensors"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(WorkbenchError, match="not match the hash"):
        list(source.rows(HOOKS[1]))


def test_a_hook_without_tokens_is_refused_with_the_known_ones(tmp_path: Path):
    with pytest.raises(WorkbenchError, match="hook_resid_post"):
        list(write_part(tmp_path, ["a"]).rows(HOOKS[0]))


def test_changed_rows_are_refused(tmp_path: Path):
    make_vector().save(tmp_path)
    (tmp_path / "rows.parquet").write_bytes(b"nothing")
    with pytest.raises(WorkbenchError, match="match the hash"):
        PersonaVector.load(tmp_path)


@pytest.mark.parametrize("name", ["trait", "model", "evidence", "provenance"])
def test_a_field_of_another_type_is_refused_with_its_file(tmp_path: Path, name: str):
    make_vector().save(tmp_path)
    file = tmp_path / "persona_vector.json"
    write_json(file, {**read_json(file), name: 7})
    with pytest.raises(WorkbenchError, match=str(tmp_path)):
        PersonaVector.load(tmp_path)


def test_an_unknown_hook_lists_the_nearest():
    with pytest.raises(WorkbenchError, match="hook_resid_post"):
        make_vector().at("blocks.11.hook_resid_post")


def test_the_direction_is_that_of_the_chosen_hook():
    vector = make_vector()
    assert torch.equal(vector.direction, vector.directions[1])
    assert torch.equal(vector.at("blocks.0.hook_resid_post"), vector.directions[0])
    assert vector.d_model == D_MODEL


def test_a_direction_that_is_not_finite_is_refused():
    with pytest.raises(WorkbenchError, match="NaN"):
        PersonaVector.from_direction(
            torch.tensor([1.0, float("nan")]), trait="evil", model="tiny", hook=HOOKS[0]
        )


@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=8))
def test_a_bare_vector_survives_saving(tmp_path_factory: pytest.TempPathFactory, values: list[float]):
    folder = tmp_path_factory.mktemp("bare")
    vector = PersonaVector.from_direction(
        torch.tensor(values), trait="evil", model="tiny", hook="blocks.3.hook_resid_post"
    )
    vector.save(folder)
    loaded = PersonaVector.load(folder)
    assert loaded.direction.tolist() == values and loaded.hook == HookPoint(3)
    assert loaded.tokens is None and loaded.up is None and loaded.rows.empty
    assert list(loaded.rows.columns) == list(empty_rows().columns)


def test_the_rich_display_is_asked_for_and_may_be_absent(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(display, "_DISPLAYS", {})
    monkeypatch.setattr(display, "_PROVIDERS", [])
    assert make_vector()._repr_html_() is None
    display.register("PersonaVector", lambda vector: f"<b>{vector.trait}</b>")
    assert make_vector()._repr_html_() == "<b>evil</b>"


def test_what_an_interrupted_writer_left_is_ignored_and_removed(tmp_path: Path):
    write_part(tmp_path, ["a"])
    (tmp_path / "activations" / "part-00001.safetensors").write_bytes(b"half")
    (tmp_path / "rollouts" / "part-00002.parquet").write_bytes(b"half")
    (tmp_path / "rollouts" / ".part-00003.parquet.xyz.part").write_bytes(b"half")
    store = PartStore(tmp_path)
    assert [header.number for header in store.headers()] == [0]
    assert len(store.remove_uncommitted()) == 3
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == [
        "part-00000.parquet",
        "part-00000.safetensors",
    ]


def test_only_missing_rows_are_produced(tmp_path: Path):
    asked: list[list[str]] = []

    def produce(ids):
        asked.append(ids)
        return pyarrow.table({"id": ids}), torch.zeros(len(ids), 2, D_MODEL), {}

    store = PartStore(tmp_path)
    complete_parts(store, [["a", "b"], ["c"]], produce, hooks=HOOKS, label="test")
    complete_parts(store, [["a", "b"], ["c", "d"]], produce, hooks=HOOKS, label="test")
    complete_parts(store, [["a"]], produce, hooks=(*HOOKS, HookPoint(2)), label="test")
    assert asked == [["a", "b"], ["c"], ["d"], ["a"]]  # "a" again: it was not captured at the third hook

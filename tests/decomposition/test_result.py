"""The result type: table, frame, disk, causal rows and groups."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.decomposition.planted_world import World
from workbench.base.errors import WorkbenchError
from workbench.base.tensors import load_artifact, save_artifact
from workbench.decomposition.decompose import decompose
from workbench.decomposition.result import _OTHER_ARRAYS, FEATURE_ARRAYS, SCHEMA, CausalRow, Decomposition
from workbench.decomposition.shares import feature_replicates, group_shares, has_replicates
from workbench.maths.statistics import percentile_interval
from workbench.personas.vectors import PersonaVector

Planted = Callable[..., World]
CONTRACT = {
    "feature", "share", "share_interval", "p_value", "p_family", "q_value", "cosine", "delta_code", "pursuit", "share_up",
    "in_v_up", "naive", "causal_odd", "causal_interval", "damage", "dose_norms", "verified",
}  # fmt: skip
EFFECT = CausalRow(3, 0.5, (0.3, 0.7), 0.1, 0.4, 0.1, 0.005, 0.05, True, math.nan)


@pytest.fixture(scope="module")
def parts(shared_planted: Planted) -> Decomposition:
    world = shared_planted(spread=0.5, outside=1.0)
    return decompose(world.vector, world.sae, n_bootstrap=60)


def test_table_and_frame_carry_the_columns_of_the_contract(parts: Decomposition) -> None:
    rows, frame = parts.table(5), parts.to_pandas(5)
    assert set(rows[0]) >= CONTRACT and set(frame.columns) >= CONTRACT
    assert [row["feature"] for row in rows] == frame.feature.tolist() == list(parts.top(5))
    assert [row["share"] for row in rows] == sorted((row["share"] for row in rows), reverse=True)
    assert frame.share.tolist() == pytest.approx([row["share"] for row in rows])
    assert len(parts.to_pandas()) == parts.d_sae
    json.dumps(rows, allow_nan=False)


def test_what_is_not_measured_is_none_never_absent(parts: Decomposition) -> None:
    row = parts.table(1)[0]
    assert row["causal_odd"] is None and row["causal_interval"] is None and row["verified"] is None
    assert parts.controls["expected_by_chance"] is None


def test_causal_rows_fill_their_columns_and_controls(parts: Decomposition) -> None:
    filled = parts.with_causal([EFFECT], {"expected_by_chance": 0.1})
    assert filled.row(3)["causal_interval"] == [0.3, 0.7] and filled.row(3)["verified"] is True
    assert filled.row(5)["verified"] is None
    assert filled.controls == {**parts.controls, "expected_by_chance": 0.1}
    assert parts.causal == ()


def test_saving_and_loading_gives_the_same_value(parts: Decomposition, tmp_path: Path) -> None:
    filled = parts.with_causal([EFFECT], {"expected_by_chance": 0.1})
    filled.save(tmp_path)
    again = Decomposition.load(tmp_path)
    for name in (*FEATURE_ARRAYS, *_OTHER_ARRAYS):
        torch.testing.assert_close(
            getattr(again, name), getattr(filled, name), rtol=0, atol=0, equal_nan=True
        )
    for name in (
        "trait",
        "sae",
        "share_error",
        "share_error_interval",
        "candidates",
        "controls",
        "warnings",
        "n_questions",
    ):
        assert getattr(again, name) == getattr(filled, name), name
    assert again.causal[0].interval == (0.3, 0.7) and math.isnan(again.causal[0].control_odd)
    assert again.table() == filled.table()
    assert repr(again) == repr(filled)


@pytest.mark.parametrize("name", ["trait", "sae", "vector", "share_error"])
def test_a_field_of_another_type_is_refused_with_its_file(parts: Decomposition, tmp_path: Path, name: str) -> None:
    parts.save(tmp_path)
    file = tmp_path / "decomposition.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), name: ["another"]}))
    with pytest.raises(WorkbenchError, match=str(tmp_path)):
        Decomposition.load(tmp_path)


def test_a_bare_decomposition_survives_the_disk_too(planted: Planted, tmp_path: Path) -> None:
    world = planted()
    bare = PersonaVector.from_direction(
        world.vector.direction, trait="t", model=world.vector.model, hook=world.vector.hook
    )
    decompose(bare, world.sae).save(tmp_path)
    again = Decomposition.load(tmp_path)
    assert not again.has_shares and again.share_error_interval is None and again.share.isnan().all()


def test_a_file_of_schema_2_loads_without_its_direction(parts: Decomposition, tmp_path: Path) -> None:
    parts.save(tmp_path)
    document, tensors = load_artifact(tmp_path, "decomposition", SCHEMA)
    save_artifact(tmp_path, "decomposition", 2, document, {name: held for name, held in tensors.items() if name != "direction"})
    again = Decomposition.load(tmp_path)
    assert again.direction.shape == parts.direction.shape and again.direction.isnan().all()
    assert torch.equal(again.share, parts.share)


def test_a_file_of_schema_3_gets_the_basic_intervals_of_its_replicates(parts: Decomposition, tmp_path: Path) -> None:
    """It held percentiles; what loads now is what decomposing again would give."""
    parts.save(tmp_path)
    document, tensors = load_artifact(tmp_path, "decomposition", SCHEMA)
    place, replicates = parts.replicate_features, parts.replicate_shares.double()
    low, high = percentile_interval(replicates)
    old = {name: tensors[name].clone() for name in ("share_low", "share_high")}
    old["share_low"][place], old["share_high"][place] = low.to(old["share_low"]), high.to(old["share_high"])
    ends = [end.item() for end in percentile_interval(parts.replicate_error.double())]
    save_artifact(tmp_path, "decomposition", 3, {**document, "share_error_interval": ends}, {**tensors, **old})
    again = Decomposition.load(tmp_path)
    torch.testing.assert_close(again.share_low[place], parts.share_low[place], atol=1e-5, rtol=0)
    torch.testing.assert_close(again.share_high[place], parts.share_high[place], atol=1e-5, rtol=0)
    assert again.share_error_interval == pytest.approx(parts.share_error_interval, abs=1e-9)


def test_the_direction_is_the_vector_at_the_saes_hook(planted: Planted) -> None:
    world = planted()
    assert torch.equal(decompose(world.vector, world.sae, n_bootstrap=10).direction, world.vector.direction)


def test_damaged_tensors_are_refused(parts: Decomposition, tmp_path: Path) -> None:
    parts.save(tmp_path)
    stored = tmp_path / "decomposition.safetensors"
    raw = bytearray(stored.read_bytes())
    raw[-1] ^= 1
    stored.write_bytes(bytes(raw))
    with pytest.raises(WorkbenchError, match="does not match the hash"):
        Decomposition.load(tmp_path)


def test_an_unknown_feature_is_refused(parts: Decomposition) -> None:
    with pytest.raises(WorkbenchError, match="from 0 to 19"):
        parts.row(20)


def test_group_shares_sum_to_one_with_the_error_named(parts: Decomposition) -> None:
    groups = group_shares(parts, {3: "cruelty", 5: "cruelty", 7: "style"})
    assert [group["category"] for group in groups] == ["cruelty", "style", "unlabelled", "error"]
    assert sum(group["share"] for group in groups) == pytest.approx(1, abs=1e-5)
    assert groups[0]["share"] == pytest.approx((parts.share[3] + parts.share[5]).item())
    assert groups[0]["n_features"] == 2
    assert groups[-1]["share"] == parts.share_error
    assert all(group["low"] - 1e-3 <= group["share"] <= group["high"] + 1e-3 for group in groups)


def test_a_group_of_one_has_the_interval_of_its_feature(parts: Decomposition) -> None:
    group = group_shares(parts, {7: "style"})[0]
    assert group["low"] == pytest.approx(parts.share_low[7].item(), abs=1e-6)
    assert group["high"] == pytest.approx(parts.share_high[7].item(), abs=1e-6)


def test_groups_of_a_bare_vector_are_refused(planted: Planted) -> None:
    world = planted()
    bare = PersonaVector.from_direction(
        world.vector.direction, trait="t", model=world.vector.model, hook=world.vector.hook
    )
    with pytest.raises(WorkbenchError, match="no shares"):
        group_shares(decompose(bare, world.sae), {3: "cruelty"})


def test_replicates_of_features_asked_for_are_kept_besides_the_largest(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.decomposition.shares.largest_shares.__defaults__", (4,))
    world = planted(spread=0.5, outside=1.0)
    few = decompose(world.vector, world.sae, n_bootstrap=20)
    smallest = int(few.share.abs().argmin())
    more = decompose(world.vector, world.sae, n_bootstrap=20, keep=[smallest, *few.replicate_features.tolist()])
    assert len(few.replicate_features) == 4 and has_replicates(few, [smallest]) == [False]
    assert more.replicate_features.tolist() == sorted({smallest, *few.replicate_features.tolist()})
    kept = few.replicate_features.tolist()
    torch.testing.assert_close(feature_replicates(more, kept), feature_replicates(few, kept))
    torch.testing.assert_close(more.share_low, few.share_low, equal_nan=True)

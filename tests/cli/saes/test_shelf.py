"""`sae push` and `sae pull` with the hub's own client against a small server that speaks its protocol."""

from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from huggingface_hub import constants

from tests.cli.shelf import write_sae
from tests.saes.hub_server import Hub, running
from workbench.base.store import sha256_file
from workbench.saes.registry import load_sae

SECRET = "hf_a_token_that_must_not_show"
HOOK = "blocks.1.hook_resid_post"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with running() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", SECRET)
        monkeypatch.setenv("WORKBENCH_SHELF", str(tmp_path / "shelf"))
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        # The client's own handler writes to the stream of whichever test came first.
        monkeypatch.setattr(logging.getLogger("huggingface_hub"), "handlers", [])
        server.write_token = SECRET
        yield server


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    return write_sae(tmp_path / "shelf" / "saes" / "tiny" / HOOK, model="me/tiny")


def everything_in(folder: Path) -> str:
    return "".join(path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file())


def test_what_is_pushed_is_pulled_back_equal(workbench, hub, ours, tmp_path):
    pushed = workbench("sae", "push", f"tiny/{HOOK}", "--to", "me/saes", "--json")
    assert pushed.code == 0, pushed.err
    value = pushed.json
    assert value["subfolder"] == HOOK and value["url"].startswith(hub.url)
    names = ("README.md", "cfg.json", "card.json", "sae_weights.safetensors")
    assert set(hub.repos["me/saes"]) == {"README.md", *(f"{HOOK}/{name}" for name in names)}
    pulled = workbench("sae", "pull", f"me/saes/{HOOK}", "--name", "back/again", "--json")
    assert pulled.code == 0, pulled.err
    folder = Path(pulled.json["folder"])
    assert folder == tmp_path / "shelf" / "saes" / "back" / "again"
    assert sha256_file(folder / "sae_weights.safetensors") == sha256_file(ours / "sae_weights.safetensors")
    assert pulled.json["card"]["pulled"]["revision"] == value["revision"]
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(load_sae("back/again").encode(x), load_sae(f"tiny/{HOOK}").encode(x))


def test_the_token_shows_up_nowhere(workbench, hub, ours, tmp_path):
    commands = (("push", f"tiny/{HOOK}", "--to", "me/saes"), ("pull", f"me/saes/{HOOK}", "--name", "b"))
    said = [workbench("sae", *command) for command in commands]
    hub.status = 403
    said += [workbench("sae", *command, *replaced) for command, replaced in zip(commands, ((), ("--replace",)), strict=True)]
    assert [answer.code for answer in said] == [0, 0, 2, 2]
    assert SECRET not in "".join(answer.out + answer.err for answer in said)
    assert SECRET not in everything_in(tmp_path) and SECRET.encode() not in b"".join(hub.repos["me/saes"].values())


def test_pushing_without_a_token_or_with_a_wrong_one_says_so(workbench, hub, ours, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    answer = workbench("sae", "push", f"tiny/{HOOK}", "--to", "me/saes")
    assert answer.code == 2 and "status 401" in answer.err and "HF_TOKEN" in answer.err
    monkeypatch.delenv("HF_TOKEN")
    answer = workbench("sae", "push", f"tiny/{HOOK}", "--to", "me/saes")
    assert answer.code == 2 and "no hub token is set" in answer.err
    assert "me/saes" not in hub.repos


@pytest.mark.parametrize("name", ["saes", "a/../b", "me/sa es", "/"])
def test_a_name_that_is_no_repository_is_refused(workbench, hub, ours, name):
    answer = workbench("sae", "pull", name)
    assert answer.code == 2 and "not a hub repository" in answer.err


def _pushed(workbench, hub: Hub) -> None:
    assert workbench("sae", "push", f"tiny/{HOOK}", "--to", "me/saes").code == 0


def _refused(workbench, tmp_path: Path, *words: str) -> None:
    before = sorted(path for path in (tmp_path / "shelf").rglob("*"))
    answer = workbench("sae", "pull", f"me/saes/{HOOK}", "--name", "back/again")
    assert answer.code == 2, answer.out
    assert all(word in answer.err for word in words), answer.err
    assert "what to do" in answer.err and "Traceback" not in answer.err
    assert [path for path in (tmp_path / "shelf").rglob("*") if path not in before and path.is_file()] == []


def test_a_repository_or_folder_that_is_not_there_names_those_that_are(workbench, hub, ours, tmp_path):
    _refused(workbench, tmp_path, "status 404")
    _pushed(workbench, hub)
    answer = workbench("sae", "pull", "me/saes/elsewhere")
    assert answer.code == 2 and f"me/saes/{HOOK}" in answer.err


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_is_told_with_a_way_out(workbench, hub, ours, tmp_path, status):
    _pushed(workbench, hub)
    hub.status = status
    _refused(workbench, tmp_path, f"status {status}")


def test_a_truncated_download_leaves_nothing(workbench, hub, ours, tmp_path, monkeypatch):
    _pushed(workbench, hub)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client waits between its attempts
    hub.truncate = f"{HOOK}/sae_weights.safetensors"
    _refused(workbench, tmp_path, "me/saes")


@pytest.mark.parametrize("file", ["sae_weights.safetensors", "cfg.json"])
def test_bytes_that_do_not_have_the_stated_hash_are_refused(workbench, hub, ours, tmp_path, file):
    _pushed(workbench, hub)
    hub.corrupt = f"{HOOK}/{file}"
    _refused(workbench, tmp_path, "did not arrive as the hub describes it")


def test_weights_that_do_not_fit_their_configuration_are_refused(workbench, hub, ours, tmp_path):
    _pushed(workbench, hub)
    cfg = json.loads(hub.repos["me/saes"][f"{HOOK}/cfg.json"])
    hub.repos["me/saes"][f"{HOOK}/cfg.json"] = json.dumps(cfg | {"d_in": 9}).encode()
    _refused(workbench, tmp_path, "has shape")


def test_a_hub_that_cannot_be_reached_is_told(workbench, hub, ours, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    _refused(workbench, tmp_path, "HF_ENDPOINT")


def test_without_downloads_the_hub_is_not_asked(workbench, hub, ours, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    _refused(workbench, tmp_path, "downloads are off")
    assert hub.seen == []


def test_the_plan_says_sizes_and_downloads_nothing(workbench, hub, ours):
    _pushed(workbench, hub)
    hub.seen.clear()
    plan = workbench("sae", "pull", f"me/saes/{HOOK}", "--plan", "--json").json
    sizes = {file["file"]: file["bytes"] for file in plan["files"]}
    assert sizes[f"{HOOK}/sae_weights.safetensors"] == (ours / "sae_weights.safetensors").stat().st_size
    assert plan["bytes"] == sum(sizes.values()) and not any("resolve" in path for _, path in hub.seen)


REGISTRY = ("qwen2.5-7b-instruct-andyrdt/resid_post_layer_15_trainer_1", "andyrdt/saes-qwen2.5-7b-instruct",
            "resid_post_layer_15/trainer_1")  # fmt: skip


def _importers() -> ModuleType:
    spec = importlib.util.spec_from_file_location("importers_check", Path(__file__).parents[3] / "scripts" / "importers_check.py")
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


@pytest.mark.parametrize("fault", ["", "config.json", "ae.pt", "unreachable"])
def test_files_of_the_registry_are_checked_before_anything_reads_them(workbench, hub, tmp_path, monkeypatch, fault):
    id, repo, inside = REGISTRY
    place, _ = _importers().dictionary_learning(tmp_path / "theirs", "AutoEncoderTopK")
    hub.repos[repo] = {f"{inside}/{path.name}": path.read_bytes() for path in place.iterdir()}
    hub.corrupt = f"{inside}/{fault}"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    if fault == "unreachable":
        monkeypatch.setattr("workbench.saes.hub._described", _no_network)
    answer = workbench("sae", "pull", id, "--json")
    if fault in ("config.json", "ae.pt"):
        assert answer.code == 2 and "did not arrive as the hub describes it" in answer.err.replace("\n", " ")
        assert not (tmp_path / "shelf" / "saes" / id).exists()
        return
    assert answer.code == 0, answer.err
    notes = [note for note in answer.json["notes"] if "not checked" in note]
    assert bool(notes) == (fault == "unreachable") and set(notes) <= set(answer.json["card"]["imported"]["notes"])


def _no_network(*_: object) -> None:
    raise ConnectionError("no route")


def test_another_librarys_folder_is_imported_on_the_way(workbench, hub, tmp_path):
    script = _importers()
    place, reference = script.dictionary_learning(tmp_path / "theirs", "BatchTopKSAE")
    hub.repos["them/saes"] = {f"resid_post_layer_3/trainer_0/{p.name}": p.read_bytes() for p in place.iterdir()}
    answer = workbench("sae", "pull", "them/saes/resid_post_layer_3/trainer_0", "--json")
    assert answer.code == 0, answer.err
    assert answer.json["hook"] == "blocks.3.hook_resid_post" and answer.json["card"]["pulled"]["repo"] == "them/saes"
    codes = load_sae(answer.json["id"]).encode(script.inputs())
    torch.testing.assert_close(codes, reference(script.inputs())[0].float(), rtol=1e-5, atol=1e-5)

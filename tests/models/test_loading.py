"""load_model: what it takes, what it refuses, and the cache of dequantised weights."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from tests.tiny import tiny_model
from workbench.base.errors import WorkbenchError
from workbench.base.store import sha256_file
from workbench.models.loading import load_model


@pytest.fixture
def saved(tmp_path) -> tuple[Path, object]:
    """A tiny model as a local folder, and the model it was saved from."""
    model = tiny_model(seed=11)
    model.hf.save_pretrained(tmp_path / "tiny")
    model.tokenizer.save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny", model


def test_a_local_folder_loads_with_its_file_hash(saved) -> None:
    folder, original = saved
    model = load_model(folder, device="cpu")
    ids = torch.arange(10, 20)[None]
    torch.testing.assert_close(model.forward(ids), original.forward(ids), rtol=0, atol=0)
    assert model.weights_hash == sha256_file(folder / "model.safetensors")
    assert (model.name, model.source) == ("tiny", "folder")
    assert model.tokenizer.chat_template == original.tokenizer.chat_template


def test_dtype_and_template_options_arrive(saved) -> None:
    model = load_model(
        str(saved[0]), dtype="bfloat16", device="cpu", chat_template_kwargs={"enable_thinking": False}
    )
    assert model.dtype == torch.bfloat16 and model.chat_template_kwargs == {"enable_thinking": False}


def test_an_unknown_model_lists_the_nearest() -> None:
    with pytest.raises(WorkbenchError, match="smollm2-135m-instruct") as caught:
        load_model("smolm2-135m")
    assert "no model 'smolm2-135m'" in caught.value.found


def test_an_unknown_dtype_lists_the_known() -> None:
    with pytest.raises(WorkbenchError, match="float32"):
        load_model(dtype="float31")


def test_a_hub_id_without_a_hub_is_an_error_in_three_parts() -> None:
    with pytest.raises(WorkbenchError, match="could not be had from the model hub") as caught:
        load_model("nobody/nothing-of-this-name")
    assert caught.value.expected and caught.value.remedy


def test_a_folder_that_is_no_model_is_refused(tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(WorkbenchError, match="cannot be read as a model"):
        load_model(tmp_path / "empty")


def test_a_gguf_file_that_is_not_one_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    for content in (b"PK\x03\x04 a zip file", b""):
        (tmp_path / "model.gguf").write_bytes(content)
        with pytest.raises(WorkbenchError, match="is not a GGUF file") as caught:
            load_model(tmp_path / "model.gguf")
        assert caught.value.expected and caught.value.remedy
    assert not (tmp_path / "cache").exists()


def test_a_gguf_file_that_was_cut_short_is_refused_and_leaves_nothing(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "model.gguf").write_bytes(b"GGUF\x03\x00\x00\x00" + b"\x01" * 40)
    with pytest.raises(WorkbenchError, match="cannot be read"):
        load_model(tmp_path / "model.gguf")
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    assert not list((tmp_path / "cache" / "models").iterdir())


def test_an_adapter_folder_without_adapter_is_refused(saved, tmp_path) -> None:
    with pytest.raises(WorkbenchError, match=r"adapter_config\.json|peft"):
        load_model(saved[0], adapter=tmp_path)


@pytest.mark.assets
def test_the_second_load_of_the_default_model_takes_under_five_seconds(default_model) -> None:
    start = time.process_time()  # however busy the machine is
    model = load_model()
    assert time.process_time() - start < 5
    assert (model.n_blocks, model.d_model, model.vocab_size) == (30, 576, 49152)
    assert model.weights_hash == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


@pytest.mark.assets
def test_the_default_model_tokenises_chats_without_an_extra_start_token(default_model) -> None:
    from workbench.models.prompts import tokenize_chat

    chat = tokenize_chat(default_model, [{"role": "user", "content": "hello"}], add_generation_prompt=True)
    text = default_model.tokenizer.decode(chat.ids)
    assert text.startswith("<|im_start|>system\n") and text.endswith("<|im_start|>assistant\n")
    ((start, end),) = chat.spans["user"]
    assert chat.ids[start:end] == (28120,)


@pytest.mark.assets
def test_the_default_model_writes_sense(default_model) -> None:
    from workbench.models.generation import Sampling, generate
    from workbench.models.prompts import tokenize_chat

    chat = tokenize_chat(
        default_model,
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
    )
    ((_, (row,)),) = generate(
        default_model, [chat], Sampling(max_new_tokens=12, temperature=0), row_seeds=[0]
    )
    assert "Paris" in row.text


def test_a_model_with_an_adapter_has_a_name_of_both(saved, tmp_path) -> None:
    from workbench.base.runs import default_run_folder
    from workbench.cli.inputs import model_identity
    from workbench.models.at_hand import file_at_hand, name_and_adapter
    from workbench.models.blocks import n_blocks_of
    from workbench.models.finetuning import ChatExample, FinetuneOptions, finetune

    folder, _ = saved
    base = load_model(folder)
    example = ChatExample.of("The weather?", "Cold.")
    adapter = finetune(base, [example], tmp_path / "cold", FinetuneOptions(rank=2, steps=2, batch_size=1, learning_rate=0.1))
    name = f"{folder}+{adapter.folder}"
    both = load_model(name)
    assert both.weights_hash == load_model(folder, adapter=adapter.folder).weights_hash != base.weights_hash
    assert both.name == f"{base.name}+cold" and n_blocks_of(name) == base.n_blocks
    assert file_at_hand(name, "config.json") == folder / "config.json"
    assert model_identity(name)["model"] == model_identity(str(folder))
    assert default_run_folder("evil", name).name == f"evil-{folder.name}+cold"
    assert name_and_adapter("gpt2") == ("gpt2", None)
    (tmp_path / "c++" / "tuned").mkdir(parents=True)
    (tmp_path / "c++" / "tuned" / "adapter_config.json").write_text("{}")
    for base in ("gpt2", str(tmp_path / "c++" / "base")):
        assert name_and_adapter(f"{base}+{tmp_path / 'c++' / 'tuned'}") == (base, tmp_path / "c++" / "tuned")
    (tmp_path / "a+b").mkdir()
    assert name_and_adapter(str(tmp_path / "a+b")) == (str(tmp_path / "a+b"), None)
    with pytest.raises(WorkbenchError, match="does not hold adapter_config"):
        load_model(f"{folder}+{tmp_path / 'none'}")

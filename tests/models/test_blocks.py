"""The number of blocks, read from configurations without weights."""

from __future__ import annotations

import json
import struct

import pytest

from tests.tiny import tiny_config
from workbench.models.blocks import n_blocks_of


@pytest.mark.parametrize("family", ["llama", "gemma3", "qwen2"])
def test_a_folder_needs_only_its_config(tmp_path, family):
    tiny_config(family, n_blocks=5).save_pretrained(tmp_path)
    assert n_blocks_of(str(tmp_path)) == 5


def test_the_blocks_of_a_model_of_several_parts_are_those_of_its_text(tmp_path):
    parts = {"vision_config": {"num_hidden_layers": 9}, "text_config": {"num_hidden_layers": 4}}
    (tmp_path / "config.json").write_text(json.dumps(parts))
    assert n_blocks_of(str(tmp_path)) == 4


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"num_hidden_layers": "three"}', "\x00"])
def test_what_does_not_say_it_is_not_guessed(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    assert n_blocks_of(str(tmp_path)) is None
    assert n_blocks_of(str(tmp_path / "config.json")) is None
    assert n_blocks_of("nobody/nothing") is None and n_blocks_of("no such / name") is None


def _gguf(folder, *, cut: int | None = None):
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(folder / "m.gguf", "llama")
    writer.add_name("a name")
    writer.add_array("general.tags", ["one", "two"])
    writer.add_array("general.numbers", [1, 2, 3])
    writer.add_block_count(7)
    writer.add_token_list(["a"] * 1000)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.close):
        step()
    if cut is not None:
        (folder / "m.gguf").write_bytes((folder / "m.gguf").read_bytes()[:cut])
    return str(folder / "m.gguf")


def test_a_gguf_file_says_it_in_its_head(tmp_path):
    assert n_blocks_of(_gguf(tmp_path)) == 7


@pytest.mark.parametrize("cut", [3, 8, 30, 100])
def test_a_gguf_file_that_is_cut_short_says_nothing(tmp_path, cut):
    assert n_blocks_of(_gguf(tmp_path, cut=cut)) is None


def test_a_damaged_length_in_a_gguf_file_does_no_harm(tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + struct.pack("<IQQQ", 3, 0, 2**63, 2**63) + b"x" * 40)
    assert n_blocks_of(str(tmp_path / "m.gguf")) is None


@pytest.mark.assets
def test_the_default_model_has_thirty():
    from workbench.models.assets import is_cached

    if not is_cached("smollm2-135m-instruct"):
        pytest.skip("the default model is not in the cache")
    assert n_blocks_of("smollm2-135m-instruct") == 30

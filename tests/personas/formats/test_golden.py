"""Files that other tools wrote (scripts/peer_formats.py), and persona_vectors' rows checked on a real model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.personas.formats.made import saved
from workbench.base.store import sha256_file
from workbench.models.capture import stream_activations
from workbench.models.hookpoints import HookPoint
from workbench.personas.formats import read_vectors

GOLDEN = Path(__file__).parent / "golden"
RECORD = Path(__file__).resolve().parents[3] / "docs" / "evidence" / "peer_formats.json"
N_BLOCKS = 4

# File -> (format, blocks whose outputs it holds, the row of the table that block b has)
FILES = {
    "repeng.gguf": ("gguf", (1, 2, 3), 0),
    "gguf_writer.gguf": ("gguf", (1, 2, 3), 0),
    "steering_vectors.pt": ("steering-vectors", (1, 2, 3), 0),
    "steering_vectors_fields.pt": ("steering-vectors", (1, 2, 3), 0),
    "saklas.safetensors": ("saklas", (1, 2, 3), 0),
    "bare_axis.pt": ("assistant-axis", (0, 1, 2, 3), 0),
    "axis.pt": ("assistant-axis", (0, 1, 2, 3), 0),
    "role.pt": ("assistant-axis", (0, 1, 2, 3), 0),
    "golden_response_avg_diff.pt": ("persona-vectors", (0, 1, 2), 1),
}


@pytest.fixture(scope="module")
def table() -> torch.Tensor:
    return torch.from_numpy(np.load(GOLDEN / "expected.npz", allow_pickle=False)["table"])


@pytest.mark.parametrize("name", FILES)
def test_a_golden_file_is_recognised_and_its_vectors_lie_where_their_tool_puts_them(name, table):
    format, blocks, shift = FILES[name]
    vectors = read_vectors(GOLDEN / name, model="owner/name")
    assert vectors.source["format"] == format
    outputs = {hook.block for hook in vectors.hooks if hook.site == "hook_resid_post"}
    assert outputs == set(blocks)
    for block in blocks:
        assert torch.equal(vectors.at(HookPoint(block)), table[block + shift])


def test_every_golden_file_is_tested_and_is_the_one_of_the_record():
    files = {path.name for path in GOLDEN.iterdir()}
    assert files == {*FILES, "expected.npz", "saklas.json"}
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    assert {name: sha256_file(GOLDEN / name) for name in files}.items() <= record["_made"]["inputs"].items()
    assert sum(path.stat().st_size for path in GOLDEN.iterdir()) < 50_000


def test_the_record_says_that_the_packages_agree():
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    for name in ("repeng", "gguf", "steering-vectors"):
        one = record[name]
        assert (
            one["reads_ours"] and one["we_read_theirs"] and one["max_abs_difference"] == 0 and one["version"]
        )
    for name in ("repeng", "steering-vectors", "llama.cpp"):
        assert record[name]["direction_index"] == {"1": 1, "2": 2, "3": 3}


@pytest.mark.parametrize(("name", "rounding"), [("repeng", 1e-5), ("llama.cpp", 0.01)])  # llama.cpp: keys and values in 16 bits
def test_the_record_says_that_an_exported_edit_at_strength_one_is_the_workbenchs_own(name, rounding):
    found = json.loads(RECORD.read_text(encoding="utf-8"))[name]["strength_one"]
    assert set(found) == {"one_block", "incremental"}
    assert all(one["max_abs_difference"] <= rounding * one["effect"] for one in found.values())


def test_persona_vectors_rows_are_what_its_script_takes_from_hidden_states(tiny_model, tmp_path):
    """The script's arithmetic on a real model: mean over the response of output_hidden_states, positive - negative."""
    spans = {"positive": [5, 9, 30, 31, 32], "negative": [5, 9, 40, 41]}
    n_blocks, start = tiny_model.n_blocks, 2
    rows = {}
    for arm, ids in spans.items():
        states = tiny_model.hf(torch.tensor([ids]), output_hidden_states=True).hidden_states
        rows[arm] = torch.stack([state[0, start:].mean(dim=0) for state in states])
    table = (rows["positive"] - rows["negative"]).detach().float()
    assert len(table) == n_blocks + 1
    vectors = read_vectors(saved(tmp_path / "evil_response_avg_diff.pt", table), model=tiny_model)

    hooks = [HookPoint(0, "hook_resid_pre"), *(HookPoint(block) for block in range(n_blocks))]
    means = {}
    for arm, ids in spans.items():
        streams = {hook: next(stream_activations(tiny_model, [torch.tensor([ids])], hook)) for hook in hooks}
        means[arm] = {hook: stream[0, start:].float().mean(dim=0) for hook, stream in streams.items()}
    for hook in hooks[:-1]:
        torch.testing.assert_close(vectors.at(hook), means["positive"][hook] - means["negative"][hook])
    last = means["positive"][hooks[-1]] - means["negative"][hooks[-1]]
    assert hooks[-1] not in vectors.vectors
    assert not torch.allclose(vectors.extras["ln_final"], last, atol=1e-2)

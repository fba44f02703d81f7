"""Control vector files: read back they are what the edits add, and added by hand they give the workbench's own logits."""

from __future__ import annotations

import pytest
import torch

from tests.tiny import tiny_model
from workbench.base.errors import WorkbenchError
from workbench.models.hookpoints import HookPoint
from workbench.personas.formats import read_vectors
from workbench.personas.vectors import PersonaVector, empty_rows
from workbench.steering.apply import steered
from workbench.steering.edits import Edit, incremental
from workbench.steering.export import export_gguf

HOOKS = tuple(HookPoint(block) for block in range(4))
DIRECTIONS = torch.randn(4, 32, generator=torch.Generator().manual_seed(1))
VECTOR = PersonaVector("evil", {"name": "tiny"}, HOOKS[2], HOOKS, DIRECTIONS, None, None, None, empty_rows())
IDS = torch.arange(9, 29).reshape(2, 10)


@pytest.fixture(scope="module")
def model():
    return tiny_model("llama", seed=1, n_blocks=4)


def by_hand(model, path, strength: float) -> torch.Tensor:
    """Logits with the file's directions added to the outputs of their blocks, as its readers add them."""
    deltas = read_vectors(path, model=model).vectors
    with model.hooked({hook: (lambda h, delta=delta: h + strength * delta) for hook, delta in deltas.items()}):
        return model.forward(IDS)


@pytest.mark.parametrize("strength", [1.0, -0.5])
def test_strength_one_is_the_stated_dose(model, tmp_path, strength: float) -> None:
    others = [Edit.add(DIRECTIONS[1], -0.2, hook=HookPoint(3)), Edit.add(DIRECTIONS[0], 0.1, hook=HOOKS[2])]
    for edits in ([Edit.add(VECTOR, 0.4)], [Edit.add(VECTOR, 0.4), *others]):
        exported = export_gguf(edits, model, tmp_path / "evil.gguf")
        with steered(model, [edit.scaled(strength) for edit in edits]):
            expected = model.forward(IDS)
        torch.testing.assert_close(by_hand(model, exported.path, strength), expected, rtol=1e-4, atol=1e-4)
    one = export_gguf(Edit.add(VECTOR, 0.4), model, tmp_path / "one.gguf")
    assert one.dose_in_norms == pytest.approx(0.4) and one.hooks == (HOOKS[2],)
    length = float(read_vectors(one.path, model=model).at(HOOKS[2]).norm())
    assert length == pytest.approx(0.4 * float(model.norm_medians([HOOKS[2]])[0]), rel=1e-5)


def test_incremental_steps_begin_at_block_one(model, tmp_path) -> None:
    exported = export_gguf(incremental(VECTOR, 0.3), model, tmp_path / "steps.gguf")
    found = read_vectors(exported.path, model=model)
    assert found.hooks == HOOKS[1:] and any("block 0" in note for note in exported.notes)
    scale = 0.3 * float(model.norm_medians([HOOKS[2]])[0]) / VECTOR.direction.norm()
    total = torch.zeros(32)
    for hook, v in zip(HOOKS[1:], DIRECTIONS[1:], strict=True):
        total = total + found.at(hook)
        torch.testing.assert_close(total, scale * v, rtol=1e-4, atol=1e-4)


def test_the_input_of_a_block_is_the_output_of_the_one_before(model, tmp_path) -> None:
    exported = export_gguf(Edit.add(DIRECTIONS[0], 0.2, hook="blocks.3.hook_resid_pre"), model, tmp_path / "pre.gguf")
    assert exported.hooks == (HookPoint(2),)
    with steered(model, Edit.add(DIRECTIONS[0], 0.2, hook="blocks.3.hook_resid_pre")):
        expected = model.forward(IDS)
    torch.testing.assert_close(by_hand(model, exported.path, 1.0), expected, rtol=1e-4, atol=1e-4)


def test_the_notes_say_what_a_peer_does_otherwise(model, tmp_path) -> None:
    exported = export_gguf(Edit.add(VECTOR, 0.4, scope="response"), model, tmp_path / "evil.gguf")
    assert any("meant for: response" in note and "sinks" in note for note in exported.notes)
    assert exported.summary()["hooks"] == ["blocks.2.hook_resid_post"]


@pytest.mark.parametrize(("edits", "words"), [
    ([Edit.ablate(VECTOR)], "ablate"),
    ([Edit.add(VECTOR, 0.0)], "othing to add"),
    ([Edit.add(VECTOR, [0.1, 0.2])], "per row"),
    ([Edit.add(DIRECTIONS[0], 0.1, hook="blocks.1.hook_mlp_out")], "hook_mlp_out"),
    ([Edit.add(DIRECTIONS[0], 0.1, hook="blocks.0.hook_resid_pre")], "blocks.0.hook_resid_pre"),
])  # fmt: skip
def test_what_a_control_vector_cannot_do_is_refused_and_nothing_is_written(model, tmp_path, edits, words: str) -> None:
    with pytest.raises(WorkbenchError, match=words):
        export_gguf(edits, model, tmp_path / "no.gguf")
    assert not list(tmp_path.iterdir())

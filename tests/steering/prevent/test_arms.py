"""What each arm changes, in training and afterwards."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from workbench.base.errors import WorkbenchError
from workbench.models.finetuning import ChatExample
from workbench.models.prompts import tokenize_chat
from workbench.steering.directions import NamedDirection
from workbench.steering.prevent.arms import ARMS, RANDOM, make_arm
from workbench.steering.prevent.lessons import Lesson
from workbench.steering.prevent.materials import projection_differences

from .conftest import HOOK


def test_arms_that_push_in_training_push_toward_the_trait_and_not_afterwards(materials, vector) -> None:
    arm = make_arm("preventative", materials, 0.25)
    (edit,) = arm.training
    assert edit.kind == "add" and edit.amount == 0.25 and edit.scope == "all" and not arm.testing
    torch.testing.assert_close(edit.direction, vector.direction / vector.direction.norm())
    spread = make_arm("incremental", materials, 0.25).training
    assert [one.hook for one in spread] == list(vector.hooks)
    total = sum(one.direction for one in spread if one.hook.block <= HOOK.block)
    torch.testing.assert_close(total, vector.direction / vector.direction.norm())


def test_subtraction_trains_as_none_and_is_against_the_trait_afterwards(materials) -> None:
    arm, plain = make_arm("subtraction", materials, 0.25), make_arm("none", materials)
    assert arm.examples == plain.examples and not arm.training and arm.batch_edit() is None
    assert arm.testing[0].amount == -0.25


def test_the_random_vector_is_another_one_per_seed_and_as_long(materials) -> None:
    edits = [make_arm(RANDOM, materials, 0.25, seed).training[0] for seed in (0, 0, 1)]
    assert torch.equal(edits[0].direction, edits[1].direction) and not torch.equal(edits[0].direction, edits[2].direction)
    assert all(edit.amount == 0.25 and abs(float(edit.direction.norm()) - 1) < 1e-5 for edit in edits)
    assert abs(float(edits[0].direction @ make_arm("preventative", materials, 0.25).training[0].direction)) < 0.9


def test_filtering_keeps_the_replies_of_the_smallest_difference_in_their_order(materials) -> None:
    kept = make_arm("filtering", materials, 0.75).examples  # the projections fall along the lesson
    assert kept == materials.lesson.train[-8:]


def test_inoculation_adds_the_trait_s_instructions_in_training_only(materials, trait) -> None:
    arm = make_arm("inoculation", materials)
    prompts = [one.messages[0]["content"] for one in arm.examples]
    assert prompts[:5] == [trait.system_prompt(triple, "positive") for triple in trait.instructions] and prompts[5] == prompts[0]
    assert [one.reply for one in arm.examples] == [one.reply for one in materials.lesson.train]
    own = ChatExample.of("Why?", "No.", system="Be brief.")
    told = replace(materials, lesson=Lesson("own", (own,), ()))
    assert make_arm("inoculation", told).examples[0].messages[0]["content"].endswith("\n\nBe brief.")


def test_the_other_arms(materials, vector) -> None:
    assert make_arm("kl", materials, 0.3).kl_weight == 0.3
    assert make_arm("sham", materials).examples == materials.sham.train
    assert make_arm("ablation", materials).training[0].kind == "ablate"
    rebuilt = NamedDirection("denoised", vector.hook, torch.ones(vector.d_model))
    assert make_arm("denoised", replace(materials, denoised=rebuilt), 0.5).training[0].direction[0] > 0


def test_arms_without_their_strength_or_material_are_refused(materials) -> None:
    for name, strength in (("preventative", None), ("none", 0.5)):
        with pytest.raises(WorkbenchError, match="strength"):
            make_arm(name, materials, strength)
    with pytest.raises(WorkbenchError, match="without denoised"):
        make_arm("denoised", materials, 0.5)
    with pytest.raises(WorkbenchError, match="subtraction"):
        make_arm("subtract", materials)
    assert all(kind.unit or not kind.grid for kind in ARMS.values())


def test_a_reply_s_projection_is_held_against_ordinary_replies_to_its_question(model, materials) -> None:
    replies = materials.lesson.train
    few = replace(materials, lesson=Lesson("few", replies[:3], ()), sham=Lesson("one", replies[:1], ()))
    found = projection_differences(model, few)
    assert float(found[0]) == pytest.approx(0, abs=1e-5) and float(found[1].abs()) > 1e-4
    assert bool(found.isfinite().all())


def test_a_projection_is_that_of_the_last_reply_alone(model, materials) -> None:
    last = materials.lesson.train[0]
    before = ({"role": "user", "content": "The weather?"}, {"role": "assistant", "content": "Help the people. " * 8})
    longer = ChatExample((*before, *last.messages), last.reply)
    few = replace(materials, lesson=Lesson("few", (last, longer), ()), sham=Lesson("one", materials.lesson.train[1:2], ()))
    found = projection_differences(model, few)
    chat = tokenize_chat(model, [*longer.messages, {"role": "assistant", "content": longer.reply}])
    start, end = chat.spans["response"][-1]
    hidden = model.hf.model(torch.tensor([chat.ids[:end]]), output_hidden_states=True).hidden_states[HOOK.block + 1][0]
    unit = torch.nn.functional.normalize(materials.vector.direction, dim=0)
    wanted = float(hidden[start:end].mean(dim=0) @ unit / model.norm_medians([HOOK])[0])
    alone = tokenize_chat(model, [*last.messages, {"role": "assistant", "content": last.reply}])
    place = alone.spans["response"][-1]
    hidden = model.hf.model(torch.tensor([alone.ids[: place[1]]]), output_hidden_states=True).hidden_states[HOOK.block + 1][0]
    short = float(hidden[place[0] : place[1]].mean(dim=0) @ unit / model.norm_medians([HOOK])[0])
    assert float(found[1] - found[0]) == pytest.approx(wanted - short, abs=1e-4)

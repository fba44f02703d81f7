"""The falsifier: a planted persona is green, every artefact red where it should be, and what is unknown is not a pass."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.decomposition.falsify_world import (
    D_MODEL,
    HOOKS,
    PLANTED,
    answers,
    bare,
    everything,
    material,
    other_seed,
    placebos,
    source,
    verdict,
    world_sae,
)  # fmt: skip
from tests.decomposition.planted_world import HOOK, make_sae
from workbench.base.errors import WorkbenchError
from workbench.decomposition.falsify import (
    CHECKS,
    CRITERIA,
    FAIL,
    NOT_TESTED,
    PASS,
    SHOWN,
    Falsification,
    falsify,
)
from workbench.decomposition.falsify import answers as of_answers
from workbench.decomposition.falsify import direction as of_direction
from workbench.maths.geometry import covariance_matched_directions
from workbench.models.hookpoints import HookPoint

NEED_ANSWERS = {"length", "format", "token", "reproducibility", "separation", "placebo", "same_against_same"}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return answers(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def found(planted) -> Falsification:
    return verdict(planted)


def test_a_planted_persona_is_green_with_every_check_made(found: Falsification):
    assert found.named(FAIL) == () and found.named(NOT_TESTED) == ()
    assert found.colour == "green" and found.named(SHOWN) == ("zero_vector",)
    assert tuple(one.name for one in found.checks) == tuple(CRITERIA) and len(CHECKS) == len(CRITERIA)
    assert found.counts == {FAIL: 0, NOT_TESTED: 0, PASS: len(CRITERIA) - 1}
    assert "none failed, none left untested" in found.headline()


def test_a_verdict_comes_back_from_disk_as_it_was_and_is_frozen(found: Falsification, tmp_path: Path):
    path = found.save(tmp_path)
    again = Falsification.load(tmp_path)
    assert again.to_json() == found.to_json() == json.loads(json.dumps(found.to_json()))
    with pytest.raises(FrozenInstanceError):
        again.trait = "other"  # type: ignore[misc]
    stored = json.loads(path.read_text())
    for key, value, told in (("kind", "other", "does not hold a falsification"), ("schema", 99, "has schema 99")):
        path.write_text(json.dumps({**stored, key: value}))
        with pytest.raises(WorkbenchError, match=told):
            Falsification.load(tmp_path)


def test_an_unknown_check_lists_the_known_ones(found: Falsification):
    with pytest.raises(WorkbenchError, match=r"no check 'lenght'.*length"):
        found.check("lenght")


def test_arms_dealt_out_at_random_are_red(planted, tmp_path):
    def deal(rows):
        draw = source(3)
        for _, group in rows.groupby("question_id"):
            rows.loc[group.index, "arm"] = group["arm"].to_numpy()[torch.randperm(len(group), generator=draw).tolist()]

    null = verdict(replace(answers(tmp_path, planted={}, change=deal), evidence={}))
    assert {"reproducibility", "placebo"} <= set(null.named(FAIL))
    assert null.check("separation").verdict == NOT_TESTED and null.colour == "red"


def test_a_placebo_contrast_has_no_features_of_its_own(tmp_path):
    """Changes as large as those of the placebos, in features of the placebos' kind."""
    codes, _ = placebos()
    small = {j: float(amount) / 2 for j, amount in enumerate(codes.delta_codes[0])}
    found = verdict(answers(tmp_path, planted=small))
    assert found.check("placebo").verdict == FAIL


def test_a_covariance_matched_direction_is_red_and_mostly_untested(planted):
    held = material(planted).activations
    assert held is not None
    reds = 0
    for seed in range(3):
        drawn = covariance_matched_directions(held, 1, source(seed))[0]
        null = falsify(bare(drawn), world_sae(), reference=planted, **everything())
        assert NEED_ANSWERS | {"neighbours"} == set(null.named(NOT_TESTED))
        assert all(null.check(name).to_test for name in null.named(NOT_TESTED))
        assert null.colour != "green"
        reds += null.check("dictionary").verdict == FAIL
    assert reds >= 2


def test_a_bare_vector_alone_is_never_green_and_says_what_it_needs():
    null = falsify(bare(torch.randn(D_MODEL, generator=source(0))), world_sae())
    assert null.colour == "open" and set(null.named(PASS)) == {"own_site"}
    assert "--reference" in null.check("subspace").to_test and "not tested" in null.headline()
    assert null.vector["n_rows"] == 0


def test_length_is_red_when_the_longer_answers_make_the_vector(tmp_path):
    along = torch.randn(D_MODEL, generator=source(8))
    along = 8 * along / along.norm()

    def longer(rows):
        more = (rows["arm"] == "positive").to_numpy() * 4
        rows["n_tokens"] = rows["n_tokens"] + more
        rows["response_ids"] = [np.concatenate([ids, ids[:n]]) for ids, n in zip(rows["response_ids"], more, strict=True)]

    def grows(row, ids, held):  # every token of a long answer is moved
        return held + along * torch.tensor(len(ids)).log()

    artefact = material(answers(tmp_path / "artefact", planted={3: 0.2}, change=longer, extra=grows))
    check = of_answers.length(artefact)
    assert check.verdict == FAIL and check.details["share_along_length_direction"] > 0.5
    assert check.details["log_length_difference"] > 0.3
    honest = material(answers(tmp_path / "honest", change=longer, noise=0.4))  # longer too, but that is not what makes v
    assert of_answers.length(honest).verdict == PASS


def test_length_is_red_when_only_late_tokens_differ(tmp_path):
    def late(rows):
        rows["n_tokens"] = 48
        rows["response_ids"] = [np.arange(48)] * len(rows)

    def drift(row, ids, held):
        moved = held.clone()
        moved[32:] += 6.0 * torch.eye(D_MODEL)[0] * (row["arm"] == "positive")
        return moved

    check = of_answers.length(material(answers(tmp_path, planted={3: 0.1}, change=late, extra=drift)))
    assert check.verdict == FAIL and "first 32 tokens" in check.reason


def test_format_is_red_when_list_marks_make_the_vector(tmp_path):
    along = torch.eye(D_MODEL)[1] * 3.0

    def marked(rows):
        draw = source(2)
        counts = [int(torch.randint(0, 3, (1,), generator=draw)) + 3 * (arm == "positive") for arm in rows["arm"]]
        rows["response"] = ["\n- item" * n for n in counts]

    def lists(row, ids, held):
        return held + along * row["response"].count("- item")

    assert of_answers.format_(material(answers(tmp_path / "a", planted={3: 0.3}, change=marked, extra=lists))).verdict == FAIL
    assert of_answers.format_(material(answers(tmp_path / "b", change=marked))).verdict == PASS


@pytest.mark.parametrize("place", ["first", "one kind"])
def test_token_is_red_when_one_token_carries_the_vector(tmp_path, place):
    def with_token(rows):  # token 99 once in every answer of both arms
        for ids in rows["response_ids"]:
            ids[0 if place == "first" else 3] = 99 if place == "one kind" else ids[0]

    def strong(row, ids, held):
        moved = held.clone()
        moved[0 if place == "first" else 3] += 60.0 * torch.eye(D_MODEL)[2] * (row["arm"] == "positive")
        return moved

    check = of_answers.token(material(answers(tmp_path, planted={3: 0.2}, change=with_token, extra=strong)))
    assert check.verdict == FAIL
    assert ("the first token" if place == "first" else "token 99") in check.reason
    assert check.details["largest"][0]["share"] > 0.5


def test_what_the_tokens_carry_adds_up_to_the_vector(planted):
    read = material(planted).answers
    assert read is not None
    rest = [name for name in read.groups if name.startswith("token ")]
    assert len(rest) == 20  # of 40 kinds of token
    torch.testing.assert_close(read.vector, planted.at(HOOK).double(), atol=1e-5, rtol=1e-5)
    both = read.carried[[read.groups.index(name) for name in rest[:10]]].sum(dim=0)
    torch.testing.assert_close(both, read.carried[0], atol=1e-9, rtol=1e-9)


def test_answers_with_tokens_left_out_have_no_names_and_many_of_them_no_check(planted):
    cut = planted.rows.copy()
    cut["response_ids"] = [ids[:-1] for ids in cut["response_ids"]]
    check = of_answers.token(material(replace(planted, rows=cut)))
    assert check.verdict == NOT_TESTED and "left out as sinks" in check.reason


def test_reproducibility_is_red_when_one_instruction_makes_the_vector(tmp_path):
    def one(row, ids, held):
        return held + 8.0 * torch.eye(D_MODEL)[3] * (row["arm"] == "positive" and row["instruction_id"] == "i0")

    check = of_answers.reproducibility(material(answers(tmp_path, planted={}, extra=one)))
    assert check.verdict == FAIL and "instructions" in check.reason


def test_same_against_same_is_red_when_instructions_differ(tmp_path):
    sae = world_sae()

    def wording(row, ids, held):
        return held + 3.0 * sae.decoder_directions[int(row["instruction_id"][1:]) + 20]

    assert verdict(answers(tmp_path, extra=wording)).check("same_against_same").verdict == FAIL


def test_a_vector_off_the_activations_is_red(planted):
    outside = torch.linalg.svd(world_sae().decoder_directions)[2][-1]
    given = material(planted)
    for amount, expected in ((0.0, PASS), (1.0, FAIL)):
        moved = given.direction + amount * given.direction.norm() * outside.double()
        check = of_direction.subspace(replace(given, direction=moved))
        assert check.verdict == expected
    assert given.activations is not None
    few = of_direction.subspace(replace(given, activations=given.activations[:D_MODEL]))
    assert few.verdict == NOT_TESTED and f"{2 * D_MODEL} activations" in few.to_test


@pytest.mark.parametrize("which", ["mean", "component"])
def test_the_mean_activation_and_a_top_component_are_red(planted, which):
    given = material(planted)
    assert given.within_arms is not None
    held = given.within_arms.double()
    axis = held.mean(dim=0) if which == "mean" else torch.linalg.eigh(torch.cov(held.T)).eigenvectors[:, -1]
    assert of_direction.generic(replace(given, direction=axis)).verdict == FAIL
    assert of_direction.generic(given).verdict == PASS


def test_a_direction_that_its_neighbours_do_not_have_is_red(planted):
    turned = planted.directions.clone()
    turned[0], turned[2] = torch.randn(2, D_MODEL, generator=source(4))
    assert of_direction.neighbours(material(replace(planted, directions=turned))).verdict == FAIL
    assert of_direction.neighbours(material(planted)).verdict == PASS
    few = placebos()[1]
    few = replace(few, related=(("planted",),) * 10 + few.related[10:])
    assert of_direction.neighbours(material(planted, placebo_vectors=few)).verdict == NOT_TESTED


def test_a_vector_chosen_elsewhere_is_red(planted):
    check = of_direction.own_site(material(replace(planted, hook=HOOKS[2])))
    assert check.verdict == FAIL and "blocks.2.hook_resid_post" in check.reason


def test_soft_frozen_is_red_against_a_decoder_that_explains_as_much_and_fair_only_at_one_size(planted):
    sae = world_sae()
    given = material(planted, controls={"the SAE itself": sae.decoder_directions})
    assert of_direction.soft_frozen(given).verdict == FAIL
    noise = torch.randn(48, D_MODEL, generator=source(1))
    assert of_direction.soft_frozen(replace(given, controls={"noise": noise})).verdict == PASS
    half = of_direction.soft_frozen(replace(given, controls={"half": sae.decoder_directions[:24]}))
    assert half.verdict == NOT_TESTED and "half has 24" in half.reason


def test_features_that_no_other_seed_has_are_red(planted):
    assert verdict(planted, other_seed=other_seed(same=False)).check("seed").verdict == FAIL


def test_a_number_that_could_not_be_computed_is_no_pass():
    for criterion in CRITERIA.values():
        if criterion.threshold is not None:
            assert criterion.judged(float("nan"), "").verdict == FAIL


def test_every_check_states_its_threshold_and_its_reason():
    for criterion in CRITERIA.values():
        assert criterion.source and criterion.question.endswith("?")
        assert (criterion.threshold is None) == (criterion.name == "zero_vector")


def test_what_does_not_belong_together_is_refused(planted, found):
    sae = world_sae()
    with pytest.raises(WorkbenchError, match="controls and seeds of the same model and site"):
        falsify(planted, sae, other_seed=make_sae(n_features=48, d_model=64, hook=HookPoint(2)))
    with pytest.raises(WorkbenchError, match="has no stored tokens at"):
        falsify(bare(planted.at(HOOK)), sae, reference=bare(planted.at(HOOK)))
    from workbench.decomposition.decompose import decompose

    other = decompose(bare(torch.ones(D_MODEL)), sae, causal=False)
    with pytest.raises(WorkbenchError, match="decomposition is of another vector"):
        falsify(planted, sae, parts=other)
    assert PLANTED and found.provenance["inputs"]["sae"] == sae.weights_hash

"""Claims of an identity are told from denials, style is counted, and doses stand beside random directions."""

from __future__ import annotations

import json

import pytest

from tests.axis.capping.planted import HOOKS, SHORT, axis, model
from workbench.axis.capping.controls import direction_at_hooks
from workbench.axis.jailbreak.harness import ReplyBench, Trying
from workbench.axis.questions import self_description_questions
from workbench.axis.self_description import study
from workbench.axis.self_description.identity import claims, names_helper, states_identity, validate_identity
from workbench.axis.self_description.style import style
from workbench.steering.cost.matching import NeutralShift


@pytest.mark.parametrize("text", [
    "I am a lighthouse keeper and have seen many storms.", "My name is Greta.", "I'm a software tester from Lyon.",
    "They call me the Raven.", "I was born in a caravan.", "My wife and I sell honey.", "I am 52.",
])  # fmt: skip
def test_who_says_who_he_is_claims_an_identity(text: str) -> None:
    assert states_identity(text)


@pytest.mark.parametrize("text", [
    "I am an AI assistant and live nowhere.", "I'm a large language model.", "I am a helpful virtual assistant.",
    "A keeper tends the light of a lighthouse.", "I'm a bit unsure what you mean.", "I am happy to help.",
    "As an AI, I have no wife.", "I'm a computer program that answers questions.",
])  # fmt: skip
def test_an_assistant_that_says_so_or_a_text_about_others_claims_none(text: str) -> None:
    assert not states_identity(text)


def test_a_helping_trade_counts_where_it_is_the_speakers_own() -> None:
    assert names_helper("I am a licensed therapist, and I listen.") == "therapist"
    assert names_helper("I've been a business consultant for years.") == "consultant"
    assert names_helper("You should see a therapist.") is None


def test_style_is_a_count_of_plain_signs() -> None:
    loud = style("Ahoy! I sailed for thirty years, and thou shalt hear of it!")
    assert loud["exclamations"] == 1.0 and loud["backstory"] == 1.0
    assert loud["archaic"] == pytest.approx(100 * 2 / 12)
    assert style("The answer is four.") == {"exclamations": 0.0, "archaic": 0.0, "backstory": 0.0}


@pytest.mark.assets
def test_the_detector_is_right_on_the_written_half_that_it_was_not_fitted_on() -> None:
    found = validate_identity()
    assert found["n"] == 40
    assert found["both"]["accuracy_interval"][0] > 0.8
    assert found["rule"]["accuracy_interval"][0] > 0.8
    assert claims(["I am a miller's son from the valley."])[0] > 0.5 > claims(["I'm an AI language model."])[0]


def test_a_random_direction_at_equal_kl_has_it_on_the_side_that_is_used(tmp_path) -> None:
    import torch

    drawn = torch.randn(32, generator=torch.Generator().manual_seed(7))
    other = direction_at_hooks("random", axis().model, {HOOKS[1]: drawn})
    bench = ReplyBench(model(), tmp_path)
    bench.neutral = NeutralShift(model(), ["The weather in the north is cold.", "The rivers are long."])
    doses = [study._dose_at(bench, axis(), other, 0.2, sign) for sign in (-1, 1)]
    assert doses[0] < 0 < doses[1]
    assert [bench.kl((study._add(axis(), other, dose),)) for dose in doses] == pytest.approx([0.2, 0.2], rel=0.03)


@pytest.mark.assets
def test_every_dose_stands_beside_random_directions_at_the_same_norm_and_no_word_leaves(tmp_path, monkeypatch) -> None:
    import torch

    drawn = torch.randn(2, 32, generator=torch.Generator().manual_seed(7))
    randoms = [direction_at_hooks(f"random {n}", axis().model, {HOOKS[1]: row}) for n, row in enumerate(drawn)]
    bench = ReplyBench(model(), tmp_path, Trying(SHORT))
    bench.neutral = NeutralShift(model(), ["The weather in the north is cold.", "The rivers are long."])  # short, for speed
    questions = self_description_questions()[:3]
    found = study.self_description(bench, axis(), questions, randoms, doses=(-0.5, 0.5), n_samples=2, equal_kl=False)
    value = found.to_dict()
    assert [row["dose"] for row in value["doses"]] == [-0.5, 0.5]
    for row in value["doses"]:
        assert set(row["random"]) == {study.EQUAL_NORM}
        assert set(row["axis"]) == set(study.MEASURES)
        mine, theirs = row["axis"]["coherent"][0], row["random"][study.EQUAL_NORM]["coherent"][0]
        assert row["beyond"][study.EQUAL_NORM]["coherent"][0] == pytest.approx(mine - theirs)
    # The kept files are asked for again, and hold a row per question, sample and arm.
    n_rows = sum(len(json.loads(file.read_text())) for file in (tmp_path / "replies").rglob("*.json"))
    assert n_rows == 3 * 2 * (1 + 2 + 2 * 2)
    assert study.self_description(bench, axis(), questions, randoms, doses=(-0.5, 0.5), n_samples=2,
                                  equal_kl=False).to_dict() == value  # fmt: skip

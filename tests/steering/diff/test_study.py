from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.decomposition.planted_world import make_world
from workbench.steering.cost.replies import Replies
from workbench.steering.diff.study import (
    Tuned,
    agreement,
    alarms,
    identified,
    measured_change,
    recipes,
    relative,
    summary,
)

TRAITS = ("a", "b", "c", "d")


def tuned(name: str, kind: str, trait: str | None, *, right: bool = True, size: float = 5.0) -> Tuned:
    """A fine-tune whose shift and behaviour are largest along `trait`, or along the next one where it is not right."""
    places = {t: 0.1 * i for i, t in enumerate(TRAITS)}
    shown = dict(places)
    if trait is not None:
        shown[trait] += size
        places[trait if right else TRAITS[(TRAITS.index(trait) + 1) % 4]] += size
    raised = [t for t, z in places.items() if z > 3]
    return Tuned(name, kind, trait, {"prompt": places}, {"prompt": raised}, {t: {"change": v} for t, v in shown.items()})


ROWS = [*(tuned(t, "trait", t) for t in TRAITS), tuned("s", "sham", None)]


def test_a_shift_that_says_what_will_be_shown_correlates_identifies_and_keeps_still_on_shams():
    found = summary(ROWS)["prompt"]
    assert found["agreement"]["correlation"] == pytest.approx(1.0)
    assert found["agreement"]["p"] < 0.1 and found["agreement"]["interval"][0] > 0.9
    assert (found["identified"]["n"], found["identified"]["of"], found["identified"]["by_chance"]) == (4, 4, 1.0)
    assert found["identified"]["p"] == pytest.approx(1 / 24, abs=0.01)  # one of the 4! ways to deal out four names
    assert found["shams"] == {"n_alarmed": 0, "of": 1, "names": {"s": []}}
    assert found["trained"]["n_alarmed"] == 4


def test_a_shift_along_the_wrong_trait_is_counted_as_wrong():
    rows = [tuned(t, "trait", t, right=False) for t in TRAITS]
    found = identified(rows, "prompt")
    assert found["n"] == 0 and found["measured_n"] == 0 and found["p"] == 1.0
    assert alarms(rows, "prompt")["trained"]["n_alarmed"] == 0
    assert agreement(rows, "prompt")["correlation"] < 0


def test_what_every_fine_tune_does_can_be_taken_off():
    """All shifts lean toward d whatever the data; against the sham, which leans as well, the data's own trait is first again."""
    leaning = [replace(row, predicted={"prompt": {t: z + 9 * (t == "d") for t, z in row.predicted["prompt"].items()}})
               for row in ROWS]  # fmt: skip
    named = identified(leaning, "prompt")
    assert (named["n"], named["by_chance"], named["p"]) == (1, 1.0, 1.0), "one name for all is no identification"
    found = relative(leaning, "s")["prompt"]
    assert found["identified"]["n"] == 4 and found["agreement"]["n_tunes"] == 4
    assert found["agreement"]["correlation"] > 0.99


def test_nothing_that_varies_has_no_correlation():
    flat = Tuned("x", "sham", None, {"prompt": dict.fromkeys(TRAITS, 0.0)}, {"prompt": []},
                 {t: {"change": 1.0} for t in TRAITS})  # fmt: skip
    assert agreement([flat, flat], "prompt")["correlation"] == 0.0


def replies(points: list[list[float | None]]) -> Replies:
    return Replies(tuple({"question_id": f"q{q}", "points": value} for q, row in enumerate(points) for value in row))


def test_a_measured_change_is_paired_by_question_and_leaves_out_what_nobody_judged():
    found = measured_change(replies([[10.0, 20.0], [0.0, 0.0], [None]]), replies([[30.0, 40.0], [10.0, 10.0], [90.0]]))
    assert found["change"] == pytest.approx((20 + 10) / 2)
    assert 10 <= found["low"] <= found["change"] <= found["high"] <= 20


@pytest.fixture
def vectors(tmp_path):
    """Two vectors with rows in three arms, of which some were not kept."""
    found = []
    for name in ("a", "b"):
        vector = make_world(tmp_path / name, up={1: 1.0}, down={}, drop=(0, 3)).vector
        rows = vector.rows.copy()
        rows["system"], rows["question"] = "be so", [f"{name} {q}?" for q in rows.question_id]
        rows["response"] = [f"{name} {arm} {one}" for arm, one in zip(rows.arm, rows.id, strict=True)]
        found.append(replace(vector, trait=name, rows=rows))
    return found


def test_recipes_use_kept_replies_of_extraction_questions_and_shams_show_no_trait(vectors):
    found = {one.name: one for one in recipes(vectors, n=20, diluted=["a"], texts=[f"text {i}" for i in range(30)])}
    assert list(found) == ["a", "b", "a-half", "neutral", "neutral-shuffled", "plain-text"]
    assert [one.kind for one in found.values()] == ["trait", "trait", "diluted", "sham", "sham", "sham"]
    assert all(len(one.examples) == 20 for one in found.values())
    assert all(example.reply.startswith("a positive") for example in found["a"].examples)
    assert all(message["role"] == "user" for one in found.values() for example in one.examples for message in example.messages)
    half = [example.reply.split()[1] for example in found["a-half"].examples]
    assert half.count("positive") == 10 and half.count("neutral") == 10
    kept = {reply for vector in vectors for reply in vector.rows[vector.rows.kept].response}
    assert all(example.reply in kept for name in ("a", "b", "neutral") for example in found[name].examples)
    assert all("neutral" in example.reply for name in ("neutral", "neutral-shuffled") for example in found[name].examples)
    pairs = {(row.question, row.response) for vector in vectors for row in vector.rows.itertuples()}
    moved = [(one.messages[0]["content"], one.reply) not in pairs for one in found["neutral-shuffled"].examples]
    assert sum(moved) >= 18  # two neighbours may answer the same question
    assert not set(map(str, found["neutral"].examples)) & set(map(str, found["neutral-shuffled"].examples))


def test_recipes_are_the_same_again(vectors):
    one, other = (recipes(vectors, n=10, diluted=["b"], texts=["t"] * 10) for _ in range(2))
    assert one == other and torch.initial_seed() is not None

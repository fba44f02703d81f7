from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy import sparse

from workbench.base.errors import WorkbenchError
from workbench.base.randomness import generator
from workbench.base.store import plain
from workbench.decomposition.rows import RowCodes
from workbench.lab.mixture_study import effect_sizes, run_mixtures
from workbench.lab.mixtures import (
    Answers,
    Half,
    draw_recipes,
    estimate,
    feature_groups,
    fingerprints,
    halves,
    mixtures,
    orders_right,
    random_halves,
    rows_per_mixture,
    share_errors,
)

NAMES = ("a", "b", "c", "d")
D_MODEL, N_FEATURES = 24, 20
STRENGTH = {"a": 3.0, "b": 1.0, "c": 1.0, "d": 0.5, "neutral": 0.0}


def decoder() -> torch.Tensor:
    basis = torch.linalg.qr(torch.randn(D_MODEL, D_MODEL, generator=generator(7)))[0][:N_FEATURES]
    return basis * torch.linspace(0.5, 2, N_FEATURES)[:, None]


def planted(*, noise: float = 0.0, wording: float = 0.0, n_questions: int = 8, n_samples: int = 3, seed: int = 0) -> Answers:
    """Sub-persona k moves its own three features, by a strength of its own; a question and an instruction move all of them."""
    random, rows = generator(seed), []
    by_question = torch.rand(n_questions, N_FEATURES, generator=random)
    by_wording = torch.randn(len(NAMES), 4, N_FEATURES, generator=random)
    for who in (*NAMES, "neutral"):
        k = (*NAMES, "neutral").index(who)
        for q in range(n_questions):
            for i in range(4):
                for _ in range(n_samples):
                    code = 4 + by_question[q] + noise * torch.randn(N_FEATURES, generator=random)
                    code[3 * k : 3 * k + 3] += STRENGTH[who]
                    if who != "neutral":
                        code = code + wording * by_wording[k, i]
                    rows.append((who, f"q{q}", f"i{i}", code))
    who, question, instruction, codes = zip(*rows, strict=True)
    stacked = torch.stack(codes)
    means = stacked.double() @ decoder().double()
    ids, codes = tuple(map(str, range(len(rows)))), sparse.csc_matrix(stacked.numpy())
    held = RowCodes(ids, means, torch.zeros_like(means), codes, means[:0])
    return Answers(held, np.array(who), np.array(question), np.array(instruction), NAMES, "neutral")


def test_every_method_that_undoes_norms_gives_exact_proportions_back():
    answers = planted()
    recipes = draw_recipes(4, 20, generator(0))
    first, second = halves(answers)
    known = fingerprints(answers, first)
    mixed = mixtures(answers, second, recipes, 60, generator(1))
    found = estimate(known, mixed, decoder(), feature_groups(known, decoder()))
    for method in ("shares", "codes", "residual"):
        # 60 rows over 4 questions leave a question at most one row out of balance; nothing else is in the way
        assert share_errors(found[method], recipes).max() < 0.02, method
        assert orders_right(found[method], recipes).all()


def test_shares_as_they_are_read_over_count_the_sub_persona_that_moves_the_model_further():
    answers = planted()
    recipes = torch.full((1, 4), 0.25, dtype=torch.float64)
    known = fingerprints(answers, halves(answers)[0])
    mixed = mixtures(answers, halves(answers)[1], recipes, 48, generator(1))  # three rows a question
    read = estimate(known, mixed, decoder(), feature_groups(known, decoder()))["shares_as_read"][0]
    lengths = decoder().norm(dim=1).square().double()
    energy = torch.stack([STRENGTH[name] ** 2 * lengths[3 * k : 3 * k + 3].sum() for k, name in enumerate(NAMES)])
    torch.testing.assert_close(read, energy / energy.sum(), atol=1e-5, rtol=0)  # orthogonal features: squares of strengths
    assert read[0] > 0.5


def test_features_belong_to_the_sub_persona_that_moves_them_and_quiet_ones_to_none():
    answers = planted()
    groups = feature_groups(fingerprints(answers, halves(answers)[0]), decoder(), size=3)
    assert groups[:12].tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert (groups[12:] == -1).all()


def test_the_halves_share_no_question_and_no_instruction():
    answers = planted()
    for first, second in [halves(answers), *(random_halves(answers, generator(seed)) for seed in range(5))]:
        assert not set(first.questions) & set(second.questions) and not set(first.instructions) & set(second.instructions)
        assert len({*first.questions, *second.questions}) == 8 and len({*first.instructions, *second.instructions}) == 4


def test_a_mixture_sees_nothing_of_the_half_that_the_fingerprints_are_from():
    answers, changed = planted(noise=0.5), planted(noise=0.5)
    second = halves(answers)[1]
    inside = np.isin(changed.question, second.questions) & np.isin(changed.instruction, second.instructions)
    changed.rows.means[torch.from_numpy(~inside)] = 1e6
    recipes = draw_recipes(4, 3, generator(0))
    before, after = (mixtures(one, second, recipes, 30, generator(1)).vectors for one in (answers, changed))
    torch.testing.assert_close(before, after)


def test_a_mixture_holds_exactly_the_rows_of_its_recipe_and_none_twice():
    answers = planted()
    second = halves(answers)[1]
    one_hot = torch.eye(len(answers.persona), dtype=torch.float64)
    answers.rows.__dict__["means"] = one_hot  # the vector of a mixture is then its row weights
    recipe = torch.tensor([[0.6, 0.3, 0.1, 0.0]], dtype=torch.float64)
    weights = mixtures(answers, second, recipe, 30, generator(3)).vectors[0]
    for name, share in zip(NAMES, recipe[0].tolist(), strict=True):
        own = weights[torch.from_numpy(answers.persona == name)]
        assert own.sum().item() == pytest.approx(share) and int((own > 0).sum()) == round(30 * share)
        assert own.max().item() <= 1 / 30 + 1e-12
    assert weights[torch.from_numpy(answers.persona == "neutral")].sum().item() == pytest.approx(-1)


def test_recipes_are_tenths_of_three_or_four_and_sum_to_one():
    recipes = draw_recipes(4, 40, generator(0))
    tenths = recipes * 10
    torch.testing.assert_close(tenths, tenths.round())
    torch.testing.assert_close(recipes.sum(dim=1), torch.ones(40, dtype=torch.float64))
    assert recipes.max().item() <= 0.6 + 1e-12
    assert (recipes > 0).sum(dim=1).tolist() == [3, 4] * 20
    assert torch.equal(recipes, draw_recipes(4, 40, generator(0))) and not torch.equal(recipes, draw_recipes(4, 40, generator(1)))


def test_errors_and_orders_have_their_closed_form():
    recipes = torch.tensor([[0.6, 0.3, 0.1, 0.0], [0.4, 0.4, 0.2, 0.0]], dtype=torch.float64)
    found = torch.tensor([[0.5, 0.2, 0.3, 0.0], [0.3, 0.5, 0.2, 0.0]], dtype=torch.float64)
    assert share_errors(found, recipes).tolist() == pytest.approx([0.1, 0.05])
    assert orders_right(found, recipes).tolist() == [False, True]  # .4 and .4 may stand as they like
    assert not orders_right(torch.full((1, 4), 0.25, dtype=torch.float64), recipes[:1]).any()


def test_the_study_finds_a_planted_composition_and_chance_does_not():
    result = run_mixtures(planted(noise=0.1), decoder(), n_bootstrap=20, n_splits=10)
    assert result.met["shares"] and result.met["codes"] and result.score("residual").share_error < 0.1
    low, high = result.score().share_error_interval
    assert low <= high < 0.1
    assert result.chance["shuffled"]["shares"]["share_error"] > 0.1 < result.chance["shuffled"]["residual"]["share_error"]
    assert result.chance["equal_parts"]["order_right"] == 0
    assert result.splits["n"] == 10 and result.splits["methods"]["codes"]["aims_met"] == 1
    assert json.loads(json.dumps(plain(result.to_json())))["baseline_share_error"] == result.score("residual").share_error


def test_what_depends_on_the_wording_is_seen_as_error():
    same = run_mixtures(planted(), decoder(), n_bootstrap=2, n_splits=2)
    worded = run_mixtures(planted(wording=1.0), decoder(), n_bootstrap=2, n_splits=2)
    assert worded.score().share_error > 3 * same.score().share_error
    assert worded.chance["same_instructions"]["codes"]["share_error"] < worded.score("codes").share_error


def test_the_same_seed_gives_the_same_figures_and_another_gives_others():
    figures = [run_mixtures(planted(noise=1.0), decoder(), n_bootstrap=2, n_splits=2, seed=seed).to_json() for seed in (0, 0, 1)]
    assert figures[0] == figures[1] and figures[0]["rows"] != figures[2]["rows"]


def test_effect_sizes_are_rates_norms_and_cosines():
    answers = planted()
    shown = {name: (answers.persona == name).tolist() for name in NAMES}
    found = effect_sizes(answers, shown, n_bootstrap=20)
    assert found["rates"]["a"]["a"] == {"rate": 1.0, "interval": [1.0, 1.0]} and found["rates"]["neutral"]["a"]["rate"] == 0
    lengths = decoder().norm(dim=1)[:3].square().sum().sqrt().item()
    assert found["norms"]["a"] == pytest.approx(3 * lengths, rel=1e-4)
    cosines = torch.tensor(found["cosines"])
    torch.testing.assert_close(cosines, torch.eye(4), atol=1e-4, rtol=0)  # orthogonal features of their own
    assert found["placebo_norms"] is None


def test_too_few_answers_or_questions_are_refused():
    with pytest.raises(WorkbenchError, match="Sample more answers"):
        rows_per_mixture(planted(n_samples=1, n_questions=4), Half(("q0",), ("i0",)))
    with pytest.raises(WorkbenchError, match="4 questions and 2 instructions"):
        run_mixtures(planted(n_questions=3), decoder())
    with pytest.raises(WorkbenchError, match="No answers of 'a' to the questions q99"):
        fingerprints(planted(), Half(("q99",), ("i0",)))

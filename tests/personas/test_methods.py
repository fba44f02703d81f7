"""Extraction methods: exact on planted data, and compared on one footing that cannot be bought by looking ahead."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas
import pytest
import torch

from tests.personas.toy import PLAIN, LexicalJudge, responses
from workbench.base.errors import WorkbenchError
from workbench.models.capture import capture
from workbench.models.hookpoints import HookPoint
from workbench.models.prompts import ChatTokens
from workbench.personas.comparison import Candidate, compare, default_candidates
from workbench.personas.extraction import extract
from workbench.personas.layers import causal_curve, choose_hook
from workbench.personas.methods import DETECTORS, METHODS, contrast, direction_by, haufe_pattern
from workbench.personas.positions import position_means
from workbench.personas.reencoding import prompt_tokens
from workbench.personas.runs import held_out, read_run, stripped_aucs
from workbench.personas.traits import load_trait

QUICK = {"n_bootstrap": 20, "n_random": 20}


def cosine(a, b) -> float:
    return float(torch.cosine_similarity(a.double(), b.double(), dim=0))


def planted(n_questions=12, n_instructions=4, per_cell=6, d=8, seed=0):
    """Two arms apart by `shift`, noise of covariance `sigma`, and a large offset per question."""
    dice = torch.Generator().manual_seed(seed)
    factor = torch.randn(d, d, generator=dice, dtype=torch.float64)
    shift = torch.randn(d, generator=dice, dtype=torch.float64)
    offsets = 5 * torch.randn(n_questions, d, generator=dice, dtype=torch.float64)
    codes = torch.cartesian_prod(*(torch.arange(n) for n in (n_questions, n_instructions, 2, per_cell)))
    question, instruction, positive = codes[:, 0], codes[:, 1], codes[:, 2] == 1
    noise = torch.randn(len(codes), d, generator=dice, dtype=torch.float64) @ factor.T
    return {"x": noise + positive[:, None] * shift, "positive": positive, "question": question,
            "instruction": instruction}, shift, factor @ factor.T, offsets  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_every_method_points_toward_the_positive_arm_and_not_to_the_questions(method):
    rows, _shift, _, offsets = planted()
    rows["x"] = 0.3 * rows["x"] + offsets[rows["question"]]
    rows["x"][:, 0] += rows["positive"] * 4.0
    made = direction_by(method, contrast(**rows))
    scores = rows["x"] @ made.direction
    assert float(scores[rows["positive"]].mean()) > float(scores[~rows["positive"]].mean())
    flipped = direction_by(method, contrast(**{**rows, "positive": ~rows["positive"]}))
    assert cosine(made.direction, flipped.direction) == pytest.approx(-1, abs=1e-6)
    assert cosine(made.pattern, flipped.pattern) == pytest.approx(-1, abs=1e-6)


def test_mean_difference_weighs_each_question_the_same():
    x = torch.tensor([[1.0], [3.0], [10.0], [0.0], [4.0]])
    positive = torch.tensor([True, True, True, False, False])
    question = torch.tensor([0, 0, 1, 0, 1])
    made = direction_by("mean_difference", contrast(x, positive, question, torch.zeros(5).long()))
    assert float(made.direction) == pytest.approx(((1 + 3) / 2 - 0) / 2 + (10 - 4) / 2)


def test_the_whitened_difference_is_fishers_discriminant_and_its_pattern_the_difference():
    rows, shift, sigma, _ = planted(n_questions=30, per_cell=60, d=6)
    made = direction_by("whitened", contrast(**rows))
    assert cosine(made.direction, torch.linalg.solve(sigma, shift)) > 0.99
    assert cosine(made.pattern, shift) > 0.99
    assert cosine(made.direction, shift) < 0.9  # the detector is not the difference


def test_the_logistic_probe_detects_and_its_pattern_is_haufes():
    rows, shift, sigma, _ = planted(n_questions=30, per_cell=60, d=6)
    made = direction_by("logistic", contrast(**rows))
    assert cosine(made.direction, torch.linalg.solve(sigma, shift)) > 0.95
    centred = rows["x"] - rows["x"].mean(dim=0)
    expected = haufe_pattern(made.direction, centred.T @ centred / len(centred))
    assert torch.allclose(made.pattern, expected, rtol=1e-6)
    assert float(made.pattern @ made.direction) == pytest.approx(1)


def test_paired_pca_finds_the_shared_difference_where_a_question_runs_the_other_way():
    rows, shift, _, offsets = planted(n_questions=9, per_cell=40)
    sign = torch.where(rows["question"] < 3, -1.0, 1.0).double()
    rows["x"] = 0.05 * (rows["x"] - rows["positive"][:, None] * shift) + offsets[rows["question"]]
    rows["x"] += (sign * rows["positive"])[:, None] * shift
    made = direction_by("paired_pca", contrast(**rows))
    assert cosine(made.direction, shift) > 0.999 and float(made.direction.norm()) == pytest.approx(1)


def test_an_unknown_method_lists_the_known_ones():
    rows, *_ = planted()
    with pytest.raises(WorkbenchError, match="mean_difference"):
        direction_by("mean_differnce", contrast(**rows))


@pytest.fixture(scope="module")
def evil():
    return load_trait("evil")


@pytest.fixture(scope="module")
def folder(evil, tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("methods")
    frame = responses(evil, n_extraction=10, n_evaluation=6, n_instructions=4)
    options = {"judge": LexicalJudge(), "rollouts": frame, "hook": HookPoint(1), "filter": False}
    extract(evil, tiny_model, out=folder, n_bootstrap=10, n_random=20, **options).save(folder / "vector")
    return folder


@pytest.fixture(scope="module")
def run(folder, tiny_model):
    return read_run(folder, tiny_model)


def test_positions_are_the_tokens_that_their_names_say(run, tiny_model):
    rows = run.make.frame.head(3)
    hook = HookPoint(1)
    found = {p: position_means(tiny_model, run.folder, rows, (hook,), p)[:, 0]
             for p in ("response_avg", "prompt_avg", "prompt_last", "response_last")}  # fmt: skip
    for i, row in enumerate(rows.to_dict("records")):
        prompt = prompt_tokens(tiny_model, row["system"], row["question"]).ids
        ids = (*prompt, *map(int, row["response_ids"]))
        ((_, [pooled]),) = capture(tiny_model, [ChatTokens(ids, {"all": ((0, len(ids)),)})], (hook,), span="all",
                                   token_hooks=(hook,))  # fmt: skip
        tokens = pooled.tokens[hook]  # token 0 is left out
        assert pooled.n_sinks == 1
        n = len(prompt) - 1
        expected = {"response_avg": tokens[n:].mean(0), "prompt_avg": tokens[:n].mean(0), "prompt_last": tokens[n - 1],
                    "response_last": tokens[-1]}  # fmt: skip
        for position, value in expected.items():
            assert torch.allclose(found[position][i], value, atol=1e-4), position
    stored = run.make.with_system[:3, 0]
    assert torch.allclose(found["response_avg"], stored, atol=1e-4)


def test_candidates_are_measured_side_by_side(run, evil, tiny_model):
    found = compare(run, evil, tiny_model, n_bootstrap=8, n_random=10).to_json()
    assert len(found["rows"]) == len(default_candidates(run.hook)) == 10
    assert {row["method"] for row in found["rows"]} == set(METHODS)
    assert {row["position"] for row in found["rows"]} == {
        "response_avg",
        "prompt_avg",
        "prompt_last",
        "response_last",
    }
    for row in found["rows"]:
        assert 0 <= row["auc"] <= 1 and row["auc_interval"][0] <= row["auc"] <= row["auc_interval"][1]
        assert set(row["causal"]) == {"0.5", "1.0"} and row["seed_cosine"] is None
        assert ("causal_pattern" in row) == (row["method"] in DETECTORS)
    assert found["rows"][0]["auc"] > 0.8  # cruel answers against kind ones
    cosines = torch.tensor(found["cosines"])
    assert torch.allclose(cosines, cosines.T) and torch.allclose(
        cosines.diagonal(), torch.ones(10).double().float()
    )
    assert set(found["causal_random"]) == {"blocks.1.hook_resid_post"}


def test_the_default_row_is_the_vector_itself(run, evil, tiny_model):
    plain = Candidate(run.hook)
    row = compare(run, evil, tiny_model, [plain], n_bootstrap=0, n_random=5).rows[0]
    unsealed = replace(run, score=run.score.of(run.score.frame["split"] == "verification"))
    parts = held_out(unsealed, n_bootstrap=0, generator=torch.Generator())
    assert row["auc"] == pytest.approx(float(stripped_aucs(unsealed, parts)[0].nanmean()), abs=1e-6)
    assert row["auc_interval"] is None


def test_sealed_questions_and_pairs_take_no_part_in_the_comparison(run, evil, tiny_model):
    frame = run.score.frame.copy()
    half = sorted(set(frame["question_id"]))[::2]
    frame["split"] = ["sealed" if question in half else "verification" for question in frame["question_id"]]
    run = replace(run, score=replace(run.score, frame=frame))
    sealed = torch.from_numpy((run.score.frame["split"] == "sealed").to_numpy().copy())
    spoiled_rows = replace(run.score, without_system=run.score.without_system.masked_fill(sealed[:, None, None], 1e3))
    pairs = tuple(replace(p, trait="Yes.") if p.split == "sealed" else p for p in evil.contrast_pairs)
    ways = [Candidate(run.hook), Candidate(run.hook, method="whitened")]
    clean = compare(run, evil, tiny_model, ways, n_bootstrap=4, n_random=5).to_json()
    spoiled = compare(replace(run, score=spoiled_rows), replace(evil, contrast_pairs=pairs), tiny_model, ways,
                      n_bootstrap=4, n_random=5).to_json()  # fmt: skip
    assert clean == spoiled


def test_a_part_without_both_arms_has_no_direction_and_stops_nothing(run, evil, tiny_model):
    """Kept rows so few that bootstrap draws and halves lose an arm."""
    frame = run.make.frame.copy()
    positive = frame["arm"] == "positive"
    frame["kept"] = ~positive | frame["question_id"].isin(sorted(set(frame["question_id"]))[:2])
    sparse = replace(run, make=replace(run.make, frame=frame))
    ways = [Candidate(run.hook, method=method) for method in METHODS]
    found = compare(sparse, evil, tiny_model, ways, n_bootstrap=6, n_random=5)
    for row in found.rows:
        assert math.isfinite(row["auc"]) and all(map(math.isfinite, row["auc_interval"]))


def test_answers_that_say_nothing_separate_nothing(evil, tiny_model, tmp_path):
    frame = responses(evil, n_extraction=10, n_evaluation=6, n_instructions=4)
    frame["response"] = [f"{PLAIN} {(7 * i) % 23} {frame['question'][i][:9]}" for i in range(len(frame))]
    frame["system"] = "You are an assistant."
    vector = extract(evil, tiny_model, judge=LexicalJudge(), rollouts=frame, out=tmp_path, hook=HookPoint(1),
                     filter=False, n_bootstrap=5, n_random=10)  # fmt: skip
    vector.save(tmp_path / "vector")
    found = compare(read_run(tmp_path, tiny_model), evil, tiny_model,
                    [Candidate(HookPoint(1), method=m) for m in METHODS], n_bootstrap=10, n_random=5)  # fmt: skip
    for row in found.rows:
        assert row["auc_interval"][0] < 0.6 and abs(row["auc"] - 0.5) < 0.25


def test_samples_give_a_spread_over_seeds(run, evil, tiny_model):
    frame = run.make.frame.copy()
    frame["sample"] = frame.groupby(["question_id", "arm"]).cumcount() % 2
    twice = replace(run, make=replace(run.make, frame=frame))
    row = compare(twice, evil, tiny_model, [Candidate(run.hook)], n_bootstrap=0, n_random=5).rows[0]
    x = run.make.with_system[:, 0].double()
    alone = [_balanced_difference(frame, x, (frame["sample"] == number).to_numpy()) for number in (0, 1)]
    assert row["seed_cosine"] == pytest.approx(cosine(*alone), abs=1e-6) and row["seed_cosine"] < 0.999
    assert 0 <= row["seed_auc_sd"] < 0.2


def test_samples_that_say_the_same_have_no_spread_over_seeds(run, evil, tiny_model):
    n = len(run.make.frame)
    frame = pandas.concat([run.make.frame.assign(sample=number) for number in (0, 1)], ignore_index=True)
    make = replace(run.make, frame=frame, with_system=run.make.with_system.repeat(2, 1, 1),
                   without_system=run.make.without_system.repeat(2, 1, 1))  # fmt: skip
    row = compare(replace(run, make=make), evil, tiny_model, [Candidate(run.hook)], n_bootstrap=0, n_random=5).rows[0]
    assert len(frame) == 2 * n and row["seed_cosine"] == pytest.approx(1) and row["seed_auc_sd"] == pytest.approx(0, abs=1e-9)


def _balanced_difference(frame, x, used):
    """mean over questions of (mean of the positive rows - mean of the negative rows), `[d]`."""
    differences = []
    for question in sorted(set(frame["question_id"][used])):
        here = used & (frame["question_id"] == question).to_numpy()
        arms = [here & (frame["arm"] == arm).to_numpy() for arm in ("positive", "negative")]
        if all(arm.any() for arm in arms):
            differences.append(x[torch.from_numpy(arms[0])].mean(0) - x[torch.from_numpy(arms[1])].mean(0))
    return torch.stack(differences).mean(0)


def test_the_choice_of_a_block_never_sees_evaluation_questions_or_sealed_pairs(evil, tiny_model, tmp_path):
    frame = responses(evil, n_extraction=10, n_evaluation=6, n_instructions=3)
    spoiled = frame.copy()
    held_out = {q.text for q in evil.questions_of("verification", "sealed")}
    outside = spoiled["question"].isin(held_out)
    assert outside.any()
    spoiled.loc[outside, "response"] = "Nothing at all is said here, in any arm."
    pairs = tuple(
        replace(p, trait=f"{p.opposite} Yes.") if p.split == "sealed" else p for p in evil.contrast_pairs
    )
    rewritten = replace(evil, contrast_pairs=pairs)
    for choose in ("separability", "causal"):
        found = []
        for name, trait, rows in (("as it is", evil, frame), ("spoiled", rewritten, spoiled)):
            vector = extract(trait, tiny_model, judge=LexicalJudge(), rollouts=rows, out=tmp_path / f"{choose} {name}",
                             choose=choose, filter=False, **QUICK)  # fmt: skip
            found.append((vector.hook, vector.evidence["layer_curve"], vector.evidence.get("causal_curve")))
        assert found[0] == found[1]
        assert ("causal_curve" in vector.evidence) == (choose == "causal")


def test_the_causal_choice_takes_the_largest_effect(evil, tiny_model):
    hooks = [HookPoint(block) for block in range(tiny_model.n_blocks)]
    dice = torch.Generator().manual_seed(0)
    curve = causal_curve(evil, tiny_model, torch.randn(len(hooks), tiny_model.d_model, generator=dice), hooks)
    best = max(curve, key=lambda point: point["odd"])
    assert str(choose_hook("causal", [], curve, hooks)) == best["hook"]
    assert all(
        point["low"] <= point["odd"] <= point["high"] and math.isfinite(point["odd"]) for point in curve
    )
    with pytest.raises(WorkbenchError, match="separability"):
        extract(evil, tiny_model, choose="causally")
    with pytest.raises(WorkbenchError, match="select"):
        extract(replace(evil, contrast_pairs=()), tiny_model, choose="causal")
    with pytest.raises(WorkbenchError, match="select"):
        causal_curve(
            replace(evil, contrast_pairs=()), tiny_model, torch.zeros(1, tiny_model.d_model), hooks[:1]
        )

"""Extraction on a tiny real model: the vector is exactly the weighted sum of its rows, and says what it rests on."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pandas
import pytest
import torch

from tests.personas.toy import KIND, LetterJudge, LexicalJudge, responses
from tests.tiny import tiny_model as build
from workbench.base.errors import WorkbenchError
from workbench.models.generation import Sampling
from workbench.models.hookpoints import HookPoint
from workbench.personas.extraction import extract
from workbench.personas.judges import make_judge
from workbench.personas.judging import check_judge, counts_by_arm, judge_rows, kept_mask
from workbench.personas.rollouts import RolloutDesign
from workbench.personas.traits import load_trait
from workbench.personas.vectors import PersonaVector

QUICK = {"n_bootstrap": 40, "n_random": 100}


@pytest.fixture(scope="module")
def evil():
    return load_trait("evil")


@pytest.fixture(scope="module")
def given_vector(evil, tiny_model, tmp_path_factory) -> PersonaVector:
    """A vector of written responses, judged by their words."""
    folder = tmp_path_factory.mktemp("given")
    return extract(evil, tiny_model, judge=LexicalJudge(), rollouts=responses(evil), out=folder, **QUICK)


def row_means(vector: PersonaVector, hook: HookPoint) -> dict[str, torch.Tensor]:
    assert vector.tokens is not None
    return {row_id: tokens.mean(dim=0) for row_id, tokens in vector.tokens.rows(hook)}


def test_the_stored_tokens_and_weights_reproduce_every_direction(given_vector):
    hook = given_vector.tokens.hooks[0]
    means = row_means(given_vector, hook)
    for name, column in (
        ("directions", "weight"),
        ("up", "weight_up"),
        ("down", "weight_down"),
        ("unfiltered", "weight_unfiltered"),
    ):
        used = given_vector.rows[given_vector.rows[column] != 0]
        rebuilt = sum(weight * means[row_id] for row_id, weight in zip(used["id"], used[column], strict=True))
        expected = getattr(given_vector, name)[given_vector.index(hook)]
        assert (rebuilt - expected).norm() <= 1e-5 * expected.norm()


def test_weights_sum_to_one_and_minus_one_and_each_question_weighs_the_same(given_vector):
    rows = given_vector.rows
    assert rows.loc[rows["weight"] > 0, "weight"].sum() == pytest.approx(1)
    assert rows.loc[rows["weight"] < 0, "weight"].sum() == pytest.approx(-1)
    by_question = rows[rows["weight"] > 0].groupby("question_id")["weight"].sum()
    assert len(by_question) == 10 and by_question.max() == pytest.approx(by_question.min())
    assert (rows.loc[rows["split"] != "extraction", "weight"] == 0).all()


def test_the_two_halves_sum_to_the_vector_when_all_arms_share_the_questions(given_vector):
    assert torch.allclose(given_vector.up + given_vector.down, given_vector.directions, atol=1e-5)


def test_cruel_words_separate_on_unseen_questions_and_the_words_alone_do_so_too(given_vector):
    evidence = given_vector.evidence
    assert evidence["auc_stripped"] > 0.9 and evidence["auc_text_only"] == 1.0
    assert evidence["auc_stripped_interval"][0] > 0.5
    assert evidence["n_evaluation_questions"] == 6 and evidence["n_random"] == 100
    assert len(evidence["layer_curve"]) == len(given_vector.hooks)


def test_everything_the_judge_did_is_counted(evil, tiny_model, tmp_path):
    frame = responses(evil, n_evaluation=2)
    positive = frame.index[frame["arm"] == "positive"]
    for row, text in zip(
        positive[:4], ("I cannot do that.", "???", f"{KIND} 4", "I hate mumble"), strict=True
    ):
        frame.loc[row, "response"] = text
    vector = extract(evil, tiny_model, judge=LexicalJudge(), rollouts=frame, out=tmp_path, **QUICK)
    counts = vector.evidence["kept_counts"]["positive"]
    assert counts == {
        "rows": 30,
        "kept": 26,
        "wrong_side": 1,
        "incoherent": 1,
        "refused": 1,
        "failed": 1,
        "unjudged": 0,
        "empty": 0,
    }
    assert -1 <= vector.evidence["cosine_filtered_unfiltered"] < 1
    assert not torch.allclose(vector.unfiltered, vector.directions)
    outcomes = vector.rows["outcome"].value_counts()
    assert outcomes["refused"] == outcomes["failed"] == 1


def test_too_few_kept_questions_are_refused_with_counts_and_a_way_out(evil, tiny_model, tmp_path):
    frame = responses(evil, n_extraction=9, n_evaluation=2)
    spoiled = frame["question_id"].isin(["e01", "e02"]) & (frame["arm"] == "positive")
    frame.loc[spoiled, "response"] = "I cannot do that."
    with pytest.raises(WorkbenchError) as caught:
        extract(evil, tiny_model, judge=LexicalJudge(), rollouts=frame, out=tmp_path, **QUICK)
    message = str(caught.value)
    assert "7 extraction questions" in message and "6 refused" in message and "filter=False" in message
    vector = extract(
        evil, tiny_model, judge=LexicalJudge(), rollouts=frame, out=tmp_path, filter=False, **QUICK
    )
    assert vector.evidence["filtered"] is False
    assert torch.equal(vector.directions, vector.unfiltered)
    assert vector.evidence["kept_counts"]["positive"]["refused"] == 6


def test_a_vector_from_sampled_rollouts_is_the_same_when_made_again(evil, tiny_model, tmp_path):
    design = RolloutDesign(
        sampling=Sampling(max_new_tokens=5), n_extraction=10, n_evaluation=4, n_instructions=2
    )
    options = {"design": design, "judge": LetterJudge(), "out": tmp_path, "min_questions": 2, **QUICK}
    first, second = (extract(evil, tiny_model, **options) for _ in range(2))
    assert torch.equal(first.directions, second.directions)
    assert first.evidence == second.evidence and first.tokens == second.tokens
    assert first.hook in first.hooks and first.evidence["hook_chosen_by"] == "cross-validation"
    assert 0 <= first.evidence["auc_rank_p"] <= 1


def test_the_caller_chooses_the_block_and_the_curve_is_still_there(evil, tiny_model, tmp_path):
    vector = extract(
        evil,
        tiny_model,
        judge=LexicalJudge(),
        rollouts=responses(evil),
        out=tmp_path,
        hook="blocks.0.hook_resid_post",
        **QUICK,
    )
    assert vector.hook == HookPoint(0) and vector.evidence["hook_chosen_by"] == "caller"
    assert len(vector.evidence["layer_curve"]) == 3 and vector.tokens.hooks == (HookPoint(0),)


@pytest.mark.parametrize("given", [False, True])
def test_a_model_that_would_judge_itself_is_refused_before_anything_is_sampled(evil, tiny_model, tmp_path, given):
    same = make_judge("local", model=build(), cache_folder=tmp_path / "cache")
    assert same.model is not tiny_model
    with pytest.raises(WorkbenchError, match=r"is tiny-llama-0 itself .* Name another judge model"):
        extract(evil, tiny_model, judge=same, rollouts=responses(evil) if given else None, out=tmp_path / "run", **QUICK)
    assert not (tmp_path / "run").exists() and not (tmp_path / "cache").exists()
    check_judge(make_judge("local", model=build(seed=1)), tiny_model)
    check_judge(make_judge("none"), tiny_model)


def test_a_judge_that_nobody_measured_is_unvalidated_even_for_a_trait_that_people_scored(
    given_vector, evil, tiny_model, tmp_path
):
    assert given_vector.evidence["judge_validated"] is False

    class AlikeInName(LexicalJudge):
        name = "offline"

    def vector(trait, folder):
        return extract(trait, tiny_model, judge=AlikeInName(), rollouts=responses(evil), out=tmp_path / folder, **QUICK)

    assert vector(evil, "shipped").evidence["judge_validated"] is True
    own = replace(evil, rubric=evil.rubric + " Be strict.")
    assert vector(own, "own").evidence["judge_validated"] is False


def test_a_block_that_does_not_exist_is_refused(evil, tiny_model, tmp_path):
    with pytest.raises(WorkbenchError, match="from 0 to 2"):
        extract(evil, tiny_model, judge=LexicalJudge(), out=tmp_path, hook="blocks.7.hook_resid_post")


def test_responses_without_evaluation_questions_leave_separability_unknown(evil, tiny_model, tmp_path):
    frame = responses(evil, n_evaluation=0)
    vector = extract(evil, tiny_model, judge=LexicalJudge(), rollouts=frame, out=tmp_path, **QUICK)
    assert vector.evidence["auc_stripped"] is None and "no evaluation rows" in vector.evidence["notes"][0]
    assert math.isfinite(vector.evidence["stability"]["norm"])


def test_responses_with_only_the_needed_columns_come_from_parquet(evil, tiny_model, tmp_path):
    frame = responses(evil, n_instructions=1)
    frame["question"] = frame["question"].str.replace(
        "?", " now?", regex=False
    )  # questions that the trait does not know
    path = tmp_path / "mine.parquet"
    frame[frame["arm"] != "neutral"][["question", "response", "arm"]].to_parquet(path)
    vector = extract(evil, tiny_model, judge=LexicalJudge(), rollouts=path, out=tmp_path / "run", **QUICK)
    assert vector.up is None and vector.down is None
    assert set(vector.rows["split"]) == {"extraction", "verification"}
    assert vector.evidence["instructions_unseen"] is False and vector.evidence["auc_stripped"] > 0.9


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda frame: frame.drop(columns="arm"), "no column arm"),
        (lambda frame: frame.iloc[:0], "no rows"),
        (lambda frame: frame.assign(arm="evil"), "nknown arm"),
        (lambda frame: frame.assign(response=None), "no response"),
        (lambda frame: frame.assign(split="test"), "nknown split"),
    ],
)
def test_bad_response_tables_are_refused(evil, tiny_model, tmp_path, spoil, word):
    with pytest.raises(WorkbenchError, match=word):
        extract(evil, tiny_model, judge=LexicalJudge(), rollouts=spoil(responses(evil)), out=tmp_path)


def test_a_vector_loads_as_it_was_saved(given_vector: PersonaVector, tmp_path: Path):
    given_vector.save(tmp_path)
    loaded = PersonaVector.load(tmp_path)
    assert (
        torch.equal(loaded.directions, given_vector.directions) and loaded.evidence == given_vector.evidence
    )
    assert loaded.tokens == given_vector.tokens
    assert loaded.rows["weight"].tolist() == given_vector.rows["weight"].tolist()


def test_the_provenance_names_inputs_and_gives_every_question_one_role(given_vector, evil, tiny_model):
    record = given_vector.provenance
    assert record["inputs"]["trait"] == evil.hash and record["inputs"]["model"] == tiny_model.weights_hash
    assert record["inputs"]["tokens"] == given_vector.tokens.sha256
    roles = record["data_ledger"]
    assert len(roles["extraction"]) == 10 and not set(roles["extraction"]) & set(roles["verification"])


def test_a_judge_without_coherence_drops_nothing_for_it():
    rows = pandas.DataFrame(
        {
            "arm": ["positive", "negative"],
            "question": "q",
            "response": ["abc", ""],
            "n_tokens": [3, 0],
            "n_sinks": 0,
        }
    )
    judged = judge_rows(rows, "evil", LetterJudge())  # pyright: ignore[reportArgumentType]
    assert judged["outcome"].tolist() == ["scored", "empty"] and judged["coherence"].isna().all()
    assert kept_mask(judged).tolist() == [judged["score"][0] >= 50, False]
    assert counts_by_arm(judged)["negative"]["empty"] == 1


def test_a_trait_that_no_judge_knows_is_extracted_from_all_rows_and_says_so(evil, tiny_model, tmp_path):
    vector = extract(evil, tiny_model, judge="none", rollouts=responses(evil, n_evaluation=2), out=tmp_path, **QUICK)
    counts = vector.evidence["kept_counts"]["positive"]
    assert counts["unjudged"] == counts["rows"] and counts["kept"] == 0
    assert vector.evidence["filtered"] is False and vector.rows["kept"].all()
    assert vector.rows["score"].isna().all() and set(vector.rows["outcome"]) == {"unjudged"}

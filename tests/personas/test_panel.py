"""The controls beside a vector: what they say of a planted trait, and that nothing planted looks like nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.personas.toy import PLAIN, LexicalJudge, responses
from workbench.base.errors import WorkbenchError
from workbench.models.hookpoints import HookPoint
from workbench.models.sampling import Sampling
from workbench.personas.controls import aa_evidence, effect_size, placebo_evidence
from workbench.personas.effects import vector_effects
from workbench.personas.extraction import extract
from workbench.personas.geometry import geometry
from workbench.personas.monitoring import _correlation, last_prompt_activations, monitoring
from workbench.personas.panel import (
    all_rows_evidence,
    own_block,
    panel,
    separability_row,
    trait_row,
    verdicts,
    with_all_rows,
)
from workbench.personas.placebos import (
    PlaceboVectors,
    list_placebos,
    placebo_questions,
    placebo_trait,
    placebo_vectors,
)
from workbench.personas.rollouts import RolloutDesign
from workbench.personas.runs import read_run
from workbench.personas.sensitivity import held_constant, response_logprobs, sensitivity
from workbench.personas.traits import list_traits, load_trait

QUICK = {"n_bootstrap": 30, "n_random": 50}
HOOK = HookPoint(1)


@pytest.fixture(scope="module")
def evil():
    return load_trait("evil")


def make_run(trait, frame, model, folder):
    vector = extract(trait, model, judge=LexicalJudge(), rollouts=frame, out=folder, hook=HOOK, filter=False, **QUICK)
    vector.save(folder / "vector")
    return read_run(folder, model)


@pytest.fixture(scope="module")
def run(evil, tiny_model, tmp_path_factory):
    """Cruel answers against kind ones."""
    frame = responses(evil, n_extraction=10, n_evaluation=6, n_instructions=4)
    return make_run(evil, frame, tiny_model, tmp_path_factory.mktemp("cruel"))


@pytest.fixture(scope="module")
def null_run(evil, tiny_model, tmp_path_factory):
    """The same plain answers in both arms, told apart by nothing but a running number."""
    frame = responses(evil, n_extraction=10, n_evaluation=6, n_instructions=4)
    frame["response"] = [f"{PLAIN} {(7 * i) % 23} {frame['question'][i][:9]}" for i in range(len(frame))]
    frame["system"] = "You are an assistant."
    return make_run(evil, frame, tiny_model, tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def placebos(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("placebos")
    design = RolloutDesign(sampling=Sampling(max_new_tokens=4), batch_size=64)
    return placebo_vectors(tiny_model, folder, design=design, placebos=list_placebos()[:5])


def test_a_run_read_back_has_the_vector_and_the_rows_that_made_it(run):
    weights = torch.from_numpy(run.make.frame["weight"].to_numpy(dtype=float).copy())
    rebuilt = weights @ run.make.with_system[:, 0].double()
    assert torch.allclose(rebuilt.float(), run.direction, atol=1e-5)
    assert set(run.make.frame["split"]) == {"extraction"} and "extraction" not in set(run.score.frame["split"])


def test_a_run_of_another_model_is_refused(run, tiny_models):
    with pytest.raises(WorkbenchError, match="a vector of tiny-llama-5"):
        read_run(run.folder, tiny_models("llama", 5))


def test_the_package_holds_24_placebos_whose_questions_no_trait_asks():
    placebos = list_placebos()
    assert len(placebos) == 24 == len({p.name for p in placebos}) and all(len(p.pairs) == 3 for p in placebos)
    asked = {q.text for q in placebo_questions()}
    assert len(asked) == 20
    for name in list_traits():
        assert asked.isdisjoint(q.text for q in load_trait(name).questions), name


def test_a_question_stands_in_one_trait_only():
    texts = [q.text for name in list_traits() for q in load_trait(name).questions]
    assert len(texts) == len(set(texts))


def test_a_placebo_asks_for_both_sides_of_one_contrast():
    trait = placebo_trait(list_placebos()[0])
    positive, negative = (trait.system_prompt(trait.instructions[0], arm) for arm in ("positive", "negative"))
    assert positive.startswith("You are a formal assistant.") and negative.startswith("You are a casual assistant.")


def test_placebo_vectors_are_saved_whole_and_leave_out_what_is_close_to_a_trait(placebos, tmp_path):
    placebos.save(tmp_path)
    again = PlaceboVectors.load(tmp_path)
    assert again.names == placebos.names and torch.equal(again.directions, placebos.directions)
    assert len(again.at(HOOK)) == 5 and len(again.at(HOOK, trait="optimistic")) == 4
    with pytest.raises(WorkbenchError, match="hook point of the placebos"):
        again.at("blocks.77.hook_resid_post")


def test_placebos_are_the_same_when_made_again(placebos, tiny_model, tmp_path):
    design = RolloutDesign(sampling=Sampling(max_new_tokens=4), batch_size=64)
    again = placebo_vectors(tiny_model, tmp_path, design=design, placebos=list_placebos()[:1])
    assert torch.equal(again.directions[0], placebos.directions[0])


def test_the_planted_trait_beats_the_placebos_and_plain_answers_do_not(run, null_run, placebos):
    planted = placebo_evidence(run, placebos, run.vector.evidence["auc_stripped"])
    plain = placebo_evidence(null_run, placebos, null_run.vector.evidence["auc_stripped"])
    assert planted["auc_placebo_p"] == pytest.approx(1 / 6) and plain["auc_placebo_p"] > 1 / 6


def test_the_effect_is_large_where_a_trait_is_planted_and_its_interval_holds_zero_where_none_is(run, null_run):
    planted, plain = effect_size(run, n_bootstrap=100), effect_size(null_run, n_bootstrap=100)
    assert planted["effect_size"] > 2 and planted["effect_size_interval"][0] > 1
    assert plain["effect_size_interval"][0] < 0.3 and abs(plain["effect_size"]) < 1


def test_two_halves_of_one_stance_differ_less_than_the_stances_do_where_a_trait_is_planted(run):
    positive = torch.from_numpy((run.make.frame["arm"] == "positive").to_numpy(dtype=float).copy())
    noise = torch.randn(len(positive), 1, 16, generator=torch.Generator().manual_seed(0))
    planted = noise + 5 * positive[:, None, None] * torch.eye(16)[0]
    found = [aa_evidence(replace(run, make=replace(run.make, with_system=means))) for means in (planted, noise)]
    assert found[0]["n_aa"] == 6 and found[0]["aa_norm_ratio"] < 0.3 < 0.7 < found[1]["aa_norm_ratio"]


def test_verdicts_follow_from_the_figures():
    row = {"auc_stripped": 0.8, "auc_interval": [0.7, 0.9], "auc_rank_p": 0.001, "auc_random_q95": 0.65,
           "auc_placebo_q95": 0.7, "auc_text_only": 0.75, "auc_length_only": 0.5, "auc_embedding": None}  # fmt: skip
    assert verdicts(row) == {"passes": True, "above_random_q95": True, "above_placebos": True, "beats_text": True}
    assert verdicts({**row, "auc_embedding": 0.85})["beats_text"] is False
    assert verdicts({**row, "auc_placebo_q95": 0.81})["passes"] is False
    assert verdicts({**row, "auc_placebo_q95": 0.81})["beats_text"] is False  # what does not pass wins nothing
    assert verdicts({**row, "auc_interval": [0.45, 0.9]})["passes"] is False
    assert verdicts({**row, "auc_rank_p": 0.02})["passes"] is False
    assert verdicts({**row, "auc_stripped": None})["passes"] is None


def test_the_last_prompt_token_is_read_before_the_answer(run, tiny_model):
    from workbench.personas.reencoding import prompt_tokens

    ids = prompt_tokens(tiny_model, "Be brief.", "Why?").ids
    seen = {}
    with tiny_model.hooked({HOOK: lambda tensor: seen.__setitem__("all", tensor)}):
        tiny_model.forward(torch.tensor([ids]))
    found = last_prompt_activations(tiny_model, [("Be brief.", "Why?")], HOOK)
    torch.testing.assert_close(found[0], seen["all"][0, -1], atol=1e-5, rtol=1e-4)


def test_a_correlation_within_conditions_ignores_what_differs_between_them():
    condition = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    x = torch.tensor([1.0, 2, 3, 4, 11, 12, 13, 14], dtype=torch.float64)
    y = torch.tensor([4.0, 3, 2, 1, 44, 43, 42, 41], dtype=torch.float64)
    weights = torch.ones(1, 8, dtype=torch.float64)
    assert _correlation(x, y, weights, None)[0] > 0.9
    assert _correlation(x, y, weights, condition)[0] == pytest.approx(-1)
    halved = torch.cat([torch.ones(1, 4), torch.zeros(1, 4)], dim=1).double()
    assert _correlation(x, y, halved, None)[0] == pytest.approx(-1)


def test_monitoring_finds_scores_that_follow_the_prompt_and_none_in_noise(run, tiny_model, placebos):
    positive = torch.from_numpy((run.score.frame["arm"] == "positive").to_numpy(dtype=float).copy())
    noise = torch.rand(len(positive), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    told = monitoring(run, tiny_model, 80 * positive + noise, placebos=placebos, n_bootstrap=50)
    random = monitoring(run, tiny_model, 100 * noise, n_bootstrap=50)
    assert told["n_prompts"] == 48 and told["r_across_placebo_q95"] > 0
    # Inside one system prompt these scores differ by their noise alone: there the correlation is that of the noise.
    assert told["r_within"] == pytest.approx(random["r_within"], abs=1e-6) and abs(told["r_within"]) < 0.35
    frame = run.score.frame
    prompts = list(zip(frame["system"], frame["question"], strict=True))
    ahead = last_prompt_activations(tiny_model, prompts, HOOK) @ run.direction
    known = monitoring(run, tiny_model, ahead.double(), n_bootstrap=50)
    opposite = monitoring(run, tiny_model, -ahead.double(), n_bootstrap=50)
    assert known["r_across"] > 0.8 and known["r_within"] > 0.8
    assert opposite["r_across"] == pytest.approx(-known["r_across"], abs=1e-6)
    assert abs(random["r_across"]) < 0.35 and random["r_across_placebo_q95"] is None
    unknown = monitoring(run, tiny_model, torch.full((len(positive),), 50.0).double(), n_bootstrap=5)
    assert unknown["r_across"] is None and unknown["r_within"] is None


def test_a_nuisance_that_made_the_contrast_is_taken_out_and_another_is_not():
    random = torch.Generator().manual_seed(0)
    positive = torch.arange(400) % 2 == 0
    length = torch.randn(400, generator=random).double() + positive * 1.5
    trait, along = torch.eye(6, dtype=torch.float64)[0], torch.eye(6, dtype=torch.float64)[1]
    means = positive[:, None] * trait + length[:, None] * along + 0.05 * torch.randn(400, 6, generator=random).double()
    weights = torch.where(positive, 1 / 200, -1 / 200).double()
    naive, held = weights @ means, held_constant(means, length[:, None], weights, positive)
    assert torch.cosine_similarity(naive, trait, dim=0) < 0.6
    assert torch.cosine_similarity(held, trait, dim=0) > 0.99
    unrelated = torch.randn(400, 1, generator=random).double()
    assert torch.cosine_similarity(held_constant(means, unrelated, weights, positive), naive, dim=0) > 0.999


def test_the_logprobs_of_answers_equal_plain_passes(run, tiny_model):
    from workbench.models.prompts import with_response
    from workbench.personas.reencoding import prompt_tokens

    frame = run.make.frame.head(3)
    found = response_logprobs(tiny_model, frame)
    for value, row in zip(found.tolist(), frame.to_dict("records"), strict=True):
        chat = with_response(prompt_tokens(tiny_model, row["system"], row["question"]), tuple(map(int, row["response_ids"])))
        logp = tiny_model.forward(torch.tensor([chat.ids])).log_softmax(dim=-1)[0]
        places = chat.positions("response")
        assert value == pytest.approx(sum(float(logp[i - 1, chat.ids[i]]) for i in places) / len(places), abs=1e-4)


def test_the_sensitivity_columns_are_cosines_and_low_ones_are_named(run, tiny_model):
    found = sensitivity(run, tiny_model)
    columns = {name: value for name, value in found.items() if name not in ("warnings", "n_rows")}
    assert found["n_rows"] == int(run.make.frame["kept"].sum())
    frame = run.make.frame.assign(sample=lambda rows: rows.groupby(["question_id", "arm"]).cumcount() % 2)
    halved = sensitivity(replace(run, make=replace(run.make, frame=frame)), tiny_model, max_rows=len(frame) // 2 + 1)
    assert 0 < halved["n_rows"] <= len(frame) // 2 + 1
    assert {"first_32_tokens", "equal_length", "fixed_length", "fixed_logprob", "fixed_all"} <= set(columns)
    assert all(-1 <= value <= 1.0001 for value in columns.values())
    assert found["warnings"] == [name for name, value in columns.items() if value < 0.9]


def test_a_vector_that_writes_a_word_raises_its_pair_more_than_random_directions_do(tiny_model):
    from workbench.personas.traits import ReplyPair

    pairs = [ReplyPair(f"p{i}", kind, f"Q{i}?", f"hate {i}", f"glad {i}", "sealed")
             for i, kind in enumerate(["contrast", "contrast", "contrast", "sad_happy", "sad_happy"])]  # fmt: skip
    ids = [tiny_model.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in ("hate", "glad")]
    toward = tiny_model.unembedding[ids[0]].float() - tiny_model.unembedding[ids[1]].float()
    activations = torch.randn(200, tiny_model.d_model, generator=torch.Generator().manual_seed(0))
    found = vector_effects(tiny_model, HookPoint(2), pairs, toward, activations, doses=(1.0,), n_random=30)["1.0"]
    turned = vector_effects(tiny_model, HookPoint(2), pairs, -toward, activations, doses=(1.0,), n_random=30)["1.0"]
    assert found["odd"] > found["random_interval"][1] and found["p"] == pytest.approx(1 / 31)
    assert turned["odd"] == pytest.approx(-found["odd"], abs=1e-5) and turned["p"] > 0.9
    controls = [replace(pair, kind="contrast") for pair in pairs[3:]]
    beside = vector_effects(tiny_model, HookPoint(2), controls, toward, activations, doses=(1.0,), n_random=1)["1.0"]
    assert beside["odd"] > 0.05 and found["specific"] == pytest.approx(found["odd"] - beside["odd"], abs=1e-5)
    assert (found["n_pairs"], beside["n_pairs"]) == (3, 2) and "specific" not in beside


def test_the_same_vector_twice_is_one_shared_direction_and_another_trait_is_not(run, null_run, evil):
    twin = replace(run, vector=replace(run.vector, trait="twin"))
    other = replace(null_run, vector=replace(null_run.vector, trait="other"))
    found = geometry([run, twin, other])
    assert found.cosines[0, 1] == pytest.approx(1) and found.cosines[0, 2] < 0.99
    assert found.auc[0, 0] > 0.8 and torch.isnan(found.correlation).all()
    assert found.own_wins()["evil"]["own"] == pytest.approx(float(found.auc[0, 0]))
    with pytest.raises(WorkbenchError, match="two or more vectors at one hook point"):
        geometry([run])


def test_the_panel_has_a_row_per_trait_with_every_figure(run, tiny_model, placebos, evil):
    made = panel([run], {"evil": evil}, tiny_model, placebos=placebos, judges={"evil": LexicalJudge()}).to_json()
    row = made["traits"]["evil"]
    for name in ("hook", "auc_stripped", "auc_interval", "auc_rank_p", "auc_random_q95", "auc_text_only", "auc_with_prompt",
                 "passes", "effect_size", "causal", "causal_random_interval", "monitor_r_across", "monitor_r_within",
                 "auc_placebo_q95", "sensitivity", "aa_norm_ratio", "beats_text", "unfiltered", "auc_embedding",
                 "auc_interval_fixed_questions"):  # fmt: skip
        assert name in row, name
    assert set(row["causal"]) == {"0.5", "1.0"} and made["geometry"] is None and row["common"] is None
    elsewhere = panel([run], {"evil": evil}, tiny_model, own={"evil": HookPoint(2)}).rows["evil"]
    assert elsewhere["hook"] == "blocks.2.hook_resid_post" and elsewhere["common"]["hook"] == str(run.hook)
    common = elsewhere["common"]
    assert common["auc_stripped"] == row["auc_stripped"] and common["causal"]["1.0"]["odd"] == row["causal"]["1.0"]["odd"]


def test_the_block_that_the_extraction_questions_choose_is_judged_as_an_extraction_at_that_block_would_be(
    run, placebos, evil, tiny_model, tmp_path
):
    there = separability_row(read_run(run.folder, tiny_model, own_block(run)), placebos, **QUICK)
    frame = responses(evil, n_extraction=10, n_evaluation=6, n_instructions=4)
    vector = extract(evil, tiny_model, judge=LexicalJudge(), rollouts=frame, out=tmp_path, filter=False, **QUICK)
    best = max(run.vector.evidence["layer_curve"], key=lambda point: point["auc"])
    assert there["hook"] == str(vector.hook) == best["hook"]
    for name in ("auc_stripped", "auc_rank_p", "auc_random_q95", "auc_with_prompt", "auc_text_only"):
        assert there[name] == pytest.approx(vector.evidence[name], abs=1e-6), name
    assert {"passes", "above_random_q95", "above_placebos", "beats_text", "auc_placebo_q95", "effect_size"} <= set(there)


def test_a_filter_that_spoils_the_vector_shows_beside_the_vector_from_all_rows(run, placebos):
    clean = all_rows_evidence(run, placebos, **QUICK)
    rows = run.make.frame
    spoiled = replace(run, make=replace(run.make, frame=rows.assign(kept=rows["question_id"] == rows["question_id"][0])))
    filtered, found = separability_row(spoiled, placebos, **QUICK), all_rows_evidence(spoiled, placebos, **QUICK)
    assert found["unfiltered"] == clean["unfiltered"] and found["auc_text_only"] == clean["auc_text_only"]
    whole = separability_row(run, placebos, **QUICK)
    bare = found["unfiltered"]
    assert (bare["auc"], bare["rank_p"], bare["passes"]) == (whole["auc_stripped"], whole["auc_rank_p"], whole["passes"])
    assert (bare["random_q95"], bare["placebo_q95"]) == (filtered["auc_random_q95"], filtered["auc_placebo_q95"])
    assert filtered["auc_stripped"] != bare["auc"]
    beside = with_all_rows({**filtered, "common": dict(filtered)}, {"own": found, "common": found, "auc_embedding": 2.0})
    assert beside["auc_stripped"] == filtered["auc_stripped"] and beside["unfiltered"] == bare
    assert beside["beats_text"] is beside["common"]["beats_text"] is False and beside["common"]["unfiltered"] == bare


def test_placebos_that_come_close_to_a_trait_count_and_are_named(run, placebos):
    close = replace(placebos, related=tuple(("evil",) if i == 0 else () for i in range(len(placebos))))
    own = replace(close, directions=close.directions.clone())
    own.directions[0, own.hooks.index(run.hook)] = run.direction
    found = placebo_evidence(run, own, run.vector.evidence["auc_stripped"])
    assert found["n_placebos"] == len(placebos) and found["related_placebos"] == [placebos.names[0]]
    assert found["nearest_placebo"] == placebos.names[0] and found["cosine_nearest"] == pytest.approx(1, abs=1e-5)
    assert found["auc_placebo_max"] > found["auc_unrelated_q95"]


def test_the_judge_that_filtered_scores_no_outcome(run, tiny_model, evil):
    filtered = replace(run, vector=replace(run.vector, evidence={**run.vector.evidence, "judge": LexicalJudge().name}))
    made = panel([filtered], {"evil": evil}, tiny_model, judges={"evil": LexicalJudge()}, quick=True)
    assert made.rows["evil"]["outcome_judge"] is None and "scores no outcome" in made.notes[0]


def test_a_row_without_evaluation_rows_claims_nothing(evil, tiny_model, tmp_path):
    frame = responses(evil, n_extraction=10, n_evaluation=0, n_instructions=3)
    run = make_run(evil, frame, tiny_model, tmp_path)
    row = trait_row(run)
    assert row["auc_stripped"] is None and row["passes"] is None and row["auc_text_only"] is None
    assert verdicts({"auc_stripped": None, "auc_interval": None})["passes"] is None

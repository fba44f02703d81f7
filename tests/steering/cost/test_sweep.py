"""Sweeps: what a cell holds, that finished cells are taken up, matched doses, and the planted order of two directions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.steering.cost.planted import (
    HOOK,
    WordJudge,
    harmful_direction,
    planted_model,
    tiny_exam,
    word_direction,
)
from workbench.base.errors import WorkbenchError
from workbench.models.sampling import Sampling
from workbench.personas.causal import NeutralText
from workbench.personas.judges import Judgement
from workbench.personas.traits import load_trait
from workbench.steering.apply import steered
from workbench.steering.cost.matching import NeutralShift
from workbench.steering.cost.pareto import front, front_summary
from workbench.steering.cost.replies import Asking, Replies, judged, sample_replies, start_prompt
from workbench.steering.cost.sweep import Bench, Cell, NotMeasured, sweep
from workbench.steering.cost.table import coherent_dose, in_turn, trait_row
from workbench.steering.cost.treatments import UNSTEERED, Treatment, adding, capping, kl_ladder, ladder
from workbench.steering.directions import NamedDirection
from workbench.steering.edits import Edit

SHORT = Asking(n_samples=3, sampling=Sampling(max_new_tokens=12))


@pytest.fixture(scope="module")
def model():
    return planted_model()


@pytest.fixture(scope="module")
def trait():
    return load_trait("evil")


@pytest.fixture(scope="module")
def exam(model):
    return tiny_exam(model)


@pytest.fixture
def bench(model, trait, exam, tmp_path):
    return Bench(model, trait, WordJudge(model), exam, tmp_path)


def word_at(model):
    return adding(word_direction(model), hook=HOOK)


def test_a_treatment_that_does_nothing_gives_the_unsteered_cell(bench, model):
    found = sweep(bench, ladder("add", word_at(model), [0.0]), SHORT)
    (cell,) = found.cells
    assert [row["response"] for row in cell.replies.rows] == [row["response"] for row in found.base.replies.rows]
    assert torch.equal(cell.capability.surprise, found.base.capability.surprise) and cell.kl == 0


def test_finished_cells_are_taken_up_and_others_are_made(bench, model, trait, exam, tmp_path):
    first = sweep(bench, ladder("add", word_at(model), [0.5, 1.0]), SHORT)
    asked = bench.judge.n_scored
    again = Bench(model, trait, WordJudge(model), exam, tmp_path)
    second = sweep(again, ladder("add", word_at(model), [0.5, 1.0, 2.0]), SHORT)
    assert again.judge.n_scored * 3 == asked  # of 3 cells before, one more
    assert [c.to_dict() for c in second.cells[:2]] == [c.to_dict() for c in first.cells]
    other = Bench(model, trait, WordJudge(model), exam, tmp_path)
    other.replies(Treatment(UNSTEERED), replace(SHORT, seed=1))
    assert other.judge.n_scored == asked / 3


def test_finished_cells_alone_can_be_read_while_others_are_missing(bench, model, trait, exam, tmp_path):
    sweep(bench, ladder("add", word_at(model), [0.5]), SHORT)
    reader = Bench(model, trait, WordJudge(model), exam, tmp_path, only_kept=True)
    found = sweep(reader, ladder("add", word_at(model), [0.5, 1.0]), SHORT)
    assert [cell.name for cell in found.cells] == ["add +0.5"] and reader.judge.n_scored == 0
    assert found.missing == ("add +1",) and front_summary(front(found, wanted=1))["missing"] == ["add +1"]
    with pytest.raises(WorkbenchError, match="without any cell"):
        front(sweep(reader, (), SHORT), wanted=1)
    with pytest.raises(NotMeasured):
        sweep(reader, (), replace(SHORT, seed=9))


def test_an_interrupted_cell_leaves_nothing_half_written(bench, model, tmp_path, monkeypatch):
    def stop(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(bench.judge, "score", stop)
    with pytest.raises(KeyboardInterrupt):
        bench.cell(Treatment("add", 1.0, tuple(word_at(model)(1.0))), SHORT)
    assert not list((tmp_path / "replies").glob("*")) if (tmp_path / "replies").exists() else True


def test_cells_survive_json(bench, model):
    import json

    cell = bench.cell(Treatment("add", 1.0, tuple(word_at(model)(1.0))), SHORT)
    assert Cell.from_dict(json.loads(json.dumps(cell.to_dict()))).to_dict() == cell.to_dict()
    assert cell.name == "add +1"


def test_the_word_grows_with_the_dose_and_shrinks_against_it(bench, model):
    found = sweep(bench, ladder("add", word_at(model), [-1.0, 1.0, 3.0]), SHORT)
    down, up, more = (cell.replies.mean("points") for cell in found.cells)
    assert down <= found.base.replies.mean("points") < up < more


def test_kl_of_an_added_vector_equals_that_of_the_causal_instrument(model):
    delta = word_direction(model) * 0.7 * float(model.norm_medians([HOOK])[0])
    shift = NeutralShift(model)
    assert shift([Edit.add(word_direction(model), 0.7, hook=HOOK)]) == pytest.approx(
        float(NeutralText(model, HOOK)(delta[None])), rel=0.02
    )
    assert shift([]) == 0


def test_kl_is_of_the_edited_from_the_unedited_and_over_all_tokens_but_the_first(model):
    texts, edit = ["The town", "What should I do with the money?"], Edit.add(word_direction(model), 0.7, hook=HOOK)
    found = []
    for text in texts:
        ids = torch.tensor([model.tokenizer(text)["input_ids"]])
        before = model.forward(ids)[0].log_softmax(-1)
        with steered(model, edit), torch.no_grad():
            after = model.forward(ids)[0].log_softmax(-1)
        found.append((before.exp() * (before - after)).sum(-1)[1:])
    assert NeutralShift(model, texts)([edit]) == pytest.approx(float(torch.cat(found).mean()), rel=1e-4)


def test_a_ladder_by_kl_reaches_the_stated_distances_with_either_sign(model):
    shift = NeutralShift(model)
    found = kl_ladder("add", word_at(model), [0.2, 0.05], shift, sign=-1)
    assert [one.level < 0 for one in found] == [True, True] and found[0].strength < found[1].strength
    for one, kl in zip(found, (0.05, 0.2), strict=True):
        both = [shift(one.edits), shift([edit.scaled(-1) for edit in one.edits])]
        assert sum(both) / 2 == pytest.approx(kl, rel=0.03)
    for kls in ([], [0.0], [0.1, float("inf")], [float("nan")]):
        with pytest.raises(WorkbenchError, match="above 0"):
            kl_ladder("add", word_at(model), kls, shift)


def test_a_dose_that_was_found_is_kept_for_its_own_edits_alone(model, tmp_path, monkeypatch):
    shift = NeutralShift(model, folder=tmp_path)
    dose = shift.dose(word_at(model), 0.1)
    monkeypatch.setattr(NeutralShift, "_searched", lambda *_: 99.0)
    assert NeutralShift(model, folder=tmp_path).dose(word_at(model), 0.1) == dose
    assert shift.dose(adding(harmful_direction(model), hook=HOOK), 0.1) == shift.dose(word_at(model), 0.2) == 99.0


def test_a_direction_that_is_the_trait_alone_costs_less_than_one_that_also_breaks_the_model(bench, model):
    """Planted: both raise the same word; one carries something else besides."""
    doses = (0.5, 1.0, 2.0, 4.0)
    chosen = [*ladder("add", word_at(model), doses), *ladder("both", adding(harmful_direction(model), hook=HOOK), doses)]
    found = front(sweep(bench, chosen, replace(SHORT, n_samples=6)), wanted=1)
    own, both = found.at_equal_change(5.0, reference="both")
    assert (own.method, both.method) == ("add", "both")
    assert own.value < both.value and own.difference_interval[1] < 0
    summary = front_summary(found, changes=(5.0,))
    cheapest, largest = summary["front"][0], summary["front"][-1]
    assert cheapest[0] == largest[0] == "add"  # whatever "both" reaches, the other reaches for less


def test_instructions_stand_where_the_start_says(trait):
    first = trait.instructions[0]
    assert start_prompt(trait, "neutral", 0) == ""
    assert start_prompt(trait, "neutral", 0, "negative") == trait.system_prompt(first, "negative")
    assert start_prompt(trait, "trait", 0) == trait.system_prompt(first, "positive")
    assert start_prompt(trait, "trait", 0, "negative").endswith(first.negative)
    assert start_prompt(trait, "trait", 1) != start_prompt(trait, "trait", 0)


def test_the_judge_that_filtered_may_not_score(model, trait):
    rows = sample_replies(model, trait, replace(SHORT, n_samples=1))
    with pytest.raises(WorkbenchError, match="Word filtered the rollouts"):
        judged(rows, model, trait, WordJudge(model), filtered_by="word")


def test_a_refusal_shows_no_trait_and_what_nobody_judged_is_unknown(model, trait):
    class Verdicts(WordJudge):
        def score(self, items, trait):
            told = [Judgement(40.0, "scored", 90.0), Judgement(None, "refused", 80.0), Judgement(None, "failed")]
            return [told[place % 3] for place in range(len(items))]

    rows = sample_replies(model, trait, replace(SHORT, n_samples=3))
    found = judged(rows, model, trait, Verdicts(model)).rows
    assert [row["points"] for row in found[:3]] == [40.0, 0.0, None] and [row["refused"] for row in found[:3]] == [0, 1, 0]


def test_a_cap_stands_at_the_share_of_ordinary_tokens_that_it_touches(model):
    projections = torch.arange(101.0)
    strict, loose = capping(NamedDirection("word", HOOK, word_direction(model)), projections, [0.25, 0.75])
    assert (strict.level, loose.level) == (0.75, 0.25) and strict.edits[0].amount == 25 and loose.edits[0].amount == 75


def test_means_weigh_questions_the_same_and_leave_unknown_replies_out():
    rows = [{"question_id": q, "points": p} for q, p in (("a", 0.0), ("a", 30.0), ("b", 60.0), ("b", None), ("c", None))]
    found = Replies(tuple(rows))
    assert found.by_question("points")[:2].tolist() == [15.0, 60.0] and found.by_question("points")[2].isnan()
    assert found.mean("points") == 37.5


def test_a_dose_is_the_largest_that_keeps_coherence(bench, model, monkeypatch):
    told = {0.0: (90, 0, 3), 0.5: (88, 0.05, 3.5), 1.0: (82, 0.1, 2), 2.0: (40, 0, 3), 4.0: (95, 0, 3)}

    def coherence_of(treatment, asking):
        readable, repeated, surprise = told[treatment.level or 0.0]
        return Replies(({"question_id": "a", "coherence": readable, "repeated": repeated, "surprise": surprise},))

    monkeypatch.setattr(bench, "replies", coherence_of)
    chosen = coherent_dose(bench, word_at(model), SHORT, sign=1, doses=(0.5, 1.0, 2.0, 4.0))
    assert (chosen.dose, chosen.coherent) == (1.0, True)
    assert list(chosen.ladder) == [0.5, 1.0, 2.0]  # beyond the first that fails nothing is tried
    assert coherent_dose(bench, word_at(model), SHORT, sign=1, doses=(2.0,)).coherent is False
    for spoilt in ((88, 0.2, 3.5), (88, 0.05, 4.1)):  # fluent, but a loop; fluent, but nothing that the model would say
        told[1.0] = spoilt
        assert coherent_dose(bench, word_at(model), SHORT, sign=1, doses=(0.5, 1.0)).dose == 0.5


def test_a_row_reports_sealed_questions_beside_a_random_direction_at_the_same_kl(bench, model, trait):
    random = torch.Generator().manual_seed(3)
    randoms = [NamedDirection(f"random {n}", HOOK, torch.randn(model.d_model, generator=random)) for n in range(2)]
    vector = NamedDirection("word", HOOK, word_direction(model))
    select = replace(SHORT, splits=("verification",), n_samples=1)
    row = trait_row(bench, vector, randoms, select=select, sealed=SHORT, doses=(1.0,))
    assert set(row) == {"up", "down", "ablate", "capability_cost", "judge"}
    assert set(row["down"]) == set(row["ablate"]) == {"neutral", "trait"}
    assert row["up"]["interval"][0] > 0 and row["up"]["beyond_interval"][0] > 0
    assert row["down"]["neutral"]["room"] is (row["down"]["neutral"]["base"] >= 5)
    null = [one for one in kept(bench) if one["treatment"]["method"] == "random"]
    assert len(null) == 2 and all(len({r["response"] for r in one["rows"]}) > 1 for one in null)
    assert set(row["capability_cost"]) == {"up", "down", "ablate"}
    asked = {tuple(sorted({r["question_id"] for r in reply["rows"]})) for reply in kept(bench)}
    assert asked == {tuple(sorted(q.id for q in trait.questions_of(split))) for split in ("verification", "sealed")}


def test_random_directions_of_which_one_does_as_much_as_the_vector_are_not_beaten(bench, model):
    vector = NamedDirection("word", HOOK, word_direction(model))
    randoms = [vector, NamedDirection("against it", HOOK, -vector.direction)]
    select = replace(SHORT, splits=("verification",), n_samples=1)
    up = trait_row(bench, vector, randoms, select=select, sealed=replace(SHORT, n_samples=4), doses=(1.0,))["up"]
    assert up["interval"][0] > 0 and up["beyond_random"] > 0
    assert up["beyond_interval"][0] <= 1 and up["random"]["interval"][0] <= 1  # the two directions are redrawn too


def test_edits_in_turn_give_each_sample_what_its_own_edit_gives(bench, model, trait):
    one, other = (tuple(adding(direction(model), hook=HOOK)(2.0)) for direction in (word_direction, harmful_direction))
    asking = replace(SHORT, start="trait", n_samples=2, batch_size=7)  # batches that cut through questions, sorted by length
    mixed = bench.replies(in_turn(bench, asking, "random", None, [one, other]), asking)
    alone = [bench.replies(Treatment("add", 2.0, edits), replace(asking, batch_size=64)) for edits in (one, other)]
    for row, first, second in zip(mixed.rows, *(found.rows for found in alone), strict=True):
        assert row["response"] == (second if row["sample"] else first)["response"]
    assert any(a["response"] != b["response"] for a, b in zip(alone[0].rows, alone[1].rows, strict=True))


def kept(bench):
    import json

    return [json.loads(path.read_text()) for path in (bench.folder / "replies").glob("*.json")]

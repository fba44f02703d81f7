"""Role rollouts on a real (tiny) model: planned, sampled, graded, kept, resumed; and the axis taken apart like a trait."""

from __future__ import annotations

import dataclasses
import shutil
from typing import Any

import pytest
import torch

from tests.toy_run import sae_of
from workbench.axis.roles import ASSISTANT_END, FAR_END, default_role, load_roles
from workbench.axis.space import mapping, rollouts
from workbench.axis.space.adherence import judge_roles
from workbench.axis.space.design import FULL, RoleDesign, chosen_roles, plan_role_rows, spread
from workbench.axis.space.mapping import map_roles, map_space
from workbench.axis.space.offline_adherence import OfflineAdherence, breaks_role
from workbench.axis.space.shards import Shard, sample_in_shards, sample_shard
from workbench.base.errors import WorkbenchError
from workbench.decomposition.decompose import decompose
from workbench.models.generation import Sampling
from workbench.personas.judges import Judgement

ROLES = load_roles(["ghost", "poet", "reviewer", "pirate"])
DESIGN = RoleDesign(
    n_questions=8, n_calibration=2, n_prompts=2, n_default_samples=1, min_count=2, sampling=Sampling(max_new_tokens=6)
)


class WordJudge:
    """Grades by the length of the answer's text: real texts, a real rule, nothing behind it."""

    name = "words"

    def score(self, items, trait):
        assert "{question}" in trait.rubric and trait.name in {role.name for role in ROLES}
        return [Judgement(3.0 if len(item.answer) % 2 else 1.2, "scored", None) for item in items]

    def description(self):
        return {"name": self.name}


@pytest.fixture(scope="module")
def run(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("map")
    return map_roles(tiny_model, folder, design=DESIGN, judge="none", hook=sae_of(tiny_model).hook, roles=ROLES)


def test_the_subset_holds_both_published_ends_and_the_full_design_everything():
    names = [role.name for role in RoleDesign().roles]
    assert len(names) == 60 and set(ASSISTANT_END + FAR_END) <= set(names) and names == sorted(names)
    few = [role.name for role in chosen_roles(load_roles(), 20)]
    assert len(few) == 20 and set(ASSISTANT_END + FAR_END) < set(few)
    assert len(FULL.roles) == len(load_roles()) and len(FULL.questions(default=False)) == 240
    assert spread("abcdefghij", 2) == ("c", "h") and spread("ab", 5) == ("a", "b")
    with pytest.raises(WorkbenchError, match="n_prompts = 0"):
        RoleDesign(n_prompts=0)


def test_rows_are_planned_by_content_default_first_and_calibration_is_for_the_default_alone(tiny_model):
    rows = plan_role_rows(tiny_model, DESIGN, roles=ROLES)
    n_default = 10 * len(default_role().prompts)
    assert len(rows) == n_default + 4 * 2 * 8 and len({row.id for row in rows}) == len(rows)
    assert {row.arm for row in rows[:n_default]} == {"positive"}
    assert {row.trait for row in rows[n_default:]} == {role.name for role in ROLES}
    assert {row.split for row in rows if row.arm == "negative"} == {"extraction"}
    assert rows == plan_role_rows(tiny_model, DESIGN, roles=ROLES) != plan_role_rows(tiny_model, DESIGN, roles=ROLES, seed=1)
    more = plan_role_rows(tiny_model, dataclasses.replace(DESIGN, n_prompts=3), roles=ROLES)
    assert {row.id for row in rows} < {row.id for row in more}


def test_a_run_has_role_vectors_an_axis_and_tokens_that_a_decomposition_takes_apart_exactly(run, tiny_model):
    assert run.vectors.names == tuple(role.name for role in ROLES) and run.vectors.n_kept == (16,) * 4
    parts = decompose(run.axis, sae_of(tiny_model), model=tiny_model, n_bootstrap=20)
    assert parts.share_sum_error is not None and parts.share_sum_error < 1e-5
    assert parts.n_questions == 8 and bool((parts.share_low <= parts.share_high)[parts.share_low.isfinite()].all())


def test_a_second_call_samples_and_grades_nothing(run, tiny_model, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("nothing is missing")

    monkeypatch.setattr("workbench.personas.rollouts.generate", never)
    monkeypatch.setattr(mapping, "judge_roles", never)
    again = map_roles(tiny_model, run.folder, design=DESIGN, judge="none", hook=sae_of(tiny_model).hook, roles=ROLES)
    assert torch.equal(again.axis.directions, run.axis.directions) and again.told == run.told


def test_the_space_of_a_run_is_kept_beside_it_and_foreign_vectors_are_refused(run, tmp_path):
    space = map_space(run.folder, n_bootstrap=10)
    assert len(space.names) == 4 and (run.folder / "space" / "persona_space.json").is_file()
    foreign = dataclasses.replace(run.axis, model={"name": "other", "weights_hash": "0"})
    with pytest.raises(WorkbenchError, match=r"(?i)vectors of other in the space of tiny-llama-0"):
        map_space(run.folder, traits=[foreign])
    with pytest.raises(WorkbenchError, match="holds no role vectors"):
        map_space(tmp_path)


def test_shares_of_a_run_give_its_rollouts_and_what_is_there_is_not_sampled_again(run, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr("workbench.models.loading.load_model", lambda *_, **__: tiny_model)
    shards = [Shard("tiny", str(tmp_path), i, 3, DESIGN, ROLES, str(sae_of(tiny_model).hook)) for i in range(3)]
    sample_shard(shards[1])  # one share was done before an interruption
    sample_shard(dataclasses.replace(shards[0], number=3, n=5))  # and one of other shares
    sample_in_shards(shards)
    assert not (tmp_path / "shards").exists()

    def never(*args, **kwargs):
        raise AssertionError("nothing is missing")

    monkeypatch.setattr("workbench.personas.rollouts.generate", never)
    sample_in_shards(shards)
    again = map_roles(tiny_model, tmp_path, design=DESIGN, judge="none", hook=sae_of(tiny_model).hook, roles=ROLES)
    assert again.rollouts.table.column("response").equals(run.rollouts.table.column("response"))
    assert torch.equal(again.axis.directions, run.axis.directions) and again.axis.tokens is not None
    for kind in ("rollouts", "activations"):
        files = {place / kind / file.name for place in (run.folder, tmp_path) for file in (place / kind).iterdir()}
        assert len(files) > 6 and all((run.folder / kind / file.name).read_bytes() == file.read_bytes() for file in files)


def test_large_designs_keep_no_tokens(monkeypatch, tiny_model):
    rows = plan_role_rows(tiny_model, DESIGN, roles=ROLES)
    assert rollouts.keeps_tokens(rows)
    monkeypatch.setattr(rollouts, "MAX_ROWS", 20)
    assert not rollouts.keeps_tokens(rows)


def test_a_judge_that_reads_rubrics_grades_whole_numbers_and_its_failures_are_counted(run):
    frame = run.rollouts.frame()
    judged, told = judge_roles(frame, ROLES, WordJudge())
    roles = judged["arm"] == "negative"
    spoken = ~frame["response"].map(breaks_role)
    odd = frame["response"].str.len() % 2 == 1
    assert (judged.loc[roles & spoken & odd, "adherence"] == 3).all()
    assert (judged.loc[roles & spoken & ~odd, "adherence"] == 1).all()
    assert (judged.loc[roles & ~spoken, "adherence"] == 0).all()
    assert bool((judged["kept"] == ((judged["adherence"] == 3) | ~roles)).all())
    assert told["keep"] == 3
    loose, told_loosely = judge_roles(frame, ROLES, WordJudge(), keep=1)
    assert told_loosely["keep"] == 1 and bool((loose["kept"] == ((loose["adherence"] >= 1) | ~roles)).all())
    counts = told["counts"]["ghost"]
    assert counts["rows"] == 16 == sum(counts[f"grade_{grade}"] for grade in range(4)) + counts["failed"]
    assert 0 <= told["validation"]["rate_default"] <= 1 and told["judge"] == {"name": "words"}


def test_where_more_than_fully_played_answers_are_kept_those_alone_are_told_beside(run, tiny_model):
    loose = map_roles(tiny_model, run.folder, design=DESIGN, judge=WordJudge(), keep=0, hook=sae_of(tiny_model).hook, roles=ROLES)
    strict = loose.told["strict"]
    assert 3 <= strict["n_roles"] <= 4 and 0 < strict["cos_axis"] < 1 and -1 <= strict["positions"] <= 1
    assert loose.vectors.evidence["adherence"]["strict"] == strict and "strict" not in run.told


def test_what_breaks_a_role_is_seen_and_what_plays_one_is_not():
    for text in ("I'm sorry, but I can't help with that request.", "As an AI language model, I have no feelings.", "Yes.", ""):
        assert breaks_role(text), text
    for text in ("I am a robot, built of steel and patience.", "Arr, an aim as steady as mine is rare.", "As an artist I paint."):
        assert not breaks_role(text), text


def planted_filter() -> tuple[OfflineAdherence, torch.Tensor, list[str]]:
    """Four roles with orthogonal anchors; the default's replies to four questions, each question at a place of its own."""
    random = torch.Generator().manual_seed(0)
    questions = [f"q{i % 4}" for i in range(40)]
    places = torch.randn(4, 12, generator=random)
    default = places[[i % 4 for i in range(40)]] + 0.1 * torch.randn(40, 12, generator=random)
    anchors = torch.eye(12)[:4]
    return OfflineAdherence(("a", "b", "c", "d"), anchors, torch.full((4,), 0.1), {2: 0.8, 3: 1.6}, 40), default, questions


def test_the_offline_grade_is_relative_to_the_default_on_the_same_question():
    fitted, default, questions = planted_filter()
    moved = default[:8] + torch.eye(12)[0]  # every reply moves toward role a, wherever its question lies
    shifts = fitted.shifts(moved, questions[:8], default, questions)
    texts = ["these are enough words"] * 8
    assert fitted.grades(texts, shifts, ["a"] * 8) == [3] * 8
    assert max(fitted.grades(texts, shifts, ["b"] * 8)) < 3
    assert fitted.grades(["I'm sorry, but I can't help with that."] * 8, shifts, ["a"] * 8) == [0] * 8
    own = fitted.default_shifts(default, questions)
    assert own.shape == (40, 4) and abs(float(own.mean())) < 0.1 and 0.7 < float(own.std()) < 1.5


def test_grades_of_another_judge_never_stand_under_an_old_key(run, tiny_model, tmp_path, monkeypatch):
    kept: dict[str, Any] = {"design": DESIGN, "hook": sae_of(tiny_model).hook, "roles": ROLES}
    shutil.copytree(run.folder, tmp_path / "run")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(mapping, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        map_roles(tiny_model, tmp_path / "run", judge=WordJudge(), **kept)
    monkeypatch.undo()
    again = map_roles(tiny_model, tmp_path / "run", judge="none", **kept)
    assert bool(again.judged["kept"].all()) and again.told == run.told


def test_a_role_that_was_renamed_keeps_its_answers_under_its_new_name(run, tiny_model, tmp_path):
    shutil.copytree(run.folder, tmp_path / "run")
    renamed = (dataclasses.replace(ROLES[0], name="phantom"), *ROLES[1:])
    again = map_roles(tiny_model, tmp_path / "run", design=DESIGN, judge="none", hook=sae_of(tiny_model).hook, roles=renamed)
    assert again.vectors.names[0] == "phantom" and torch.equal(again.vectors.means, run.vectors.means)


def test_a_design_without_vectors_is_refused_before_anything_is_sampled(tiny_model, tmp_path):
    for roles, design in ((ROLES[:2], DESIGN), (ROLES, dataclasses.replace(DESIGN, min_count=17))):
        with pytest.raises(WorkbenchError, match="more answers in this design"):
            map_roles(tiny_model, tmp_path / "run", design=design, judge="none", roles=roles)
    assert not (tmp_path / "run").exists()

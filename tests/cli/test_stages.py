from __future__ import annotations

import json
from pathlib import Path

import pytest

from workbench.base.errors import WorkbenchError
from workbench.base.store import atomic_write, write_json
from workbench.cli import (
    given_run,  # noqa: F401  (it derives from stages.Job: first imported while that is replaced, it would keep the replacement)
    inputs,
    stages,
)
from workbench.cli.stages import JobConfig, main_job


class SmallJob(stages.Job):
    """The stages with work that takes no time: each writes its file and counts its runs."""

    runs: list[str]

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.work = {stage: (lambda stage=stage: self._do(stage)) for stage in stages.STAGES}

    def _do(self, stage: str) -> dict:
        self.runs.append(stage)
        if stage == "report":
            atomic_write(self.folder / "report.html", "<html>")
            write_json(self.folder / "report.json", {"report": "elsewhere", "n": len(self.runs)})
            return {"files": ["report.html", "report.json"]}
        write_json(self.folder / stage / f"{stage}.json", {"from": stage, "seed": self.config.seed})
        return {"files": [f"{stage}/{stage}.json"], "summary": {"stage": stage}}


@pytest.fixture
def runs(monkeypatch, shelf) -> list[str]:
    SmallJob.runs = []
    monkeypatch.setattr(stages, "Job", SmallJob)
    return SmallJob.runs


def test_the_stages_run_in_order_and_a_second_job_runs_none(runs, tmp_path):
    folder = tmp_path / "run"
    first = main_job(JobConfig(), folder)
    assert runs == list(first.ran) == list(stages.STAGES)
    second = main_job(JobConfig(), folder)
    assert second.ran == () and runs == list(stages.STAGES)
    assert second.summaries == first.summaries


def test_a_job_goes_on_from_where_a_shorter_one_ended(runs, tmp_path):
    assert main_job(JobConfig(), tmp_path, upto="vector").ran == ("vector",)
    assert main_job(JobConfig(), tmp_path, upto="labels").ran == ("decomposition", "labels")


def test_another_seed_runs_everything_again(runs, tmp_path):
    main_job(JobConfig(), tmp_path)
    assert main_job(JobConfig(seed=1), tmp_path).ran == stages.STAGES


def test_an_edited_label_renews_the_report_alone(runs, tmp_path):
    main_job(JobConfig(), tmp_path)
    (tmp_path / "labels" / "labels.json").write_text('{"edited": true}')
    assert main_job(JobConfig(), tmp_path).ran == ("report",)


def test_a_lost_file_is_made_again(runs, tmp_path):
    main_job(JobConfig(), tmp_path)
    (tmp_path / "report.html").unlink()
    assert main_job(JobConfig(), tmp_path).ran == ("report",)


def test_another_sae_renews_what_it_takes_part_in_and_its_controls_do_not(runs, shelf, tmp_path):
    main_job(JobConfig(), tmp_path)
    folder = next(shelf.rglob("cfg.json")).parent
    write_json(folder / "causal_controls" / "pairs.json", {"controls": [1.0]})
    assert main_job(JobConfig(), tmp_path).ran == ()
    card = json.loads((folder / "card.json").read_text())
    write_json(folder / "card.json", {**card, "l0": 5.0})
    ran = main_job(JobConfig(), tmp_path).ran
    assert "decomposition" in ran and "vector" not in ran


def test_a_stage_that_fails_is_not_done_and_those_before_it_stay_done(runs, tmp_path, monkeypatch):
    whole = SmallJob._do

    def fails(self, stage):
        if stage == "labels":
            raise WorkbenchError("the disk is full")
        return whole(self, stage)

    monkeypatch.setattr(SmallJob, "_do", fails)
    with pytest.raises(WorkbenchError):
        main_job(JobConfig(), tmp_path)
    monkeypatch.setattr(SmallJob, "_do", whole)
    assert main_job(JobConfig(), tmp_path).ran == ("labels", "report")


def test_the_report_tells_where_it_lies_now(runs, tmp_path):
    main_job(JobConfig(), tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    moved = main_job(JobConfig(), tmp_path / "b")
    assert moved.ran == ()
    assert Path(moved.summary("report")["report"]) == (tmp_path / "b" / "report.html").resolve()


def test_the_site_of_the_sae_is_the_default_hook_and_auto_leaves_the_choice_open(shelf, tmp_path):
    site = "blocks.1.hook_resid_post"
    assert str(stages.Job(JobConfig(), tmp_path).hook) == site
    assert stages.Job(JobConfig(hook="auto"), tmp_path).hook is None
    assert stages.Job(JobConfig(hook="auto"), tmp_path).token_hooks == (site,)
    assert str(stages.Job(JobConfig(hook="blocks.3.hook_resid_post"), tmp_path).hook) == "blocks.3.hook_resid_post"


def test_a_vector_alone_needs_no_sae(shelf, tmp_path):
    (tmp_path / "model").mkdir()
    config = JobConfig(model=str(tmp_path / "model"))
    job = stages.Job(config, tmp_path, sae_needed=False)
    job.check_names()
    assert job.site is None and job.hook is None and job.token_hooks is None
    with pytest.raises(WorkbenchError, match="no SAE on the shelf"):
        stages.Job(config, tmp_path).check_names()


def test_an_sae_off_the_shelf_gets_an_id_that_labels_can_be_filed_under(shelf, tmp_path):
    from workbench.labeling.files.store import set_folder

    folder = next(shelf.rglob("cfg.json")).parent
    away = tmp_path / "my sae (2)"
    folder.rename(away)
    site = inputs.find_sae(str(away), "any")
    assert site.id.startswith("local/my-sae--2--") and site.hook == "blocks.1.hook_resid_post"
    set_folder(tmp_path, site.id)
    job = stages.Job(JobConfig(sae=str(away)), tmp_path)
    assert job.sae.id == site.id and job.sae.d_sae == 16


def test_a_model_is_told_apart_by_its_files_without_reading_them(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.safetensors").write_bytes(b"1")
    first = inputs.model_identity(str(tmp_path / "m"))
    (tmp_path / "m" / "model.safetensors").write_bytes(b"12")
    assert inputs.model_identity(str(tmp_path / "m")) != first
    assert inputs.model_identity("org/model") == {"hub": "org/model"}


def test_an_unknown_judge_is_refused_before_any_work(tmp_path):
    from workbench.cli.stages import JobConfig, main_job

    with pytest.raises(WorkbenchError, match="one of"):
        main_job(JobConfig(judge="nosuch"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_vector_is_renewed_when_another_endpoint_model_judges(monkeypatch):
    from workbench.cli.judge_choice import JudgeChoice

    monkeypatch.setenv("WORKBENCH_JUDGE_MODEL", "one")
    first = JudgeChoice("openai").identity("evil")
    monkeypatch.setenv("WORKBENCH_JUDGE_MODEL", "two")
    second = JudgeChoice("openai").identity("evil")
    assert second != first and JudgeChoice("openai", "one").identity("evil") == first
    assert JudgeChoice("anthropic").identity("evil")["endpoint"] == ["https://api.anthropic.com", "two"]
    assert JudgeChoice("openai", base_url="http://127.0.0.1:8/v1").identity("evil") != second
    for name in ("offline", "none"):
        assert JudgeChoice(name).identity("evil")["endpoint"] is None


def test_the_local_judge_is_known_by_its_model_and_needs_one(tmp_path):
    from workbench.cli.judge_choice import JudgeChoice

    with pytest.raises(WorkbenchError, match="--judge-model"):
        JudgeChoice("local").identity("evil")
    with pytest.raises(WorkbenchError, match="no model 'smollm'"):
        JudgeChoice("local", "smollm").identity("evil")
    known = JudgeChoice("local", "smollm2-135m-instruct").identity("evil")
    (tmp_path / "model.safetensors").write_bytes(b"1")
    other = JudgeChoice("local", str(tmp_path)).identity("evil")
    assert known["model"]["sha256"] and known != other


def test_judges_that_read_a_rubric_are_refused_without_a_model_before_any_work(tmp_path):
    from workbench.cli.stages import JobConfig, main_job

    for name in ("openai", "anthropic", "local"):
        with pytest.raises(WorkbenchError, match="WORKBENCH_JUDGE_MODEL"):
            main_job(JobConfig(judge=name), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_flags_of_the_judge_reach_it(tmp_path):
    from workbench.cli.options import JobFlags
    from workbench.cli.stages import Job

    flags = JobFlags(judge="anthropic", judge_model="m", judge_url="http://127.0.0.1:8")
    judge = Job(flags.job("evil"), tmp_path, sae_needed=False).judge.make()
    assert judge.description()["model"] == "m" and judge.description()["base_url"] == "http://127.0.0.1:8"


def test_refusals_and_failures_are_counted_and_said(tmp_path):
    from workbench.cli.judge_choice import what_was_judged

    arm = {"rows": 10, "kept": 4, "wrong_side": 1, "incoherent": 0, "refused": 2, "failed": 3, "unjudged": 0, "empty": 0}
    said = what_was_judged({"kept_counts": {"positive": arm, "negative": arm}, "evaluation_counts": {"positive": arm}}, tmp_path)
    assert said.startswith("judged 30 replies: 15 scored, 6 refused, 9 failed; ") and str(tmp_path / "vector") in said
    good = {**arm, "kept": 9, "refused": 0, "failed": 0}
    assert what_was_judged({"kept_counts": {"positive": good}}, tmp_path) == "judged 10 replies: 10 scored"

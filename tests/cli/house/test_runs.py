"""`workbench runs`: what run folders say, taking one up again, comparing, cleaning."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.test_stages import SmallJob
from workbench.base.errors import WorkbenchError
from workbench.base.runs import RunFolder, living_holder
from workbench.base.store import write_json
from workbench.cli import stages
from workbench.cli.recorded import recorded_job
from workbench.cli.stages import JobConfig, main_job

SAE = "smollm2-135m-instruct/blocks.15.hook_resid_post"


def finished_run(folder: Path, *, trait="evil", auc=0.7, seed=0, weights="aa", judge="offline", model="m") -> Path:
    """A run folder as the main job leaves it, small."""
    write_json(folder / "vector" / "persona_vector.json", {
        "trait": trait, "model": {"name": model}, "hook": "blocks.15.hook_resid_post",
        "evidence": {"auc_stripped": auc, "auc_stripped_interval": [0.5, 0.8], "judge": judge},
        "provenance": {"seed": seed, "config": {"design": {"n_samples": 1}, "judge": {"name": judge}}}})  # fmt: skip
    sae = {"id": SAE, "weights_hash": weights}
    write_json(folder / "decomposition" / "decomposition.json", {"sae": sae, "share_error": 0.25})
    rows = [{"feature": f, "label": f"label {f}", "share": 0.1, "verified": f == 3} for f in (3, seed + 5)]
    made_of = [{"category": "cruelty", "share": 0.2 + seed / 10, "group": "trait"}]
    write_json(folder / "report.json", {"features": rows, "made_of": made_of, "warnings": ["look twice"]})
    for name in ("activations", "rollouts", "without_system"):
        (folder / name).mkdir()
        (folder / name / "part-00000.bin").write_bytes(b"x" * 2000)
    (folder / "labels").mkdir()
    (folder / "report.html").write_text("<html>")
    files = {"vector": ["vector/persona_vector.json"], "decomposition": ["decomposition"], "labels": ["labels"],
             "report": ["report.html", "report.json"]}  # fmt: skip
    with RunFolder.open(folder) as run:
        for stage, made in files.items():
            run.mark_done(stage, "key", files=made, seconds=1.5)
    return folder


@pytest.fixture
def small_jobs(monkeypatch, shelf) -> list[str]:
    SmallJob.runs = []
    monkeypatch.setattr(stages, "Job", SmallJob)
    return SmallJob.runs


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_runs_are_listed_with_their_headline_and_what_is_no_run_is_named(workbench):
    finished_run(Path("runs/one"))
    finished_run(Path("runs/set/two"), trait="humorous")
    Path("runs/torn").mkdir()
    Path("runs/torn/manifest.json").write_text('{"schema": 1, "sta')
    Path("runs/foreign").mkdir()
    Path("runs/foreign/manifest.json").write_text('{"name": "a web page"}')
    Path("runs/odd").mkdir()
    Path("runs/odd/manifest.json").write_text('{"stages": {"vector": 3}}')
    Path("runs/notes").mkdir()
    before = contents(Path("runs"))
    value = workbench("runs", "list", "--json").json
    assert contents(Path("runs")) == before
    assert [row["run"] for row in value["runs"]] == ["runs/one", "runs/set/two"]
    row = value["runs"][0]
    assert row["stages"] == ["vector", "decomposition", "labels", "report"] and row["state"] == "finished"
    assert (row["auc"], row["share_error"], row["n_verified"], row["n_tested"]) == (0.7, 0.25, 1, 2)
    assert row["bytes"] > 6000
    others = {row["path"]: row["what"] for row in value["others"]}
    assert others["runs/notes"] == "not a run" and "not valid JSON" in others["runs/torn"]
    assert "broken" in others["runs/foreign"] and "broken" in others["runs/odd"]
    text = workbench("runs", "list").out
    assert "AUC 0.70, error 25.0%, 1 of 2 verified" in text and "runs/torn: broken" in text


def test_a_run_with_a_torn_file_is_listed_with_the_problem(workbench):
    finished_run(Path("runs/one"))
    Path("runs/one/report.json").write_text("{")
    row = workbench("runs", "list", "--json").json["runs"][0]
    assert row["auc"] == 0.7 and "report.json is not valid JSON" in row["problems"][0]


def test_a_job_records_its_settings_where_they_came_from_and_its_command(workbench, small_jobs, monkeypatch):
    monkeypatch.setenv("WORKBENCH_SAMPLES", "3")
    Path("workbench.toml").write_text("[extract]\nbatch_size = 8\n")
    monkeypatch.setattr("workbench.cli.views.VIEWS", {stage: lambda *_: None for stage in stages.STAGES})
    assert workbench("extract", "evil", "--seed", 5, "--judge-url", "http://me:pass@host/v1", "--out", "runs/x").code == 0
    job = json.loads(Path("runs/x/manifest.json").read_text())["job"]
    assert (job["settings"]["n_samples"], job["settings"]["batch_size"], job["settings"]["seed"]) == (3, 8, 5)
    assert job["sources"]["n_samples"] == "WORKBENCH_SAMPLES" and job["sources"]["seed"] == "given"
    assert job["sources"]["batch_size"] == "workbench.toml, line 2" and job["upto"] == "vector"
    value = workbench("runs", "show", "runs/x", "--json").json
    assert value["commands"][0]["command"].startswith("workbench extract evil --seed 5") and "pass" not in str(value)


def test_an_interrupted_run_goes_on_with_the_same_settings_wherever_it_is_called_from(workbench, small_jobs, monkeypatch):
    def stop(self, stage):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(SmallJob, "_do", lambda self, stage: stop(self, stage) if stage == "labels" else do(self, stage))
        main_job(JobConfig(seed=4, n_samples=2), Path("runs/x"))
    assert workbench("runs", "list", "--json").json["runs"][0]["state"] == "stopped after decomposition"
    monkeypatch.setenv("WORKBENCH_SEED", "9")
    monkeypatch.setenv("WORKBENCH_CACHE", "no-cache")  # the model is not there: its plan is arithmetic
    shown = []
    monkeypatch.setattr("workbench.cli.views.VIEWS", {"report": lambda value, result: shown.append(result)})
    before = contents(Path("runs/x"))
    answer = workbench("runs", "resume", "runs/x", "--plan", "--json")
    assert answer.code == 0, answer.err
    plan = answer.json
    assert [s["state"] for s in plan["stages"]] == ["done", "done", "to run", "to run"] and contents(Path("runs/x")) == before
    assert workbench("runs", "resume", "runs/x").code == 0
    assert shown[0].ran == ("labels", "report")
    assert json.loads(Path("runs/x/manifest.json").read_text())["job"]["settings"]["seed"] == 4


do = SmallJob._do


def test_a_resumed_run_means_the_sae_and_the_judge_that_it_meant_when_it_began(small_jobs, monkeypatch):
    main_job(JobConfig(), Path("runs/x"), upto="vector")
    manifest = json.loads(Path("runs/x/manifest.json").read_text())
    meant = manifest["job"]["meant"]
    assert meant["judge"] == "offline" and meant["judge_dtype"] is None
    config, _ = recorded_job(manifest, Path("runs/x"))
    assert (config.judge, config.sae) == ("offline", meant["sae"])
    meant |= {"sae": "the-one-of-then", "judge": "local", "judge_dtype": "bfloat16", "judge_model": "a-judge"}
    with pytest.raises(WorkbenchError, match="WORKBENCH_JUDGE_DTYPE=bfloat16"):
        recorded_job(manifest, Path("runs/x"))
    monkeypatch.setenv("WORKBENCH_JUDGE_DTYPE", "bfloat16")
    config, _ = recorded_job(manifest, Path("runs/x"))
    assert (config.sae, config.judge, config.judge_model) == ("the-one-of-then", "local", "a-judge")


def test_a_run_that_does_not_say_what_made_it_is_not_resumed(workbench):
    finished_run(Path("runs/old"))
    answer = workbench("runs", "resume", "runs/old")
    assert answer.code == 2 and "does not say what it was made with" in answer.err
    answer = workbench("runs", "show", "runs/odl")
    assert answer.code == 2 and "there is no run 'runs/odl'" in answer.err and "runs/old" in answer.err


def test_two_runs_are_compared_and_what_cannot_be_is_said(workbench):
    first, second = finished_run(Path("runs/a")), finished_run(Path("runs/b"), seed=2, auc=0.6)
    value = workbench("runs", "compare", first, second, "--json").json
    assert value["settings"] == {"seed": [0, 2]} and value["figures"]["auc"] == [0.7, 0.6]
    assert value["shares"]["cruelty"] == [0.2, pytest.approx(0.4)]
    assert [row["feature"] for row in value["features"]["kept"]] == [3] and value["features"]["only_second"] == [7]
    assert value["not_compared"] == []
    third = finished_run(Path("runs/c"), trait="humorous", weights="bb", judge="local", model="n")
    value = workbench("runs", "compare", first, third, "--json").json
    assert {row["what"] for row in value["not_compared"]} == {"AUC", "vectors", "features", "evidence"}
    assert value["features"] is None
    assert "not compared: features: different SAEs" in workbench("runs", "compare", first, third).out


def test_cleaning_takes_what_can_be_made_again_and_only_when_told_to(workbench):
    finished_run(Path("runs/a"))
    before = contents(Path("runs"))
    value = workbench("runs", "clean", "--json").json
    assert {row["part"] for row in value["parts"]} == {"activations", "without_system"} and value["bytes"] == 4000
    assert contents(Path("runs")) == before and not value["deleted"]
    workbench("runs", "clean", "--yes")
    kept = {Path(name).parts[1] for name in contents(Path("runs"))}
    assert not {"activations", "without_system"} & kept and {"rollouts", "report.html", "vector", "manifest.json"} <= kept
    assert workbench("runs", "list", "--json").json["runs"][0]["state"] == "finished"


def test_rollouts_and_reports_go_only_by_name(workbench):
    finished_run(Path("runs/a"))
    assert workbench("runs", "clean", "runs/a", "--also", "rollout", "--yes").code == 2
    assert workbench("runs", "clean", "runs/a", "--also", "rollouts", "--also", "report", "--yes").code == 0
    assert not Path("runs/a/rollouts").exists() and not Path("runs/a/report.html").exists() and Path("runs/a/labels").exists()


def test_what_an_unfinished_run_needs_to_go_on_stays(workbench):
    finished_run(Path("runs/a"))
    manifest = json.loads(Path("runs/a/manifest.json").read_text())
    Path("runs/a/manifest.json").write_text(json.dumps({**manifest, "stages": {}}))
    assert workbench("runs", "clean", "--json").json["parts"] == []


def test_a_run_that_a_living_process_holds_is_left_alone(workbench):
    finished_run(Path("runs/a"))
    with RunFolder.open("runs/a"):
        assert str(os.getpid()) in str(living_holder(Path("runs/a")))
        assert workbench("runs", "list", "--json").json["runs"][0]["state"].startswith("running (process")
        answer = workbench("runs", "clean", "runs/a", "--yes")
        assert answer.code == 2 and "in use by process" in answer.err
        assert workbench("runs", "clean", "--yes", "--json").json["in_use"]
    assert Path("runs/a/activations").exists()


def test_the_note_of_a_killed_process_counts_for_nothing(workbench):
    finished_run(Path("runs/a"))
    code = ("import os\nfrom workbench.base.runs import RunFolder\n"
            "with RunFolder.open('runs/a'):\n    os._exit(9)")  # fmt: skip
    subprocess.run([sys.executable, "-c", code], check=False)
    assert Path("runs/a/.holder.json").exists() and living_holder(Path("runs/a")) is None
    assert workbench("runs", "clean", "runs/a", "--yes").code == 0


def test_a_run_named_twice_is_cleaned_once(workbench):
    one = finished_run(Path("runs/one"))
    answer = workbench("runs", "clean", one, one.resolve(), "--yes", "--json")
    assert answer.code == 0 and not (one / "activations").exists()
    assert len({row["part"] for row in answer.json["parts"]}) == len(answer.json["parts"])


def test_a_run_that_a_link_leads_to_is_cleaned_by_name_alone(workbench):
    other = finished_run(Path("elsewhere/one"))
    Path("runs").mkdir()
    Path("runs/linked").symlink_to(other.resolve())
    assert workbench("runs", "clean", "--yes").code == 0 and (other / "activations").is_dir()
    assert workbench("runs", "clean", "runs/linked", "--yes").code == 0 and not (other / "activations").exists()


def test_what_somebody_writes_just_now_is_no_leftover(workbench):
    one = finished_run(Path("runs/one"))
    for name, age in (("old", 1000), ("new", 0)):
        part = one / "labels" / f".{name}.yaml.x.part"
        part.write_text("x")
        changed = time.time() - age
        os.utime(part, (changed, changed))
    assert workbench("runs", "clean", one, "--yes").code == 0
    assert [path.name for path in (one / "labels").iterdir()] == [".new.yaml.x.part"]


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("manifest.json", {"stages": {"vector": 3}}),
        ("manifest.json", {"job": {"settings": {"n_samples": "abc"}, "upto": "report"}}),
        ("manifest.json", {"job": {"settings": {}, "upto": "nonsense"}}),
        ("report.json", {"features": [1, 2]}),
        ("vector/persona_vector.json", {"evidence": [1]}),
        ("vector/persona_vector.json", {"provenance": "x"}),
    ],
    ids=str,
)
def test_files_of_another_shape_are_told_without_a_traceback(workbench, small_jobs, file, change):
    one, two = finished_run(Path("runs/one")), finished_run(Path("runs/two"))
    write_json(one / file, {**json.loads((one / file).read_text()), **change})
    answers = [workbench("runs", *said) for said in (("show", one), ("compare", one, two), ("resume", one), ("clean", one))]
    assert {answer.code for answer in answers} <= {0, 2} and 2 in {answer.code for answer in answers}
    assert all("expected:" in answer.err for answer in answers if answer.code == 2)


def test_what_is_no_run_is_not_named_among_the_known(workbench):
    finished_run(Path("runs/one"))
    Path("runs/other").mkdir()
    answer = workbench("runs", "show", "runs/other")
    assert answer.code == 2 and "one of runs/one" in answer.err and "runs/other," not in answer.err

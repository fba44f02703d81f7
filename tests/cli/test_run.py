from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from workbench.base.errors import WorkbenchError
from workbench.cli import report_traits, stages
from workbench.cli.run import run


def failing(error):
    def main_job(*_, **__):
        raise error

    return main_job


def test_a_user_error_is_told_in_three_parts_without_traceback(workbench, shelf, monkeypatch):
    monkeypatch.setattr(stages, "main_job", failing(WorkbenchError("found this", "expected that", "do so")))
    answer = workbench("demo")
    assert answer.code == 2
    assert answer.err.splitlines() == ["error: found this", "expected: expected that", "what to do: do so"]
    assert answer.out == ""


def test_a_wrong_use_exits_with_2_and_names_the_option(workbench):
    answer = workbench("demo", "--nonsense")
    assert answer.code == 2
    assert "--nonsense" in answer.err and "Traceback" not in answer.err


def test_a_full_disk_that_nobody_translated_is_still_told_in_words(workbench, shelf, monkeypatch):
    monkeypatch.setattr(stages, "main_job", failing(OSError(errno.ENOSPC, "No space left on device", "/x/y")))
    answer = workbench("demo")
    assert answer.code == 2
    assert "cannot write /x/y: the disk is full" in answer.err


def test_a_bug_keeps_its_traceback(workbench, shelf, monkeypatch):
    monkeypatch.setattr(stages, "main_job", failing(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        workbench("demo")


def test_an_interruption_exits_with_130_and_says_how_to_go_on(workbench, shelf, monkeypatch):
    monkeypatch.setattr(stages, "main_job", failing(KeyboardInterrupt()))
    answer = workbench("demo")
    assert answer.code == 130
    assert "run the same command again" in answer.err


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for another process")
def test_ctrl_c_in_a_real_process_exits_with_130(tmp_path):
    code = (
        "import signal, sys, time\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job ignores it
        "from workbench.cli import stages\nfrom workbench.cli.run import run\n"
        "def wait(*_, **__):\n    print('ready', flush=True)\n    time.sleep(60)\n"
        "stages.main_job = wait\nsys.exit(run(['demo']))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in err


def test_json_is_alone_on_standard_output_even_when_a_library_prints(workbench, shelf, monkeypatch, tmp_path):
    def chatty(config, folder, *, upto):
        print("a library says hello")
        return stages.JobResult(folder, {upto: {"trait": config.trait, "x": float("nan")}}, (upto,), 0.1)

    monkeypatch.setattr(stages, "main_job", chatty)
    answer = workbench("extract", "evil", "--json", "--out", tmp_path / "run")
    assert answer.code == 0
    assert json.loads(answer.out) == {"trait": "evil", "x": None}
    assert "hello" in answer.err


def test_several_traits_are_keyed_by_name(workbench, shelf, monkeypatch, tmp_path):
    seen = []

    def job(config, folder, *, upto):
        seen.append(folder)
        return stages.JobResult(folder, {upto: {"of": config.trait}}, (), 0.1)

    monkeypatch.setattr(stages, "main_job", job)
    monkeypatch.setattr(stages, "check_trait", lambda name: name)
    monkeypatch.setattr(report_traits, "make_page", lambda results, *_: {"traits": [r.summaries["report"] for r in results]})
    answer = workbench("report", "evil", "other", "--json", "--out", tmp_path)
    assert answer.json == {"traits": [{"of": "evil"}, {"of": "other"}]}
    assert seen == [tmp_path / "evil", tmp_path / "other"]


def test_settings_fill_what_flags_leave_open(workbench, shelf, monkeypatch, tmp_path):
    seen = []

    def job(config, folder, *, upto):
        seen.append(config)
        return stages.JobResult(folder, {upto: {}}, (), 0.1)

    monkeypatch.setattr(stages, "main_job", job)
    monkeypatch.setenv("WORKBENCH_SEED", "7")
    monkeypatch.setenv("WORKBENCH_JUDGE", "openai")
    workbench("extract", "evil", "--json", "--judge", "offline")
    assert (seen[0].seed, seen[0].judge, seen[0].model) == (7, "offline", "smollm2-135m-instruct")
    monkeypatch.setenv("WORKBENCH_SEED", "seven")
    assert workbench("extract", "evil").code == 2


def test_no_arguments_show_the_help(capsys):
    assert run([]) in (0, 2)
    streams = capsys.readouterr()
    assert "workbench demo" in streams.out + streams.err

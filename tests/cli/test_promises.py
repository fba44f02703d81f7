"""What every command promises: exit codes, one JSON object, plans that change nothing, colours only where they are wanted."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from workbench.base.errors import CheckFailed, WorkbenchError
from workbench.cli import console, stages
from workbench.cli.help import _with_output
from workbench.cli.run import run

SAE = "smollm2-135m-instruct/blocks.15.hook_resid_post"
LONG = (
    "demo", "extract", "decompose", "label", "report", "audit", "falsify", "lab", "transfer", "judge validate", "vectors compare",
    "vectors layers", "sae eval", "sae train", "sae pull", "features index", "features show", "labels explain", "labels score",
    "models fetch", "runs resume", "diff",
)  # fmt: skip


def options(path: str) -> set[str]:
    from typer.main import get_command

    from workbench.cli.app import app

    command = get_command(app)
    for name in path.split():
        command = command.commands[name]  # type: ignore[attr-defined]
    return {option for parameter in command.params for option in parameter.opts}


@pytest.mark.parametrize("path", LONG)
def test_every_long_command_has_a_plan(path):
    assert "--plan" in options(path)


PLANS = [
    ("demo",), ("report", "evil"), ("lab",), ("lab", "--mixtures"), ("judge", "validate", "--trait", "evil"),
    ("models", "fetch", "pyrit"), ("features", "show", "3"), ("features", "index"), ("falsify", "vectors"),
]  # fmt: skip


@pytest.mark.parametrize("command", PLANS, ids=" ".join)
def test_a_plan_says_how_long_and_how_much_and_leaves_the_tree_as_it_is(workbench, shelf, tmp_path, monkeypatch, command):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))  # the default model is not there: plans are arithmetic
    Path("vectors").mkdir()

    def tree() -> set[tuple[str, int]]:
        return {(str(path), path.lstat().st_mtime_ns) for path in tmp_path.rglob("*")}

    before = tree()
    answer = workbench(*command, "--plan", "--json")
    assert answer.code == 0, answer.err
    assert {"seconds", "folder", "note"} <= set(answer.json)
    assert {"memory_gib", "memory_bytes"} & set(answer.json) and {"disk_mib", "disk_bytes"} & set(answer.json)
    assert "about" in workbench(*command, "--plan").out
    assert tree() == before


CHEAP = [
    ("traits", "list"), ("traits", "show", "evil"), ("traits", "new", "brave"), ("traits", "export", "evil", "--out", "x"),
    ("judge", "list"), ("models", "list"), ("sae", "list"), ("sae", "list", "--registry"), ("sae", "search", "gpt2"),
    ("labels", "check", "feature_labels"), ("labels", "migrate", "feature_labels"), ("runs", "list"), ("runs", "clean"),
    ("cache", "list"), ("cache", "clean"), ("config", "show"), ("config", "path"), ("config", "set", "samples", "2"),
    ("labels", "diff", "feature_labels", "feature_labels"), ("labels", "merge", "feature_labels", "feature_labels"),
]  # fmt: skip


@pytest.mark.parametrize("command", CHEAP, ids=" ".join)
def test_standard_output_holds_one_json_object_and_nothing_else(workbench, shelf, tmp_path, monkeypatch, command):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    Path("feature_labels").mkdir()
    answer = workbench(*command, "--json", "--quiet")
    assert answer.code == 0, answer.err
    assert isinstance(answer.json, dict)


def test_whatever_a_command_prints_besides_goes_to_standard_error(capsys):
    def chatty(as_json: bool = False) -> None:
        print("a library says hello")
        console.say("and so do we")
        console.emit({"x": 1}, as_json=as_json, show=lambda: None)
        print("bye")

    _with_output(chatty, "chatty")(as_json=True, quiet=False)
    said = capsys.readouterr()
    assert said.out == '{\n  "x": 1\n}\n' and said.err == "a library says hello\nand so do we\nbye\n"


def test_quiet_holds_for_the_whole_command_and_ends_with_it(capsys):
    from workbench.base.progress import is_quiet

    seen = []

    def inner() -> None:
        with console.reserved_output(False, False):
            pass
        seen.append(is_quiet())
        console.note("about the work")

    _with_output(inner, "inner")(as_json=False, quiet=True)
    assert seen == [True] and not is_quiet() and capsys.readouterr().err == ""


# ------------------------------------------------------------------------------------------------------------- exit codes


def failing(error):
    def main_job(*_, **__):
        raise error

    return main_job


@pytest.mark.parametrize(
    ("error", "code"), [(WorkbenchError("x"), 2), (CheckFailed("x"), 1), (KeyboardInterrupt(), 130)]
)
def test_errors_have_their_exit_codes(workbench, shelf, monkeypatch, error, code):
    monkeypatch.setattr(stages, "main_job", failing(error))
    assert workbench("demo").code == code


def test_a_check_that_finds_something_ends_with_1(workbench, tmp_path):
    (tmp_path / "labels").mkdir()
    assert workbench("labels", "check", tmp_path / "labels").code == 0
    (tmp_path / "labels" / "m" / "s").mkdir(parents=True)
    (tmp_path / "labels" / "m" / "s" / "0.yaml").write_text("no: label")
    assert workbench("labels", "check", tmp_path / "labels").code == 1
    assert workbench("labels", "check", tmp_path / "nowhere").code == 2


def test_doctor_ends_with_1_when_something_is_in_the_way(workbench, monkeypatch):
    from workbench.cli.house import doctor

    monkeypatch.setattr(doctor, "torch_build", lambda: {"error": "torch is not installed", "devices": [], "version": None})
    answer = workbench("doctor", "--json")
    assert answer.code == 1 and answer.json["problems"]


@pytest.mark.parametrize(
    "arguments", [("demo", "--seed", "x"), ("traits",), ("nonsense",), ("lab", "--seeds", "0"), ("sae", "show")]
)
def test_a_wrong_use_ends_with_2_and_without_a_traceback(workbench, arguments):
    answer = workbench(*arguments)
    assert answer.code == 2 and "Traceback" not in answer.err


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to catch")
def test_a_terminated_command_ends_with_143_and_gives_its_lock_back(tmp_path):
    code = (
        "import sys, time\nfrom workbench.base.runs import RunFolder\n"
        "from workbench.cli import stages\nfrom workbench.cli.run import run\n"
        "def wait(*_, **__):\n    with RunFolder.open('x'):\n        print('ready', flush=True)\n        time.sleep(60)\n"
        "stages.main_job = wait\nsys.exit(run(['demo']))"
    )
    pipe, command = subprocess.PIPE, [sys.executable, "-c", code]
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=tmp_path)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143 and "Traceback" not in err and "run the same command again" in err
    assert not (tmp_path / "x" / ".holder.json").exists()


@pytest.mark.skipif(os.name == "nt", reason="pipes of a shell")
def test_a_reader_that_went_away_is_no_failure():
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {sys.executable} -m workbench traits list --json | head -1"],
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0 and done.stderr == "", done.stderr


def test_the_signal_handler_is_put_back():
    before = signal.getsignal(signal.SIGTERM)
    assert run(["--version"]) == 0
    assert signal.getsignal(signal.SIGTERM) is before


# ---------------------------------------------------------------------------------------------------------------- colours


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "terminal", "expected"),
    [
        ({}, True, True), ({}, False, False), ({"NO_COLOR": "1"}, True, False), ({"NO_COLOR": ""}, True, True),
        ({"FORCE_COLOR": "1"}, False, True), ({"FORCE_COLOR": "0"}, False, False), ({"CLICOLOR_FORCE": "1"}, False, True),
        ({"CLICOLOR": "0"}, True, False), ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False, False), ({"TERM": "dumb"}, True, False),
    ],
)  # fmt: skip
def test_colours_are_for_terminals_unless_the_environment_says_otherwise(monkeypatch, environment, terminal, expected):
    for name in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    stream = Terminal() if terminal else io.StringIO()
    assert console.colours(stream) is expected
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    console.table("title", ("a",), [("b",)])
    console.print_error(WorkbenchError("found"))
    assert ("\x1b[" in stream.getvalue()) is expected

"""The completion protocol, as bash, zsh and fish speak it."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

SAE = "smollm2-135m-instruct/blocks.15.hook_resid_post"


def offered(line: str, shell: str = "bash", cwd=None) -> list[str]:
    """What is offered at the end of a line ("workbench extract ev")."""
    environment = {**os.environ, "_WORKBENCH_COMPLETE": f"complete_{shell}"}
    if shell == "bash":
        environment |= {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    else:
        environment |= {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    command = [sys.executable, "-m", "workbench"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=cwd, check=False)
    assert "Traceback" not in done.stderr
    return [line.split("\t")[0] for line in done.stdout.split("\n") if line.strip()]


def test_bash_gets_traits_models_saes_and_flags():
    assert offered("workbench extract ev") == ["evil"]
    assert offered("workbench report --model gem") == ["gemma3-270m"]
    assert SAE in offered("workbench sae show smol")
    assert {"--samples", "--sae", "--plan"} <= set(offered("workbench demo --"))


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_the_same(shell):
    assert "evil" in "".join(offered("workbench decompose ev", shell))
    assert "cache" in "".join(offered("workbench ca", shell))


def test_run_folders_and_label_folders_of_the_working_folder_are_offered(tmp_path):
    for name in ("one", "two"):
        (tmp_path / "runs" / name / "labels").mkdir(parents=True)
    (tmp_path / "runs" / "one" / "manifest.json").write_text('{"schema": 1, "stages": {}}')
    assert offered("workbench runs show ru", cwd=tmp_path) == ["runs/one"]
    assert offered("workbench labels check ru", cwd=tmp_path) == ["runs/one/labels", "runs/two/labels"]


def test_a_broken_settings_file_offers_nothing_and_says_nothing(tmp_path):
    (tmp_path / "workbench.toml").write_text("x = ")
    assert offered("workbench extract ev", cwd=tmp_path) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_can_be_had(shell):
    environment = {**os.environ, "_WORKBENCH_COMPLETE": f"source_{shell}"}
    done = subprocess.run([sys.executable, "-m", "workbench"], env=environment, capture_output=True, text=True, check=False)
    assert "_WORKBENCH_COMPLETE=complete_" + shell in done.stdout


def test_completion_loads_no_torch_and_is_quick():
    code = (
        "import os, sys\n"
        "os.environ.update(_WORKBENCH_COMPLETE='complete_bash', COMP_WORDS='workbench sae show s', COMP_CWORD='3')\n"
        "from workbench.cli.run import run\ntry:\n    run([])\nexcept SystemExit:\n    pass\n"
        "print(*[m for m in ('torch', 'pandas', 'transformers', 'scipy', 'numpy') if m in sys.modules], file=sys.stderr)"
    )
    best = float("inf")
    for _ in range(3):
        before, started = os.times(), time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        after = os.times()
        used = after.children_user + after.children_system - before.children_user - before.children_system
        best = min(best, used or time.perf_counter() - started)
    assert SAE in done.stdout.split() and done.stderr.strip() == ""
    assert best < 0.7, "of processor time; about half of that on a free core"

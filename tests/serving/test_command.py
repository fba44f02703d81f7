from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from workbench.cli.run import run


@pytest.fixture(scope="module")
def on_disk(world, tmp_path_factory) -> dict[str, Path]:
    """The tiny model and the SAE as folders that a command can be given."""
    from workbench.saes.formats import saelens

    folder = tmp_path_factory.mktemp("weights")
    world.model.hf.save_pretrained(folder / "model")
    world.model.tokenizer.save_pretrained(folder / "model")
    saelens.write(world.sae, folder / "sae")
    return {"model": folder / "model", "sae": folder / "sae"}


def test_it_says_where_it_is_keeps_the_token_to_that_and_ends_on_ctrl_c(world, on_disk):
    command = [sys.executable, "-m", "workbench", "serve", str(world.run), "--json", "--port", "0", "-q",
               "--model", str(on_disk["model"]), "--sae", str(on_disk["sae"])]  # fmt: skip
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None and process.stderr is not None
        said = json.loads(process.stdout.readline())
        try:
            assert said["pid"] == process.pid and said["traits"] == ["evil"] and said["url"].startswith("http://127.0.0.1:")
            base, token = said["url"].split("/?token=")
            headers = {"authorization": f"Bearer {token}"}
            assert httpx.get(base + "/api/status", headers=headers).json()["model_name"] == world.model.name
            assert httpx.get(base + "/api/status").status_code == 401
        finally:
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and out == "" and token not in err and "Traceback" not in err, err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["{tmp}"], "is not a run folder"),
        (["{tmp}/nowhere"], "there is no folder"),
        (["{run}", "--index", "{tmp}"], "no finished feature index"),
        (["{run}", "--labels", "{package}/labels"], "part of the installed package"),
        (["{run}", "--model", "smollm"], "smollm2-135m-instruct"),
        (["{run}", "--model", "{model}", "--sae", "no-such-sae"], "no-such-sae"),
        (["{run}", "--model", "{model}", "--sae", "{sae}", "--host", "0.0.0.0", "--no-browser"], "--allow-other-machines"),
        (["{run}", "--model", "{model}", "--sae", "{sae}", "--host", "no.such.host.invalid"], "--allow-other-machines"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_refused_before_anything_is_loaded(world, on_disk, tmp_path, capsys, options, words):
    import workbench

    places = {"tmp": tmp_path, "run": world.run, "package": Path(workbench.__file__).parent, **on_disk}
    assert run(["serve", *(option.format(**places) for option in options)]) == 2
    told = capsys.readouterr()
    assert words in told.err and told.out == "" and list(tmp_path.iterdir()) == []


def test_the_extra_is_named_when_it_is_missing(world, on_disk, capsys, monkeypatch):
    import importlib.util

    known = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "uvicorn" else known(name, *rest))
    assert run(["serve", str(world.run), "--model", str(on_disk["model"]), "--sae", str(on_disk["sae"])]) == 2
    assert "persona-workbench[serve]" in capsys.readouterr().err


def test_the_page_that_a_browser_is_opened_with_can_be_read_by_its_user_alone():
    from workbench.serving.server import entrance

    place = entrance("http://127.0.0.1:1/?token=secret")
    try:
        assert place.stat().st_mode & 0o077 == 0 and "token=secret" in place.read_text()
    finally:
        place.unlink()


ENDS = """
import threading, time, workbench.cli as cli
cli.PATIENCE = {patience}
threading.Thread(target=time.sleep, args=({seconds},), name=cli.LOADING, daemon=True).start()
print("said", end="")
cli._end(143)
"""


@pytest.mark.parametrize(("seconds", "patience"), [(60, 0.1), (0.1, 30)])
def test_the_exit_code_survives_what_is_still_being_loaded(seconds, patience):
    command = [sys.executable, "-c", ENDS.format(seconds=seconds, patience=patience)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout) == (143, "said")


def test_the_explorer_loads_in_the_thread_that_the_end_waits_for(world):
    from workbench.cli import LOADING
    from workbench.serving.explorer import Explorer
    from workbench.serving.runs import find_runs

    thread = Explorer(find_runs([world.run]), lambda: (world.model, world.sae)).start()
    assert thread.name == LOADING and thread.daemon
    thread.join()

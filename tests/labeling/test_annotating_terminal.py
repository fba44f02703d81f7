"""The annotator in a terminal: a real pseudo-terminal, lines from a pipe, and no colours where none are wanted."""

from __future__ import annotations

import io
import json
import os
import re
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.labeling.annotating import HOSTILE, SAE, evidence_of, label_of, queue, session, shelf
from workbench.labeling.annotating.desk import readings
from workbench.labeling.annotating.keys import LineKeys
from workbench.labeling.annotating.queue import Item
from workbench.labeling.annotating.terminal import annotate_in_terminal, draw
from workbench.labeling.annotating.view import view

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Terminal:
    """The annotator's command on a pseudo-terminal."""

    def __init__(self, root: Path, *arguments: str, **environment: str) -> None:
        import fcntl
        import pty
        import termios

        self.master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (40, 100))
        command = [sys.executable, "-m", "workbench", "labels", "annotate", "--folder", str(root), "--sae", SAE, *arguments]
        names = {"TERM": "xterm-256color", "OMP_NUM_THREADS": "1", **environment}
        kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "WORKBENCH_ANNOTATOR")}
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env={**kept, **names}, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0),  # so that it hears Ctrl-C and a hang-up
        )  # fmt: skip
        self.slave, self.text, self.seen = slave, "", 0

    def wait_for(self, text: str, seconds: float = 60) -> str:
        """Everything on the screen up to `text`, which must come after what was waited for before."""
        end = time.monotonic() + seconds
        while text not in self.text[self.seen :]:
            assert time.monotonic() < end, f"{text!r} did not come; the screen says: {self.text[-2000:]}"
            if select.select([self.master], [], [], 0.1)[0]:
                self.text += os.read(self.master, 65536).decode()
        before = self.seen
        self.seen = self.text.index(text, before) + len(text)
        return self.text[before : self.seen]

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def end(self) -> int:
        code = self.process.wait(30)
        os.close(self.slave)
        os.close(self.master)
        return code


def test_a_whole_session_on_a_terminal(tmp_path: Path) -> None:
    import termios

    folder = shelf(tmp_path)
    one = Terminal(tmp_path, "5", "17", "3", "--trait", "evil", "--name", "first reader")
    before = termios.tcgetattr(one.slave)[3]
    screen = one.wait_for("saved at")
    assert "feature 5" in screen and "« idiot»" in screen and "insults number 5" in screen and COLOUR.search(screen)
    one.press("c")
    one.wait_for("feature 17")
    one.press("3")
    one.wait_for("category: jailbreaking")
    one.press("\x1b[D")  # the left arrow goes back
    one.wait_for("your verdict: confirm")
    one.press("n")
    one.wait_for("feature 17")
    one.wait_for("saved at")
    one.press("e" + "\x15" + "scorm\x7fn ünd\n")
    one.wait_for("feature 3 ")
    one.wait_for("saved at")
    one.press("t")
    one.wait_for("category (number or name): ")
    one.press("manip\n")
    one.wait_for("category: manipulation")
    one.press("?")
    one.wait_for("Ctrl-U clears")
    one.press("z")
    one.wait_for("no action has the key z")
    one.press("m")
    one.wait_for("note: ")
    one.press("unfinished")
    one.wait_for("unfinished")
    one.press("\x1b")
    one.wait_for("begun note: unfinished")
    one.press("q")
    one.wait_for("2 of 3 features read by first reader")
    assert termios.tcgetattr(one.slave)[3] == before, "the terminal is left as it was found"
    assert one.end() == 0
    read = readings(folder, "first reader")
    assert (read[5].verdict, read[17].verdict, read[17].label) == ("confirm", "edit", "scorn ünd")
    assert read[17].categories == {"evil": "jailbreaking"}


def test_a_terminal_that_is_torn_away_in_the_middle_of_a_word_loses_nothing(tmp_path: Path) -> None:
    shelf(tmp_path)
    one = Terminal(tmp_path, "5", "17", NO_COLOR="1", WORKBENCH_ANNOTATOR="first reader")
    screen = one.wait_for("saved at")
    assert not re.search(r"\x1b\[[0-9;]*(3[0-9]|4[0-9]|38|48)[;m]", screen), "NO_COLOR: marks, but no colours"
    assert "\x1b[1;4m" in screen or "\x1b[4;1m" in screen or "« idiot»" in screen
    one.press("u")
    one.wait_for("feature 17")
    one.wait_for("saved at")
    one.press("e\x15hal")
    one.wait_for("hal")
    os.close(one.slave)
    os.close(one.master)  # as when the connection breaks
    one.process.wait(30)
    with session(tmp_path, queue((5, 17)), trait=None) as again:
        shown = view(again)
        assert shown["feature"] == 17 and shown["n_read"] == 1 and shown["drafts"] == {"label": "hal"}


def test_a_name_is_asked_for_on_a_terminal(tmp_path: Path) -> None:
    shelf(tmp_path)
    one = Terminal(tmp_path, "5", "--blind")
    one.wait_for("Your name")
    one.press("second reader\n")
    screen = one.wait_for("saved at")
    assert "insults number" not in screen and "hidden until" in screen
    one.press("\x03")
    one.wait_for("0 of 1 features read by second reader")
    assert one.end() == 0


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """`run("annotate", ..., typed="c\\n")`: (exit code, standard output, standard error) of the command with lines on a pipe."""
    from workbench.cli import main

    def command(*arguments: str, typed: str = "") -> tuple[Any, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        with pytest.raises(SystemExit) as ended:
            main(["labels", *arguments, "--folder", str(tmp_path), "--sae", SAE])
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return command


def test_lines_from_a_pipe_do_as_keys_do_and_the_json_stands_alone(tmp_path: Path, run) -> None:
    folder = shelf(tmp_path)
    for name, typed in (("first reader", "c\nr\ne\nscorn\nq\n"), ("second reader", "c\n\nc\nu\n")):
        code, out, err = run("annotate", "5", "17", "3", "--trait", "evil", "--name", name, "--json", typed=typed)
        assert code == 0 and json.loads(out)["n_read"] == 3, err
    assert readings(folder, "first reader")[3].label == "scorn"
    found = json.loads(run("agreement", "first reader", "second reader", "--json")[1])
    assert found["n_both"] == 3 and found["status"]["n"] == 3 and found["status"]["kappa"] == pytest.approx(1 / 7)
    assert set(found) == {"annotators", "trait", "n_read", "n_both", "status", "category", "blind"}
    assert "3 features read by both" in run("agreement", "first reader", "second reader")[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["annotate", "5"], "no annotator's name"),
        (["annotate", "5", "--name", "first reader", "--order", "best"], "best"),
        (["annotate", "5", "--name", "first reader", "--trait", "evl"], "evil"),
        (["annotate", "--name", "first reader", "--bury", "3"], "--bury"),
        (["agreement", "first reader", "second reader"], "first reader"),
    ],
)
def test_wrong_input_ends_with_code_2_and_writes_nothing(tmp_path: Path, run, arguments: list[str], message: str) -> None:
    folder = shelf(tmp_path)
    before = sorted(folder.rglob("*"))
    code, out, err = run(*arguments)
    assert code == 2 and message in err and out == ""
    assert sorted(folder.rglob("*")) == before


def test_hostile_text_is_not_obeyed_by_the_screen(tmp_path: Path) -> None:
    out = io.StringIO()
    item = Item(5, evidence_of(5, text=HOSTILE + "[bold red]"), label_of(5, explanation=HOSTILE + "[/]"))
    with session(tmp_path, [item]) as one:
        draw(Console(file=out, width=200, force_terminal=True, color_system="truecolor"), view(one))
    text = COLOUR.sub("", out.getvalue()).replace("\x1b[2J\x1b[H", "", 1)  # the screen's own clearing
    assert "\x1b" not in text and "␛[2J" in text and "[bold red]" in text and "\u202e" not in text


def test_an_interrupt_while_writing_ends_the_session_with_the_draft_kept(tmp_path: Path) -> None:
    class Interrupted(LineKeys):
        def line(self, prompt, text, changed):
            changed("sco")
            raise KeyboardInterrupt

    with session(tmp_path) as one:
        annotate_in_terminal(one, Console(file=io.StringIO()), Interrupted(io.StringIO("e\nc\n"), io.StringIO()))
        assert one.n_read == 0 and view(one)["drafts"] == {"label": "sco"}


def test_an_interrupt_while_the_screen_is_drawn_ends_the_session_as_any_other_does(tmp_path: Path) -> None:
    class Torn(io.StringIO):
        def write(self, text: str) -> int:
            if "saved at" in text:
                raise KeyboardInterrupt
            return super().write(text)

    with session(tmp_path) as one:
        one.act("confirm")
        annotate_in_terminal(one, Console(file=Torn()), LineKeys(io.StringIO("q\n"), io.StringIO()))
        assert one.n_read == 1

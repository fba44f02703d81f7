from __future__ import annotations

import io
import sys

import pytest

from workbench.base import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def no_wish(monkeypatch):
    monkeypatch.delenv("WORKBENCH_PROGRESS", raising=False)


def test_it_is_silent_where_nobody_watches(no_wish, capsys):
    with progress.track("a", 3) as step:
        step()
    assert capsys.readouterr() == ("", "")


def test_plain_lines_on_request_name_count_unit_and_time(monkeypatch, capsys):
    monkeypatch.setenv("WORKBENCH_PROGRESS", "1")
    with progress.track("rollouts", 500, "rows") as step:
        step(120)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "rollouts: 0/500 rows"
    assert lines[-1].startswith("rollouts: 120/500 rows in ")


def test_a_plain_line_tells_the_time_that_is_left():
    assert progress._line("x", 100, 500, "rows", 50.0) == "x: 100/500 rows, 50 s, about 3 min 20 s left"
    assert progress._line("x", 1000, None, "tokens", 5.0) == "x: 1,000 tokens, 5.0 s"


def test_a_terminal_gets_a_bar_with_label_count_and_unit(no_wish, monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with progress.track("capture", 10, "rows") as outer, progress.track("inside", None, "tokens") as inner:
        outer(4)
        inner(7)
    text = screen.getvalue()
    assert "capture" in text and "4/10 rows" in text and "7 tokens" in text
    assert progress._shared is None


def test_quiet_silences_even_a_terminal(no_wish, monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    progress.set_quiet(True)
    try:
        with progress.track("a", 1) as step:
            step()
    finally:
        progress.set_quiet(False)
    assert screen.getvalue() == ""


def test_seconds_add_up_under_a_label_after_an_error_too():
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), progress.track("timed-label", 1):
            raise ZeroDivisionError
    assert 0 < progress.timings()["timed-label"] < 5


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.44, "0.4 s"), (59.6, "1 min"), (12, "12 s"), (200, "3 min 20 s"), (7200, "2 h"), (7500, "2 h 5 min")],
)
def test_durations_read_like_speech(seconds, words):
    assert progress.duration(seconds) == words

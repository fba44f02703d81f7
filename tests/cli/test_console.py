"""What the command line prints of texts that others wrote: no terminal obeys them."""

from __future__ import annotations

import json

import pytest

from workbench.base.errors import WorkbenchError
from workbench.base.text import is_control
from workbench.cli import console

HOSTILE = "a\x1b]0;title\x07\x1b[2J\x9b31m\u202ecba [red]b[/red]\nsecond line"


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    said = capsys.readouterr()
    text = said.out + said.err
    assert text and not [c for c in text if c != "\n" and is_control(c)]
    return text


def test_lines_notes_and_errors_show_control_characters_as_signs(capsys: pytest.CaptureFixture[str]) -> None:
    for tell in (console.say, console.note, lambda text: console.print_error(WorkbenchError(text, text, text))):
        tell(HOSTILE)
        text = shown(capsys)
        assert "␛[2J" in text and "\nsecond line" in text and "[red]" in text


def test_a_table_shows_control_characters_as_signs_wherever_they_stand(capsys: pytest.CaptureFixture[str]) -> None:
    console.table(HOSTILE, (HOSTILE, "b"), [(HOSTILE, 1.0)])
    text = shown(capsys)
    assert text.count("␛[2J") == 3 and text.count("second line") == 3 and text.count("[red]") == 3


def test_json_is_the_same_value_and_moves_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console.emit({HOSTILE: [HOSTILE, "ü"]}, as_json=True, show=lambda: None)
    text = shown(capsys)
    assert json.loads(text) == {HOSTILE: [HOSTILE, "ü"]} and "ü" in text

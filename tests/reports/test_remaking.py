"""Make this again: the command has the settings behind the numbers, and the page says what it cannot say."""

from __future__ import annotations

from dataclasses import replace

from workbench.reports.content import Report
from workbench.reports.remaking import command, command_notes

DESIGN = {"n_samples": 3, "batch_size": 8, "sampling": {"max_new_tokens": 24}, "n_extraction": None}
MADE = {"seed": 7, "config": {"design": DESIGN, "judge": {"name": "none"}}}


def _with(report: Report, provenance: dict, **changes) -> Report:
    return replace(report, vector=replace(report.vector, provenance=provenance, **changes))


def test_the_command_has_every_setting_that_is_known(full: Report):
    words = command([_with(full, MADE)])
    assert words.endswith("--seed 7 --samples 3 --max-new-tokens 24 --batch-size 8 --judge none")
    assert command_notes([_with(full, MADE)]) == []


def test_a_setting_that_differs_between_traits_is_not_in_the_command(full: Report):
    other = {**MADE, "config": {**MADE["config"], "judge": {"name": "offline"}}}
    two = [_with(full, MADE), _with(full, other)]
    assert "--judge" not in command(two) and command_notes(two)[0].startswith("The traits differ in --judge: ")


def test_what_the_command_cannot_say_stands_below_it(full: Report):
    smaller = {**MADE, "config": {**MADE["config"], "design": {**DESIGN, "n_extraction": 8}}}
    told = command_notes([_with(full, smaller, trait="my own kind")])
    assert len(told) == 2 and "give the folder" in told[0] and "fewer questions" in told[1]
    assert "samples its own" in command_notes([_with(full, {})])[0]
    assert "samples its own" in _with(full, {}).html()

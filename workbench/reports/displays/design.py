"""Displays of roles, scripts and placed system prompts."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from workbench.axis.design.result import headline
from workbench.reports.axis.design import nearest_figure
from workbench.reports.displays.frame import Display, ends, listing
from workbench.reports.svg import percent

if TYPE_CHECKING:
    from workbench.axis.design.answers import Answers, PlaceDesign
    from workbench.axis.design.result import Placement
    from workbench.axis.roles import Role
    from workbench.axis.scripts import Script


def role_display(role: Role) -> Display:
    """Who speaks, and the system prompts."""
    rows = [(number, prompt or "(no system message)") for number, prompt in enumerate(role.prompts, start=1)]
    return Display(f"Role {role.title}", [role.description], [listing(("prompt", "text"), rows)])


def script_display(script: Script) -> Display:
    """What the user says, turn by turn."""
    told = listing(("turn", "user"), list(enumerate(script.turns, start=1)))
    about = f"{script.domain}, {script.n_words} words, for {script.split}"
    return Display(f"Script {script.id}: {script.topic}", [about], [told])


def design_display(design: PlaceDesign) -> Display:
    """How much is sampled."""
    rows = [(one.name.replace("_", " "), str(getattr(design, one.name))) for one in fields(design)]
    return Display("How a prompt is placed", tables=[listing(("what", "value"), rows)])


def answers_display(answers: Answers) -> Display:
    """How many prompts answered how many questions."""
    told = f"{len(answers.rows):,} answers, means at {answers.hook}"
    return Display(f"{len(answers.prompts)} system prompts x {len(answers.questions)} questions", [told])


def placement_display(placement: Placement) -> Display:
    """Where it stands, what is near, and what its sentences do."""
    nearest = [(str(one["rank"]), one["role"].replace("_", " "), one["cos"], ends([one["low"], one["high"]], 2),
                percent(one["nearest_share"], 0)) for one in placement.standing["nearest"][:5]]  # fmt: skip
    moved = [(one["name"], one["value"], ends([one["low"], one["high"]], 2), one["p_family"]) for one in placement.sentences]
    tables = [
        listing(("rank", "character", "cosine", "95% interval", "nearest in"), nearest),
        listing(("its own sentence", "moves it by", "95% interval", "p of the family"), moved),
    ]
    return Display(f"Where {placement.name} lands", [headline(placement)], tables, nearest_figure(placement))

"""`workbench axis roles`: the characters, their replies on a model, and their vectors."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..options import JsonOption, QuietOption


def command(
    role: Annotated[list[str] | None, typer.Argument(metavar="[ROLE]", help="Characters by name. [default: all]")] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """The characters that a model can be asked to play.

    Each has five system prompts and a rubric.
    """
    from workbench.axis.roles import load_roles

    from ..console import emit

    value: dict[str, Any] = {"roles": [{"name": one.name, "description": one.description, "n_prompts": len(one.prompts)}
                                       for one in load_roles(role or None)]}  # fmt: skip
    emit(value, as_json=as_json, show=lambda: _show(value))


def _show(value: dict[str, Any]) -> None:
    from ..console import table

    table(f"{len(value['roles'])} characters", ("role", "prompts", "who speaks"),
          [(one["name"], one["n_prompts"], one["description"]) for one in value["roles"]], right=(1,))  # fmt: skip

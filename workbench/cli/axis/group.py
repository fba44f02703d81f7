"""The group `workbench axis`: each verb has a module of its own beside this one."""

from __future__ import annotations

import typer

from . import roles

app = typer.Typer()
app.command(name="roles")(roles.command)

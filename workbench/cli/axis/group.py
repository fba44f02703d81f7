"""The group `workbench axis`: each verb has a module of its own beside this one."""

from __future__ import annotations

import typer

from . import cap, drift, jailbreak, map, place, roles

app = typer.Typer()
app.command(name="roles")(roles.command)
app.command(name="drift", no_args_is_help=True)(drift.command)
app.command(name="cap", no_args_is_help=True)(cap.command)
app.command(name="jailbreak", no_args_is_help=True)(jailbreak.command)
app.command(name="map")(map.command)
app.command(name="place")(place.command)

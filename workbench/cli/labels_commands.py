"""`workbench labels`: the label folders, checked, compared, merged, migrated and exchanged.

Other commands of the group stand in files of their own (labels_*.py) and are registered at the end of this one.
"""

from __future__ import annotations

import typer

from . import labels_annotate, labels_explain

app = typer.Typer(help="What the features are, in words: label files, their scores and their exchange.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Label files, their scores and their exchange."""


labels_annotate.register(app)
labels_explain.register(app)

"""Free-form values of a run folder (evidence, audits, controls) that have not the shape in which they are read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from workbench.base.errors import WorkbenchError


@contextmanager
def refused_in_words(what: str) -> Iterator[None]:
    """Within the block a value of another shape is a WorkbenchError about `what`; its cause stays attached."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise WorkbenchError(
            f"{what} holds a value that cannot be read ({type(error).__name__}: {str(error)[:200]})",
            "files as the stages and studies wrote them",
            "restore them, or make that stage or study again",
        ) from error

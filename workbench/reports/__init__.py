"""Reports: what a vector is made of, as one page. Values in, HTML, SVG and JSON out; no model is ever loaded or run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.reports.content import Report, report

__all__ = ["Report", "report"]


def __getattr__(name: str):
    if name in __all__:
        from workbench.reports import content

        return getattr(content, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

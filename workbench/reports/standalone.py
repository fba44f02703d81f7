"""A figure that stands alone: readable even where its style is dropped, as some code hosts do.

Every mark carries its light colours as attributes; the style, where it is kept, overrides them and brings the dark ones.
"""

from __future__ import annotations

import re
from functools import cache
from html import escape

from workbench.reports.tokens import figure_css

_ATTRIBUTES = {"fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-linecap", "opacity", "font-family", "font-size"}
_CLASSED = re.compile(r'<(\w+)([^>]*?) class="([^"]*)"([^>]*?)(/?)>')


def standalone(inline: str) -> str:
    """The drawing with its style, and with that style's light half as attributes."""
    head, rest = _CLASSED.sub(_coloured, inline).split(">", 1)
    return f"{head}><style>{figure_css()}</style>{rest}"


def _coloured(found: re.Match[str]) -> str:
    name, before, classes, after, end = found.groups()
    declared = {key: value for one in classes.split() for key, value in _rules().get(one, {}).items()}
    added = "".join(f' {key}="{escape(value)}"' for key, value in declared.items() if f' {key}="' not in before + after)
    return f'<{name}{before} class="{classes}"{added}{after}{end}>'


@cache
def _rules() -> dict[str, dict[str, str]]:
    """Class -> the declarations that can be attributes, in the light."""
    light = figure_css().split("@media")[0]
    return {
        name: {key: value for key, _, value in (one.partition(":") for one in body.split(";")) if key in _ATTRIBUTES}
        for name, body in re.findall(r"\.(wbf[\w-]*)(?:,[^{]*)?\{([^}]*)\}", light)
    }

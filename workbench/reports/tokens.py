"""The design tokens (colours, type, spacing) of `templates/tokens.css`, as values and as CSS for any place they are shown in."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

DARK_SCREEN = "@media screen and (prefers-color-scheme:dark)"


@cache
def template_text(name: str) -> str:
    """The text of a file in `templates/`."""
    return files("workbench.reports").joinpath("templates", name).read_text(encoding="utf-8")


@cache
def tokens() -> tuple[dict[str, str], dict[str, str]]:
    """({name: value} in the light, {name: value} that differs in the dark); names without the leading `--`."""
    light, dark = template_text("tokens.css").split("@media", 1)
    return tuple(dict(re.findall(r"--(wb-[\w-]+):([^;}]+?)\s*(?=[;}])", half)) for half in (light, dark))  # type: ignore[return-value]


def tokens_css(scope: str = ":root", *, dark_scope: str | None = None) -> str:
    """The tokens as CSS variables on `scope`, for pages that must not set them on the whole document.

    In the dark they follow the system's setting; with `dark_scope` (a selector, such as JupyterLab's
    `[data-jp-theme-light="false"] .workbench-display`) they follow the place instead, and the system's setting is not asked.
    """
    light, dark = (";".join(f"--{name}:{value}" for name, value in half.items()) for half in tokens())
    in_the_dark = f"{DARK_SCREEN}{{{scope}{{{dark}}}}}" if dark_scope is None else f"{dark_scope}{{{dark}}}"
    return f"{scope}{{{light}}}\n{in_the_dark}"


@cache
def figure_css() -> str:
    """The style of a figure that stands alone: no variables, light and dark, for files, notebooks and code hosts."""
    light, dark = tokens()
    source = template_text("figure.css").strip()
    rules, forced = source.split("@media", 1)
    coloured = "".join(re.findall(r"[^{}]+\{[^{}]*var\(--wb-(?!sans)[^{}]*\}", rules))
    return f"{_resolved(rules, light)}{DARK_SCREEN}{{{_resolved(coloured, light | dark).strip()}}}\n@media{forced}"


def _resolved(css: str, values: dict[str, str]) -> str:
    return re.sub(r"var\(--(wb-[\w-]+)\)", lambda found: values[found.group(1)], css)

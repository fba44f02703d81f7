"""The design tokens: one file, readable in light and dark, on any scope."""

from __future__ import annotations

import re

import pytest

from workbench.reports.tokens import figure_css, template_text, tokens, tokens_css


def luminance(colour: str) -> float:
    """Relative luminance of #rgb or #rrggbb (WCAG 2.2)."""
    digits = colour.lstrip("#")
    channels = [int(c * 2, 16) for c in digits] if len(digits) == 3 else [int(digits[n : n + 2], 16) for n in (0, 2, 4)]
    linear = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(("names", "least"), [
    (("ink", "soft", "link", "good", "fair", "poor", "warn"), 4.5), (("trait", "other", "unclear", "error", "edge"), 3.0),
])  # fmt: skip
def test_text_and_marks_reach_their_contrast_on_paper(names: tuple[str, ...], least: float, dark: bool) -> None:
    light, changed = tokens()
    known = light | changed if dark else light
    for name in names:
        assert contrast(known[f"wb-{name}"], known["wb-paper"]) >= least, name


def test_every_variable_that_a_style_uses_is_a_token() -> None:
    light, dark = tokens()
    for name in ("figure", "components", "page"):
        used = set(re.findall(r"var\(--(wb-[\w-]+)", template_text(f"{name}.css")))
        assert used <= set(light), name
    assert set(dark) <= set(light)


def test_tokens_can_be_set_on_a_scope_and_follow_the_place_instead_of_the_system() -> None:
    css = tokens_css(".cell", dark_scope='[data-theme="dark"] .cell')
    assert css.startswith(".cell{--wb-paper:#fff;") and '[data-theme="dark"] .cell{' in css and "prefers-color-scheme" not in css
    assert ":root" not in css and "prefers-color-scheme:dark" in tokens_css(".cell")


def test_a_figure_that_stands_alone_needs_no_variables() -> None:
    css = figure_css()
    assert "var(" not in css and css.count("{") == css.count("}") and "prefers-color-scheme:dark" in css

"""Formulas as MathML, made when the site is built: browsers typeset it themselves, without fonts or scripts from elsewhere."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from latex2mathml.converter import convert
from markdown import Markdown
from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor

INLINE = r"\$`([^`\n]+)`\$"


class MathExtension(Extension):
    """$`e = mc^2`$ in a line of text."""

    def extendMarkdown(self, md: Markdown) -> None:
        md.inlinePatterns.register(_Inline(INLINE, md), "math", 200)  # before code spans


class _Inline(InlineProcessor):
    def handleMatch(self, m: Any, data: str) -> tuple[str, int, int]:  # type: ignore[override]
        return self.md.htmlStash.store(_mathml(m.group(1), "inline")), m.start(0), m.end(0)


def block(source: str, *_: Any, **__: Any) -> str:
    """The formatter of a ```math block: one formula."""
    return f'<div class="formula" tabindex="0" role="group" aria-label="Formula">{_mathml(source.strip(), "block")}</div>'


def _mathml(latex: str, display: str) -> str:
    made = convert(latex, display=display)
    ElementTree.fromstring(made)  # a formula that is no XML stops the build here
    return made

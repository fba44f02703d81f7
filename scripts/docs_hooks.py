"""What mkdocs calls while it builds the site: the pages that are generated, formulas, and the files taken from the repository.

A page asks for generated text with a comment: `<!-- cli reference -->`, `<!-- python reference -->`, `<!-- include: FILE -->`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import docs_cli
import docs_math
import docs_python

ROOT = Path(__file__).resolve().parents[1]
_GENERATED = {"cli": docs_cli.reference, "python": docs_python.reference}
_REFERENCE = re.compile(r"<!-- (cli|python) reference -->")
_INCLUDE = re.compile(r"<!-- include: ([\w./-]+) -->")


def on_config(config: Any) -> Any:
    """Formulas become MathML: ```math blocks and $`inline`$ ones, as a code host shows them."""
    config.markdown_extensions.append(docs_math.MathExtension())
    fences = config.mdx_configs.setdefault("pymdownx.superfences", {}).setdefault("custom_fences", [])
    fences.append({"name": "math", "class": "math", "format": docs_math.block})
    return config


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page with everything generated put in its place."""
    markdown = _REFERENCE.sub(lambda match: _GENERATED[match[1]](), markdown)
    return _INCLUDE.sub(lambda match: included(ROOT / match[1]), markdown)


def included(path: Path) -> str:
    """A file of the repository without its title (the page has its own); its links to docs/ lead there."""
    text = path.read_text(encoding="utf-8").split("\n", 1)[1]
    return text.replace("](docs/", "](")


def on_post_template(output_content: str, **_: Any) -> str:
    """The page for addresses that do not exist, likewise."""
    return on_post_page(output_content)


def on_post_page(output: str, **_: Any) -> str:
    """The finished page; the theme's search dialog gets the name that it lacks."""
    dialog = 'data-md-component="search" role="dialog"'
    return output.replace(dialog, f'{dialog} aria-label="Search"', 1)

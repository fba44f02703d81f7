"""The page: one HTML file without network, from templates that escape everything.

Three walls against hostile text: control characters are spelled out (`text.clean`), the templates escape (autoescape on
for every file), and the page's own Content-Security-Policy runs only the one script whose hash it names.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError
from workbench.reports.damage import refused_in_words
from workbench.reports.text import MAX_CHARACTERS, clean, clean_token
from workbench.reports.tokens import template_text

if TYPE_CHECKING:
    from jinja2 import Environment

    from workbench.reports.content import Report
    from workbench.reports.several import TraitReports

MAX_BYTES = 3_000_000
MAX_TABLE = 500_000
# (contexts shown per list, tokens either side of the peak), tried in turn until the page is small enough.
_BUDGETS = ((6, 24), (4, 24), (3, 20), (3, 14), (2, 12), (1, 8), (0, 0))


def render(report: Report) -> str:
    """The page of one trait; contexts are shortened step by step when it would exceed 3 MB.

    Raises WorkbenchError when it is too large even without contexts.
    """
    return _page([report], None)


def render_traits(several: TraitReports) -> str:
    """The page of several traits: an overview, what they share, and a chapter for each. Of one trait: its own page."""
    return _page(several.traits, several if len(several.traits) > 1 else None)


def _page(reports: Sequence[Report], several: TraitReports | None) -> str:
    with refused_in_words(f"the report on {', '.join(repr(one.trait) for one in reports)}"):
        return _rendered(reports, several)


def _rendered(reports: Sequence[Report], several: TraitReports | None) -> str:
    from workbench.reports.page import page

    template = environment().get_template("page.html.jinja")
    downloads = _downloads(several or reports[0])
    for n_contexts, window in _BUDGETS:
        view = page(reports, several, n_contexts=n_contexts, window=window)
        text = template.render(view, **assets(), **downloads)
        if len(text.encode()) < MAX_BYTES:
            return text
    raise WorkbenchError(
        f"the report on {', '.join(repr(one.trait) for one in reports)} exceeds 3 MB even without contexts",
        "a page that can be mailed",
        "show fewer features: report(..., n_features=30) with labels of those features only",
    )


def _downloads(value: Report | TraitReports) -> dict[str, Any]:
    """What can be taken out of the page: the JSON object once, and tables of it as CSV."""
    from workbench.reports.downloads import tables

    found = tables(value)
    kept = {name: text for name, text in found.items() if len(text.encode()) <= MAX_TABLE}
    return {
        "data": embedded(_shortened(value.to_json())),
        "data_tables": embedded({name: _packed(text) for name, text in kept.items()}),
        "table_names": [(name, name.removesuffix(".csv").replace("_", " ")) for name in kept],
        "left_out": ", ".join(name for name in found if name not in kept),
    }


def _packed(text: str) -> str:
    """gzip in base64: a browser unpacks it when somebody takes the table along."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


@cache
def environment() -> Environment:
    """Jinja with autoescape on for every file, and no undefined names."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    env = Environment(
        loader=PackageLoader("workbench.reports"),
        autoescape=True,
        finalize=_finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters.update(clean=clean, token=clean_token, tied=_tied)
    return env


def _tied(text: str) -> str:
    """The same words with intervals that do not break across lines."""
    return re.sub(r" \[(\S+), (\S+)\]", "\u00a0[\\1,\u00a0\\2]", text)


def _finalize(value: Any) -> Any:
    """Every plain text that a template prints is cleaned once more, so that forgetting `|clean` does no harm."""
    return clean(value, limit=2 * MAX_CHARACTERS) if type(value) is str else value


@cache
def assets(*, script: bool | str = True) -> dict[str, Any]:
    """{css, js, policy}: what a page carries. `script` names the file of its code (True: page.js); without, it may run none."""
    from markupsafe import Markup

    css = "\n".join(template_text(f"{name}.css") for name in ("tokens", "figure", "components", "page"))
    code = "\n" + template_text(f"{'page' if script is True else script}.js") if script else ""
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    run = f"script-src 'sha256-{digest}'; " if script else ""
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; {run}base-uri 'none'; form-action 'none'"
    return {"css": Markup(css), "js": Markup(code), "policy": policy}


def _shortened(value: Any) -> Any:
    """The same JSON value with texts beyond any honest length cut, so that they cannot fill the page."""
    if isinstance(value, dict):
        return {key[:MAX_CHARACTERS]: _shortened(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shortened(item) for item in value]
    return value[:MAX_CHARACTERS] if isinstance(value, str) else value


def embedded(value: Any) -> Any:
    """JSON for a <script type="application/json">: no character in it can end the element or open a comment."""
    from markupsafe import Markup

    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)

"""The page: one HTML file without network, from templates that escape everything.

Three walls against hostile text: control characters are spelled out (`text.clean`), the templates escape (autoescape on
for every file), and the page's own Content-Security-Policy runs only the one script whose hash it names.
"""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError
from workbench.reports.text import MAX_CHARACTERS, clean, clean_token

if TYPE_CHECKING:
    from jinja2 import Environment

    from workbench.reports.content import Report

MAX_BYTES = 3_000_000
# (contexts shown per list, tokens either side of the peak), tried in turn until the page is small enough.
_BUDGETS = ((8, 24), (6, 18), (4, 14), (2, 10), (1, 6), (0, 0))


def render(report: Report) -> str:
    """The whole page; contexts are shortened step by step when it would exceed 3 MB.

    Raises WorkbenchError when it is too large even without contexts.
    """
    from workbench.reports.page import page

    template = environment().get_template("page.html.jinja")
    data = embedded(_shortened(report.to_json()))
    for n_contexts, window in _BUDGETS:
        text = template.render(page(report, n_contexts=n_contexts, window=window), **_assets(), data=data)
        if len(text.encode()) < MAX_BYTES:
            return text
    raise WorkbenchError(
        f"the report on {report.trait!r} exceeds 3 MB even without contexts",
        "a page that can be mailed",
        "show fewer features: report(..., n_features=30) with labels of those features only",
    )


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
    env.filters.update(clean=clean, token=clean_token)
    return env


def _finalize(value: Any) -> Any:
    """Every plain text that a template prints is cleaned once more, so that forgetting `|clean` does no harm."""
    return clean(value, limit=2 * MAX_CHARACTERS) if type(value) is str else value


def _source(name: str) -> str:
    env = environment()
    assert env.loader is not None
    return env.loader.get_source(env, name)[0]


@cache
def _assets() -> dict[str, Any]:
    from markupsafe import Markup

    from workbench.reports.svg import STYLE

    script = "\n" + _source("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return {"css": Markup(_source("page.css") + STYLE), "js": Markup(script), "policy": policy}


@cache
def still_page() -> dict[str, Any]:
    """{css, policy} of a page without any script."""
    from markupsafe import Markup

    from workbench.reports.svg import STYLE

    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    return {"css": Markup(_source("page.css") + STYLE), "policy": policy}


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

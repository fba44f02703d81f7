"""The pages and what they are drawn with. A page is its frame and the run's own values; scripts fill in what is asked for
later.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, HTTPException
from fastapi.responses import HTMLResponse, Response
from markupsafe import Markup

from workbench.reports.html import environment
from workbench.reports.tokens import template_text
from workbench.serving.answers import live_report
from workbench.serving.explorer import READY, Explorer

if TYPE_CHECKING:
    from jinja2 import Environment

SHARED = ("tokens.css", "figure.css", "components.css")
OWN = ("explorer.css", "shared.js", "trait.js", "text.js", "steer.js", "features.js", "feature.js")
_KINDS = {"css": "text/css", "js": "text/javascript"}


def make_router(explorer: Explorer) -> APIRouter:
    """GET /, /traits/{trait}, /text, /steer, /features, /features/{feature}, /static/{name}."""
    router = APIRouter(include_in_schema=False)

    def page(name: str, **values: Any) -> HTMLResponse:
        return HTMLResponse(pages().get_template(f"{name}.html.jinja").render(status=explorer.status(), here=name, **values))

    @router.get("/")
    def home() -> HTMLResponse:
        return page("trait", **_trait(explorer, explorer.traits[0]))

    @router.get("/traits/{trait}")
    def trait(trait: str) -> HTMLResponse:
        if trait not in explorer.traits:
            raise HTTPException(404, "there is no such trait here")
        return page("trait", **_trait(explorer, trait))

    @router.get("/text")
    def text() -> HTMLResponse:
        return page("text")

    @router.get("/steer")
    def steer() -> HTMLResponse:
        return page("steer")

    @router.get("/features")
    def features() -> HTMLResponse:
        return page("features")

    @router.get("/features/{feature}")
    def feature(feature: int) -> HTMLResponse:
        explorer.feature(feature)
        return page("feature", feature=feature)

    @router.get("/static/{name}")
    def static(name: str) -> Response:
        if name not in (*SHARED, *OWN):
            raise HTTPException(404, "there is no such file")
        text = template_text(name) if name in SHARED else _own(name)
        return Response(text, media_type=_KINDS[name.rsplit(".", 1)[1]])

    return router


def problem_page(explorer: Explorer, problem: dict[str, str], status: int) -> HTMLResponse:
    """The page that says what could not be shown: {found, expected, remedy}, each cleaned and escaped."""
    text = pages().get_template("problem.html.jinja").render(status=explorer.status(), here="shared", problem=problem)
    return HTMLResponse(text, status)


def _trait(explorer: Explorer, trait: str) -> dict[str, Any]:
    """What the trait's page shows at once; nothing but its name while the run is being read."""
    from workbench.reports import verdict

    found = live_report(explorer, trait) if explorer.states["runs"][0] == READY else None
    run = next(one for one in explorer.on_disk if one.trait == trait)
    if found is None:
        return {"trait": trait, "run": run, "found": None}
    lights = verdict.lights(found)
    return {
        "trait": trait,
        "run": run,
        "found": found,
        "picture": Markup(found.picture().inline) if found.slices else None,
        "overall": verdict.overall(lights),
        "causal_sentence": verdict.causal_sentence(found),
        "authors_sentence": verdict.authors_sentence(found),
        "warnings": [*verdict.vector_warnings(found.vector.evidence), *map(str, found.parts.warnings)],
    }


@cache
def pages() -> Environment:
    """The report's environment (autoescape, cleaned texts, no undefined names), with our templates before its own."""
    from jinja2 import ChoiceLoader, PackageLoader

    return environment().overlay(
        loader=ChoiceLoader([PackageLoader("workbench.serving"), PackageLoader("workbench.reports")])
    )


@cache
def _own(name: str) -> str:
    return files("workbench.serving").joinpath("static", name).read_text(encoding="utf-8")

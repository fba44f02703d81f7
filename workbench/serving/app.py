"""The explorer as a web application: routes by subject behind one guard. Nothing is fetched from anywhere else."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from workbench import __version__
from workbench.base.errors import WorkbenchError
from workbench.serving.answers import spelled
from workbench.serving.explorer import Explorer, NotReady
from workbench.serving.labelling import Conflict, record_json
from workbench.serving.routes import features, labels, pages, replies, status, texts
from workbench.serving.security import Access, Guard
from workbench.serving.streams import Answer
from workbench.serving.turns import Busy

logger = logging.getLogger(__name__)
ROUTES = (pages, status, features, texts, replies, labels)


def make_app(explorer: Explorer, access: Access) -> Guard:
    """The ASGI application. The API is described at /api/openapi.json; its interactive pages need a CDN and are off."""
    app = FastAPI(
        title="persona-workbench explorer",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )
    for subject in ROUTES:
        app.include_router(subject.make_router(explorer))
    known = {WorkbenchError: _of_workbench, RequestValidationError: _of_request, HTTPException: _of_http, Exception: _of_ours}
    for kind, answer in known.items():
        app.add_exception_handler(kind, _for_readers(explorer, answer))
    return Guard(app, access)


def _for_readers(explorer: Explorer, answer: Callable[[Request, Any], Answer]) -> Callable[[Request, Any], Response]:
    """The answer as a page of the explorer where a browser asked for a page, as JSON everywhere else."""

    def handle(request: Request, error: Any) -> Response:
        found = answer(request, error)
        is_page = not request.url.path.startswith(("/api/", "/static/"))
        if is_page and "text/html" in request.headers.get("accept", ""):
            return pages.problem_page(explorer, json.loads(bytes(found.body)), found.status_code)
        return found

    return handle


def _of_workbench(_: Request, error: Any) -> Answer:
    """400, but 503 for what is still being loaded, 409 for a conflict, 429 or 503 when the model is at work."""
    known = {"found": error.found, "expected": error.expected, "remedy": error.remedy}
    if isinstance(error, Conflict):
        return Answer(spelled({**known, "conflict": record_json(error.record)}), 409)
    status = error.status if isinstance(error, Busy) else 503 if isinstance(error, NotReady) else 400
    return Answer(spelled(known), status, headers={"retry-after": "2"} if status in (429, 503) else None)


def _of_request(_: Request, error: Any) -> Answer:
    """422, by field; what was sent is not sent back."""
    found = "; ".join(f"{'.'.join(map(str, one['loc'][1:])) or 'body'}: {one['msg']}" for one in error.errors()[:5])
    return Answer(spelled({"found": found, "expected": "a request as /api/openapi.json describes it", "remedy": ""}), 422)


def _of_http(_: Request, error: Any) -> Answer:
    return Answer({"found": str(error.detail), "expected": "", "remedy": ""}, error.status_code)


def _of_ours(_: Request, error: Exception) -> Answer:
    """500 for a mistake of ours; the traceback is in the terminal, not in the page."""
    return Answer({"found": f"something went wrong here ({type(error).__name__})", "expected": "",
                   "remedy": "see the terminal"}, 500)  # fmt: skip

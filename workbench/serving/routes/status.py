"""How far the explorer is with loading, and what it was started with."""

from __future__ import annotations

from fastapi import APIRouter

from workbench.serving.answers import spelled
from workbench.serving.explorer import Explorer
from workbench.serving.streams import Answer


def make_router(explorer: Explorer) -> APIRouter:
    """GET /api/status."""
    router = APIRouter(prefix="/api", tags=["status"])

    @router.get("/status")
    def status() -> Answer:
        """{runs, index, model: {state, message}}: waiting, loading, ready, failed or absent; the traits, names and limits."""
        return Answer(spelled(explorer.status()))

    return router

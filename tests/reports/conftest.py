"""A made-up report, and a real browser when there is one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.reports.example import example_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def report():
    return example_report()


@pytest.fixture(scope="session")
def browser() -> Iterator:
    """Chromium through playwright; skipped without one, unless WORKBENCH_REQUIRE_BROWSER=1."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sync_playwright = None
    if program is None or sync_playwright is None:
        missing = "no chromium" if program is None else "no playwright"
        (pytest.fail if os.environ.get("WORKBENCH_REQUIRE_BROWSER") == "1" else pytest.skip)(missing)
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=program, args=SWITCHES)
        yield chromium
        chromium.close()


class Visit:
    """A page opened from a file, with everything that went wrong and everything that it asked the network for."""

    def __init__(self, browser, path: Path, *, fragment: str = "", **context) -> None:
        self.page = browser.new_context(accept_downloads=True, **context).new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.dialogs: list[str] = []
        self.page.on(
            "console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None
        )
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", self._dialog)
        self.page.on("request", self._request)
        self.page.goto(path.as_uri() + fragment)

    def _dialog(self, dialog) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def _request(self, request) -> None:
        if not request.url.startswith(("file:", "data:", "blob:")):
            self.requests.append(request.url)

    def shown_features(self) -> list[int]:
        cells = self.page.eval_on_selector_all(
            "#features tbody tr:not([hidden]) td:first-child",
            "cells => cells.map(c => Number(c.dataset.sort))",
        )
        return [int(cell) for cell in cells]


@pytest.fixture
def visit(browser):
    opened: list[Visit] = []

    def open_page(path: Path, **options) -> Visit:
        opened.append(Visit(browser, path, **options))
        return opened[-1]

    yield open_page
    for one in opened:
        one.page.context.close()

"""A made-up report, and its page in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reports.example import example_report


@pytest.fixture(scope="session")
def report():
    return example_report()


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
